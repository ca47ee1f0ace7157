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

/*
 * From now on jobs of PRIORITY_FILL have threads of their own, of the lowest scheduling priority: what fills a cache
 * takes of the processors what readers leave. For good, since an ordinary user cannot raise a priority again.
 */
void workers_set_background(struct workers *workers);

/* Somebody waits for JOB, which was submitted with PRIORITY_FILL: run it as a reader's. Nothing if it has begun. */
void workers_hurry(struct workers *workers, struct job *job);

/* The calling thread gets the lowest scheduling priority, for good: who does what nobody waits for. */
void workers_give_way(void);

/* Runs what was submitted, then ends the threads. Takes NULL. */
void workers_destroy(struct workers *workers);

#endif
