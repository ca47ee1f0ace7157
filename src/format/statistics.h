/*
 * Statistics of a running mount, as its process tells them and `circular stats`
 * reads them: JSON, at most STATISTICS_SIZE_MAX bytes, since an extended
 * attribute carries it. circular-stats(1).
 *
 *   { "format": "circular-statistics-1",
 *     "source": "http://host/os/debian@1", "process": 812, "uptime_ms": 61000,
 *     "reads": 10, "read_bytes": 655360, "memory_hits": 1, "cache_hits": 2, "misses": 7, "failed": 0,
 *     "cache_corrupt": 0, "fetched_blocks": 9, "fetched_bytes": 301000, "resident_bytes": 9000000,
 *     "held_bytes": 1310720,
 *     "wait_us": 81000, "waits": [ STATISTICS_BUCKETS numbers ],
 *     "classes": [ { "class": "reader", "requests": 7, "bytes": 250000 }, ... readahead, profile, fill ],
 *     "mirrors": [ { "mirror": "http://host/os", "state": "in use", "reason": "", "requests": 9,
 *                    "bytes": 301000, "errors": 0, "missing": 0, "bad_blocks": 0, "hedges": 0, "hedges_won": 0,
 *                    "first_byte_us": 900, "slow_us": 4000, "rate": 8000000 } ],
 *     "waiting": [ { "what": "blocks/ab/ab12...", "readers": 1, "age_ms": 12000,
 *                    "mirror": "http://host/os", "reason": "connection refused" } ] }
 *
 * All members but "format" are optional: what is not there is 0 or "".
 */
#ifndef FORMAT_STATISTICS_H
#define FORMAT_STATISTICS_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/priority.h"

#define STATISTICS_SIZE_MAX 65536
#define STATISTICS_MIRRORS  32
#define STATISTICS_WAITING  32

/*
 * Waits: bucket i counts those of at most 2^(STATISTICS_BUCKET_SHIFT + i) microseconds, the last one all longer ones.
 */
#define STATISTICS_BUCKETS      21
#define STATISTICS_BUCKET_SHIFT 6

static inline unsigned statistics_bucket(uint64_t us)
{
    unsigned bucket = 0;

    while (bucket + 1 < STATISTICS_BUCKETS && us > UINT64_C(1) << (STATISTICS_BUCKET_SHIFT + bucket))
        bucket++;
    return bucket;
}

struct statistics_class {
    uint64_t requests, bytes;
};

#define STATISTICS_IN_USE "in use"

struct statistics_mirror {
    char mirror[512];
    char state[16];   /* STATISTICS_IN_USE, "resting", "unreachable", "dropped" */
    char reason[160]; /* of the state, or of the last failure */
    uint64_t requests, bytes;
    uint64_t errors;     /* requests that failed */
    uint64_t missing;    /* the mirror has no such file */
    uint64_t bad_blocks; /* answers that were refused */
    uint64_t hedges;     /* requests sent to it because another mirror was slow */
    uint64_t hedges_won; /* of these, those that were answered first */
    /* As measured lately, 0: not yet. */
    uint64_t first_byte_us;
    uint64_t slow_us; /* 95 % of the readers' requests took no longer */
    uint64_t rate;    /* bytes a second */
};

/* Something that readers wait for. */
struct statistics_wait {
    char what[96]; /* path inside the archive */
    uint64_t readers;
    uint64_t age_ms;  /* of the one that waits longest */
    char mirror[256]; /* that is or was asked; "": none yet */
    char reason[160]; /* why its last answer was no good; "": it has not answered yet */
};

struct statistics {
    char source[1024];
    uint64_t process, uptime_ms;
    uint64_t reads, read_bytes; /* of the disks' readers */
    /* Blocks that readers asked for: found in memory, in the cache folder, or waited for. */
    uint64_t memory_hits, cache_hits, misses;
    uint64_t failed, cache_corrupt;
    uint64_t fetched_blocks, fetched_bytes; /* also those that nobody had asked for yet */
    uint64_t resident_bytes;                /* memory of the process */
    uint64_t held_bytes;                    /* of it, verified blocks */
    uint64_t wait_us;                       /* sum of all waits */
    uint64_t waits[STATISTICS_BUCKETS];
    struct statistics_class classes[PRIORITY_COUNT];
    struct statistics_mirror mirrors[STATISTICS_MIRRORS];
    size_t mirror_count;
    struct statistics_wait waiting[STATISTICS_WAITING]; /* longest first */
    size_t waiting_count;
};

/* "reader", "readahead", "profile", "fill". */
const char *statistics_class_name(enum priority priority);

/* Heap; NULL: no memory. Control characters and what is not UTF-8 become '?'. */
char *statistics_format(const struct statistics *statistics);
/* ERROR_CORRUPT, ERROR_SYSTEM. A struct of this size belongs on the heap. */
int statistics_parse(const void *bytes, size_t size, struct statistics *statistics_out, struct error *error);

#endif
