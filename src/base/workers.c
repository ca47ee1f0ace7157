/* A pool of threads: one list a priority, one lock, a condition for each kind of thread. */
#include "base/workers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define BACKGROUND_NICE 19

struct list {
    struct job *head;
    struct job **tail;
};

struct workers {
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed;
    pthread_cond_t background_changed;
    struct list lists[PRIORITY_COUNT];
    bool stopping;
    unsigned thread_count;
    unsigned background_count; /* threads for PRIORITY_FILL alone; 0: the others run those jobs, too */
    pthread_t *background;     /* behind THREADS */
    pthread_t threads[];
};

static struct job *take_first(struct list *list)
{
    struct job *job = list->head;

    if (!job)
        return NULL;
    list->head = job->next;
    if (!list->head)
        list->tail = &list->head;
    return job;
}

static struct job *take(struct workers *workers, bool background)
{
    int end = background || !workers->background_count ? PRIORITY_COUNT : PRIORITY_FILL;
    struct job *job = NULL;

    for (int i = background ? PRIORITY_FILL : 0; i < end && !job; i++)
        job = take_first(&workers->lists[i]);
    return job;
}

static void work(struct workers *workers, bool background)
{
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        struct job *job = take(workers, background);

        if (job) {
            pthread_mutex_unlock(&workers->lock);
            job->run(job);
            pthread_mutex_lock(&workers->lock);
        } else if (workers->stopping) {
            break;
        } else {
            pthread_cond_wait(background ? &workers->background_changed : &workers->changed, &workers->lock);
        }
    }
    pthread_mutex_unlock(&workers->lock);
}

static void *worker_main(void *argument)
{
    work(argument, false);
    return NULL;
}

void workers_give_way(void)
{
    /* On Linux of this thread alone. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), BACKGROUND_NICE);
}

static void *background_main(void *argument)
{
    workers_give_way();
    work(argument, true);
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
    workers = calloc(1, sizeof(*workers) + 2 * count * sizeof(workers->threads[0]));
    if (!workers)
        return error_set(error, ERROR_SYSTEM, "no memory for %u worker threads", count);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->changed, NULL);
    pthread_cond_init(&workers->background_changed, NULL);
    workers->background = workers->threads + count;
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

void workers_set_background(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    if (!workers->background_count && !workers->stopping)
        while (workers->background_count < workers->thread_count &&
               !pthread_create(&workers->background[workers->background_count], NULL, background_main, workers))
            workers->background_count++;
    pthread_mutex_unlock(&workers->lock);
}

/* Under the lock. */
static void append(struct workers *workers, struct job *job, enum priority priority)
{
    struct list *list = &workers->lists[priority];

    job->next = NULL;
    *list->tail = job;
    list->tail = &job->next;
    pthread_cond_signal(priority == PRIORITY_FILL && workers->background_count ? &workers->background_changed
                                                                               : &workers->changed);
}

void workers_submit(struct workers *workers, struct job *job, enum priority priority)
{
    pthread_mutex_lock(&workers->lock);
    append(workers, job, priority);
    pthread_mutex_unlock(&workers->lock);
}

void workers_hurry(struct workers *workers, struct job *job)
{
    struct list *list = &workers->lists[PRIORITY_FILL];
    struct job **at;

    pthread_mutex_lock(&workers->lock);
    for (at = &list->head; *at && *at != job; at = &(*at)->next)
        ;
    if (*at) {
        *at = job->next;
        if (!*at)
            list->tail = at;
        append(workers, job, PRIORITY_READER);
    }
    pthread_mutex_unlock(&workers->lock);
}

void workers_destroy(struct workers *workers)
{
    if (!workers)
        return;
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_cond_broadcast(&workers->changed);
    pthread_cond_broadcast(&workers->background_changed);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->thread_count; i++)
        pthread_join(workers->threads[i], NULL);
    for (unsigned i = 0; i < workers->background_count; i++)
        pthread_join(workers->background[i], NULL);
    pthread_cond_destroy(&workers->changed);
    pthread_cond_destroy(&workers->background_changed);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}
