/*
 * A pool of threads that run short jobs: verifying, decompressing, writing to
 * the cache. Jobs of a lower priority number run first.
 */
#ifndef BASE_WORKERS_H
#define BASE_WORKERS_H

#include "base/error.h"
#include "base/priority.h"

struct workers;

/* COUNT threads (0: one a processor, at least two). */
int workers_create(unsigned count, struct workers **workers_out, struct error *error);

/* A job; it must not block on the network. The caller owns the memory, which lives until RUN is called. */
struct job {
    void (*run)(struct job *job);
    struct job *next; /* the pool's */
};

/* Never fails and never blocks. */
void workers_submit(struct workers *workers, struct job *job, enum priority priority);

/* Runs what was submitted, then ends the threads. Takes NULL. */
void workers_destroy(struct workers *workers);

#endif
