/*
 * Progress: a long job says how far it is and hears whether to go on. src/cmd
 * draws the bar.
 */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    /*
     * Called at most a few times a second by any thread, one call at a time.
     * DONE and TOTAL are bytes (TOTAL 0: not known yet). Returns false to ask
     * the job to stop; the job then ends with ERROR_CANCELLED.
     */
    bool (*update)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *user;
};

/* Report to PROGRESS, which may be NULL. True: go on. */
static inline bool progress_update(const struct progress *progress, uint64_t done_bytes,
                                   uint64_t total_bytes)
{
    return !progress || !progress->update || progress->update(progress->user, done_bytes, total_bytes);
}

#endif
