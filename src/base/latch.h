/*
 * A latch: one thread waits until another says, once, how something ended. It
 * turns a function with a DONE callback into one that waits.
 */
#ifndef BASE_LATCH_H
#define BASE_LATCH_H

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"

struct latch {
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed;
    bool set;
    int code;
    struct error error;
};

void latch_init(struct latch *latch);
void latch_finish(struct latch *latch);

/* LATCH is a struct latch, so that this fits as the DONE of asynchronous functions. ERROR may be NULL. */
void latch_set(void *latch, int code, const struct error *error);

/* Wait for latch_set. Returns its code, and copies its error if that is not 0. */
int latch_wait(struct latch *latch, struct error *error);

#endif
