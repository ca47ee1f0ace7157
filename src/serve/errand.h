/*
 * Errands: calls that may wait for the network (opening a disk, seeking in its
 * map), each on a thread of its own, so that no thread that serves the kernel
 * ever waits.
 */
#ifndef SERVE_ERRAND_H
#define SERVE_ERRAND_H

#include <stdbool.h>
#include <stdint.h>

struct errands;

struct errands *errands_create(void); /* NULL: no memory */

/* Run CALL(ARGUMENT) on another thread. False if no thread could be started; then it was not called. */
bool errands_run(struct errands *errands, void (*call)(void *argument), void *argument);

/* Wait at most TIMEOUT_MS until all have returned. False if some are still under way. */
bool errands_wait(struct errands *errands, uint64_t timeout_ms);

/* Nothing may be under way. Takes NULL. */
void errands_destroy(struct errands *errands);

#endif
