/* Conditions with a deadline: see condition.h. */
#include "base/condition.h"

#include <time.h>

void condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

bool condition_wait_us(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_us)
{
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000), .tv_nsec = (long)(until_us % 1000000) * 1000};

    if (until_us == UINT64_MAX)
        return !pthread_cond_wait(condition, lock);
    return !pthread_cond_timedwait(condition, lock, &until);
}

bool condition_wait_ms(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_ms)
{
    return condition_wait_us(condition, lock, until_ms > UINT64_MAX / 1000 ? UINT64_MAX : until_ms * 1000);
}
