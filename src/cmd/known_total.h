/* Progress of a job that does not know how much there is to do, when the command does: from the catalog. */
#ifndef CMD_KNOWN_TOTAL_H
#define CMD_KNOWN_TOTAL_H

#include "base/progress.h"

struct known_total {
    struct progress progress; /* to give to the job */
    const struct progress *next;
    uint64_t total_bytes;
};

static inline bool known_total_update(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct known_total *known = user;

    total_bytes = total_bytes ? total_bytes : known->total_bytes;
    return progress_update(known->next, done_bytes < total_bytes ? done_bytes : total_bytes, total_bytes);
}

/* NEXT may be NULL. */
static inline void known_total_init(struct known_total *known, const struct progress *next, uint64_t total_bytes)
{
    *known = (struct known_total){{known_total_update, known}, next, total_bytes};
}

#endif
