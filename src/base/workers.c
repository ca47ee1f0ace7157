/* A pool of threads: one list a priority, one lock, one condition. */
#include "base/workers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

struct list {
    struct job *head;
    struct job **tail;
};

struct workers {
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed;
    struct list lists[PRIORITY_COUNT];
    bool stopping;
    unsigned thread_count;
    pthread_t threads[];
};

static struct job *take(struct workers *workers)
{
    for (int i = 0; i < PRIORITY_COUNT; i++) {
        struct list *list = &workers->lists[i];
        struct job *job = list->head;

        if (!job)
            continue;
        list->head = job->next;
        if (!list->head)
            list->tail = &list->head;
        return job;
    }
    return NULL;
}

static void *worker_main(void *argument)
{
    struct workers *workers = argument;

    pthread_mutex_lock(&workers->lock);
    for (;;) {
        struct job *job = take(workers);

        if (job) {
            pthread_mutex_unlock(&workers->lock);
            job->run(job);
            pthread_mutex_lock(&workers->lock);
        } else if (workers->stopping) {
            break;
        } else {
            pthread_cond_wait(&workers->changed, &workers->lock);
        }
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

int workers_create(unsigned count, struct workers **workers_out, struct error *error)
{
    struct workers *workers;
    int result;

    if (count == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        count = online < 2 ? 2 : online > 64 ? 64 : (unsigned)online;
    }
    workers = calloc(1, sizeof(*workers) + count * sizeof(workers->threads[0]));
    if (!workers)
        return error_set(error, ERROR_SYSTEM, "no memory for %u worker threads", count);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->changed, NULL);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        workers->lists[i].tail = &workers->lists[i].head;
    while (workers->thread_count < count) {
        result = pthread_create(&workers->threads[workers->thread_count], NULL, worker_main, workers);
        if (result) {
            workers_destroy(workers);
            return error_set_errno(error, result, "cannot start a worker thread");
        }
        workers->thread_count++;
    }
    *workers_out = workers;
    return 0;
}

void workers_submit(struct workers *workers, struct job *job, enum priority priority)
{
    struct list *list = &workers->lists[priority];

    job->next = NULL;
    pthread_mutex_lock(&workers->lock);
    *list->tail = job;
    list->tail = &job->next;
    pthread_cond_signal(&workers->changed);
    pthread_mutex_unlock(&workers->lock);
}

void workers_destroy(struct workers *workers)
{
    if (!workers)
        return;
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_cond_broadcast(&workers->changed);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->thread_count; i++)
        pthread_join(workers->threads[i], NULL);
    pthread_cond_destroy(&workers->changed);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}
