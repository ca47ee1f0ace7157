/* Errands: a detached thread a call, and a count to wait for. */
#include "serve/errand.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"

#define STACK_SIZE (256 * 1024)

struct errands {
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed;
    unsigned under_way;
};

struct errand {
    struct errands *errands;
    void (*call)(void *argument);
    void *argument;
};

struct errands *errands_create(void)
{
    struct errands *errands = calloc(1, sizeof(*errands));

    if (!errands)
        return NULL;
    pthread_mutex_init(&errands->lock, NULL);
    condition_init(&errands->changed);
    return errands;
}

static void finish(struct errands *errands)
{
    pthread_mutex_lock(&errands->lock);
    errands->under_way--;
    pthread_cond_broadcast(&errands->changed);
    pthread_mutex_unlock(&errands->lock);
}

static void *errand_main(void *argument)
{
    struct errand errand = *(struct errand *)argument;

    free(argument);
    errand.call(errand.argument);
    finish(errand.errands);
    return NULL;
}

static bool start_thread(struct errand *errand)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int result;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    result = pthread_create(&thread, &attributes, errand_main, errand);
    pthread_attr_destroy(&attributes);
    return result == 0;
}

bool errands_run(struct errands *errands, void (*call)(void *argument), void *argument)
{
    struct errand *errand = malloc(sizeof(*errand));

    if (!errand)
        return false;
    *errand = (struct errand){errands, call, argument};
    pthread_mutex_lock(&errands->lock);
    errands->under_way++;
    pthread_mutex_unlock(&errands->lock);
    if (start_thread(errand))
        return true;
    free(errand);
    finish(errands);
    return false;
}

bool errands_wait(struct errands *errands, uint64_t timeout_ms)
{
    uint64_t until_ms = clock_ms() + timeout_ms;
    bool idle;

    pthread_mutex_lock(&errands->lock);
    while (errands->under_way && condition_wait_ms(&errands->changed, &errands->lock, until_ms))
        ;
    idle = errands->under_way == 0;
    pthread_mutex_unlock(&errands->lock);
    return idle;
}

void errands_destroy(struct errands *errands)
{
    if (!errands)
        return;
    pthread_cond_destroy(&errands->changed);
    pthread_mutex_destroy(&errands->lock);
    free(errands);
}
