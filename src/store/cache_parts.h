/* The cache's insides, shared by the files src/store/cache*.c only. */
#ifndef STORE_CACHE_PARTS_H
#define STORE_CACHE_PARTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "store/cache.h"

/* blocks/ab/<64 digits> and NUL. */
#define BLOCK_PATH_SIZE 76
/* Left alone by a prune: somebody may still be writing it. */
#define TEMPORARY_AGE_SECONDS 3600

/*
 * How much the cache holds: the number in the file "usage", which all processes share, and what this process has
 * not yet added to it. No memory mapping: on a full copy-on-write file system a store to one ends the process.
 */
struct usage {
    pthread_mutex_t lock; /* a leaf */
    int fd;               /* -1: no file could be made, the count is this process's own */
    int64_t shared;       /* the number in the file when last looked at */
    int64_t pending;
    int64_t batch;        /* pending is merged from here on */
    int64_t scanned;      /* wall clock of the last scan of all blocks, by any process; 0: never */
};

/* How a finished file gets its name; the cheapest way that works here is found by trying. */
enum link_way { LINK_BY_DESCRIPTOR, LINK_BY_PROC, LINK_BY_RENAME };

/* Verified frames that wait to be written. */
#define BEHIND_BUCKETS 256 /* a power of two */
struct behind {
    struct cache *cache;
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed; /* for the thread */
    pthread_cond_t written; /* no frame is being written any more */
    pthread_t thread;
    bool has_thread, closing;
    struct chunk *chunk; /* that is being filled */
    struct pending *buckets[BEHIND_BUCKETS];
    STAILQ_HEAD(, pending) waiting; /* nobody writes them yet */
    uint64_t first_ms, last_ms; /* when the oldest, and when the newest came */
    unsigned writing;
    atomic_size_t bytes; /* of all; changed under the lock */
};

struct cache {
    char *path;
    int root_fd;
    uint64_t max_bytes;
    struct usage usage;
    struct behind behind;
    pthread_mutex_t prune_lock;     /* one prune a process; between processes a lock in the usage file */
    _Atomic uint64_t uncached_until; /* clock_ms; nothing is written before, because it failed a while ago */
    _Atomic uint64_t next_prune;    /* clock_ms; not tried before, because the last one freed nothing */
    _Atomic int64_t room;           /* bytes that may be written until free space is looked at again */
    _Atomic int link_way;
    atomic_bool foreign;            /* some of its files belong to another user */
    atomic_flag warned;
};

/* What a file of SIZE bytes takes on the disk, near enough on any file system. */
static inline uint64_t cache_charge(uint64_t size)
{
    return divide_up(size, 4096) * 4096;
}

static inline char *cache_block_path(const struct digest *digest, char path[BLOCK_PATH_SIZE])
{
    memcpy(path, "blocks/", 7);
    hex_encode(digest->bytes, 1, path + 7);
    path[9] = '/';
    hex_encode(digest->bytes, DIGEST_SIZE, path + 10);
    return path;
}

/* Something could not be written: warn once, and let the cache rest for a while if that will happen again. */
void cache_failed(struct cache *cache, const char *what, int errno_value);
/* As cache_failed, with the reason in words; rests always. */
void cache_rest(struct cache *cache, const char *reason);

void behind_open(struct behind *behind, struct cache *cache);
void behind_close(struct behind *behind);
bool behind_has(struct behind *behind, const struct digest *digest);
/* Into FRAME (replaced); false: it is not there, or there is no memory. */
bool behind_read(struct behind *behind, const struct digest *digest, struct buffer *frame);

void usage_open(struct usage *usage, int root_fd, uint64_t max_bytes);
void usage_close(struct usage *usage);
/* Add DELTA bytes. Returns the estimate of the whole. */
int64_t usage_add(struct usage *usage, int64_t delta);
/* Count CHARGE bytes before they are written, so that many writers at the limit do not pass it together. */
bool usage_reserve(struct usage *usage, int64_t charge, uint64_t max_bytes);
/* The estimate with what other processes did up to now. */
int64_t usage_refresh(struct usage *usage);
/* A scan that began when the refreshed estimate was BEFORE found TOTAL. */
void usage_correct(struct usage *usage, int64_t before, uint64_t total);
/* True if the estimate may be far off: no scan for a day, or nonsense in the file. */
bool usage_is_stale(struct usage *usage);
/* One prune among all processes. Without WAIT false if another one is at it. */
bool usage_lock_prune(struct usage *usage, bool wait);
void usage_unlock_prune(struct usage *usage);

/* Scan, and prune if EXTRA more bytes would pass max_bytes - unless someone is at it already. */
void cache_make_room(struct cache *cache, int64_t extra);

#endif
