/*
 * A claim: a request that several threads may want to answer - the one that has
 * the result, one that hears of an interrupt - is answered by the first.
 */
#ifndef SERVE_CLAIM_H
#define SERVE_CLAIM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct claim {
    atomic_bool taken;
    /* While interrupts are being registered on thread STARTER, which still needs the request. */
    bool starting;
    bool interrupted; /* meanwhile; of that thread only */
    pthread_t starter;
};

/* True for the one caller that is to answer. */
static inline bool claim_take(struct claim *claim)
{
    return !atomic_exchange(&claim->taken, true);
}

/* Around the call that registers for interrupts. */
static inline void claim_start(struct claim *claim)
{
    atomic_store(&claim->taken, false);
    claim->interrupted = false;
    claim->starter = pthread_self();
    claim->starting = true;
}

/* True if there has been an interrupt, and the caller is to answer it. */
static inline bool claim_started(struct claim *claim)
{
    claim->starting = false;
    return claim->interrupted && claim_take(claim);
}

/* From the interrupt's callback. True if it is to answer now. */
static inline bool claim_interrupt(struct claim *claim)
{
    if (pthread_equal(claim->starter, pthread_self()) && claim->starting) {
        claim->interrupted = true;
        return false;
    }
    return claim_take(claim);
}

#endif
