/*
 * The insides of a prefetch, for its own files: streaming a pack (prefetch.c), and streams that help each other
 * (prefetch_share.c).
 */
#ifndef IMAGE_PREFETCH_PARTS_H
#define IMAGE_PREFETCH_PARTS_H

#include <pthread.h>

#include "format/pack.h"
#include "image/prefetch.h"
#include "image/prefetch_plan.h"

struct segment {
    struct prefetch *prefetch;
    uint64_t start, end;   /* in the pack */
    uint64_t asked_end;    /* that of the request; behind END lies what another took over */
    uint64_t received;     /* offset up to which bytes have come */
    unsigned mirror;       /* that they come from; written by the mirrors */
    unsigned last_mirror;  /* that those before RECEIVED came from, */
    uint64_t mirror_from;  /* as far back as this */
    uint64_t started_us, first_byte_us;
    uint64_t rate_from, rate_from_us; /* what had come when the rate was last looked at */
    double rate;           /* bytes a microsecond, of late; 0: unknown */
    struct buffer pending; /* bytes before RECEIVED that are not cut yet */
    bool ended;
    uint32_t first, next, limit; /* entries of the table in this segment; those from NEXT on are not cut yet */
};

struct prefetch {
    struct store *store;
    struct store_stream stream;
    char path[ARCHIVE_PATH_MAX];
    struct digest name;
    uint64_t table_size, size;
    uint64_t apart_us;
    enum priority priority; /* of its requests */

    pthread_mutex_t lock; /* all below; before the store's, which is called under it only to expect */
    pthread_cond_t changed; /* the table has come; nothing is under way any more; or it is over otherwise */
    struct pack_table table;
    bool has_table, stopping;
    bool lacking; /* something that was lacking has not come */
    unsigned under_way; /* streams and jobs */
    unsigned bad_frames;
    unsigned share_count; /* streams that were divided */
    size_t jobs_bytes;
    bool *owed;          /* by entry: the store expects it */
    uint64_t *awaited_us; /* by entry: since when a reader waits for it; 0: nobody does */
    uint32_t *by_digest; /* entries sorted by digest */
    size_t segment_count;
    struct segment segments[PREFETCH_RANGES_MAX];
};

/* The first entry at or behind OFFSET. */
uint32_t prefetch_entry_at(const struct pack_table *table, uint64_t offset);

/*
 * Streams get unequal shares of a link, and at the end a few slow ones cannot fill it. ENDED, which has brought all it
 * was to bring, can at its rate take over so much of the last one's that both end together: a segment for that, to be
 * started, or NULL: better not. Under the lock.
 */
struct segment *prefetch_share(const struct segment *ended);

#endif
