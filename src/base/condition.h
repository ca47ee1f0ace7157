/* Conditions that can be waited for until a time on the clock of base/clock.h. */
#ifndef BASE_CONDITION_H
#define BASE_CONDITION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

void condition_init(pthread_cond_t *condition);

/*
 * Wait at CONDITION, which condition_init has made, until it is signalled or clock_us() (clock_ms()) is UNTIL;
 * UINT64_MAX: without end. LOCK is held. False: the time has come.
 */
bool condition_wait_us(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_us);
bool condition_wait_ms(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_ms);

#endif
