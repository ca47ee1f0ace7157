/*
 * The store: verified blocks by digest. The one place where bytes become
 * trusted: whatever a block came from - memory, cache folder, mirror - leaves
 * here only after its digest was checked (block_verify in store.c).
 *
 * One fetch a block, however many ask for it. Threads: all functions from any
 * thread. Lock order: store, then whatever the leaves use; no callback is
 * called under a lock.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/hash.h"
#include "base/priority.h"
#include "base/workers.h"
#include "format/statistics.h"
#include "store/cache.h"
#include "store/mirrors.h"

struct store;

/* A verified block in memory, shared and immutable. */
struct block {
    struct digest digest;
    uint32_t length;
    const uint8_t *bytes;
};

struct store_settings {
    struct cache *cache;        /* borrowed; NULL: none */
    struct mirrors *mirrors;    /* borrowed; NULL: only what is cached */
    struct workers *workers;    /* borrowed */
    size_t memory_bytes;        /* for verified blocks [0: 16 MiB] */
};

int store_open(const struct store_settings *settings, struct store **store_out, struct error *error);
void store_close(struct store *store); /* waits for what is under way; takes NULL */

/*
 * Get the block with DIGEST, of LENGTH bytes. DONE is called exactly once, perhaps before this returns, on any
 * thread: with code 0 and a reference to the block that DONE owns, or with an error as in mirrors.h.
 * A block that is in memory is delivered at once. One in the cache folder is read and verified on the calling thread
 * for PRIORITY_READER, else on a worker.
 */
void store_get_async(struct store *store, const struct digest *digest, uint32_t length, enum priority priority,
                     void (*done)(void *user, int code, struct block *block, const struct error *error), void *user);

/* As store_get_async, and wait. */
int store_get(struct store *store, const struct digest *digest, uint32_t length, enum priority priority,
              struct block **block_out, struct error *error);

/* Ask for a block that will be wanted; nothing is delivered, failures are not reported. */
void store_prefetch(struct store *store, const struct digest *digest, uint32_t length, enum priority priority);

/*
 * Blocks that a stream will bring. Between store_expect and its end, a reader of the block waits for the stream
 * instead of asking a mirror. WANTED, which may be NULL, is told of the first one who does, and returns true if the
 * block is to be fetched apart because the stream would take too long; if it turns out to be slow only later,
 * store_unexpect has the block fetched for those who wait. WANTED is called on the reader's thread, under no lock,
 * never after store_offer, store_unexpect or store_call_off of the block has returned; these wait for it, and must not
 * be called under a lock that it takes.
 */
struct store_stream {
    bool (*wanted)(void *user, const struct digest *digest); /* NULL: never apart */
    void *user;
    /*
     * Of its blocks, until somebody more urgent waits for them; not READER. READAHEAD: they will be read at once; FILL:
     * not soon, so they need not stay in memory.
     */
    enum priority priority;
};

/*
 * True: the block is expected, and STREAM (borrowed until then) owes it one store_offer, store_unexpect or
 * store_call_off. False: it is here or under way already, or there is no memory; the stream's copy of it is not needed.
 */
bool store_expect(struct store *store, const struct digest *digest, uint32_t length,
                  const struct store_stream *stream);
struct store_frame {
    const void *bytes;
    size_t size;
    unsigned mirror;  /* that they came from (mirror_out of the stream), or MIRROR_SEVERAL, */
    const char *path; /* in this file */
};

/*
 * The frame of an expected block has come: verify it, keep it, give it to all who wait. After CORRUPT the block
 * is not expected any more, the mirror has been accused, and who waits for the block has it fetched. *BLAMED_OUT: it is
 * the mirror's fault; else, there being no better one, perhaps the file's.
 */
int store_offer(struct store *store, const struct digest *digest, uint32_t length, const struct store_frame *frame,
                bool *blamed_out, struct error *error);
/* The stream will not bring it, or not soon: it is fetched for those who wait. */
void store_unexpect(struct store *store, const struct digest *digest, uint32_t length);
/* The same of a stream of PRIORITY_FILL; but if those who wait are all of PRIORITY_FILL, they get CANCELLED instead. */
void store_call_off(struct store *store, const struct digest *digest, uint32_t length);

/* True if the block is in memory or has a file in the cache. */
bool store_has(struct store *store, const struct digest *digest);
/* True if somebody has asked for the block and it is not here yet, or a stream will bring it. */
bool store_is_coming(struct store *store, const struct digest *digest, uint32_t length);

void block_release(struct block *block); /* takes NULL */

/*
 * THE verification point. Decompress FRAME to LENGTH bytes at OUT and compare their digest.
 * ERROR_CORRUPT says what is wrong; OUT's contents are then undefined and must not be used.
 */
int block_verify(const void *frame, size_t frame_size, const struct digest *digest, uint32_t length, void *out,
                 struct error *error);

/* Borrowed parts, for map pages and metadata, which have a verification of their own. */
struct cache *store_cache(struct store *store);
struct mirrors *store_mirrors(struct store *store);
struct workers *store_workers(struct store *store);
/* Bytes that verified blocks in memory may take. */
size_t store_memory(const struct store *store);
/*
 * While a boot is being streamed: what nobody has read yet may take twice as much on top of that, for else it would be
 * read from the cache, and verified, again.
 */
void store_set_generous(struct store *store, bool generous);

struct store_statistics {
    /* Blocks that were asked for, by who did and where they were found. */
    uint64_t memory_hits[PRIORITY_COUNT];
    uint64_t cache_hits[PRIORITY_COUNT];
    uint64_t misses;          /* readers that waited for a mirror or a stream; the sum of WAITS */
    uint64_t failed;          /* of all classes */
    uint64_t reads, read_bytes; /* as told by store_note_read */
    uint64_t fetched_blocks;
    uint64_t fetched_bytes;   /* compressed */
    uint64_t cache_corrupt;   /* found bad in the cache folder and fetched again */
    uint64_t held_bytes;      /* verified blocks in memory */
    uint64_t wait_us;         /* sum of all waits of readers */
    uint64_t waits[STATISTICS_BUCKETS]; /* see format/statistics.h */
};
void store_count(struct store *store, struct store_statistics *statistics_out);
/* A reader was given BYTES: only for the statistics. */
void store_note_read(struct store *store, uint64_t bytes);

/* A block on its way for which readers wait. */
struct store_wait {
    const struct digest *digest;
    unsigned readers;
    uint64_t age_us; /* of the longest wait */
    bool streamed;   /* a stream is to bring it; nobody was asked for it alone */
};
/* VISIT each, in no order, under the store's lock: it copies what it needs and calls nothing of the store. */
void store_each_waiting(struct store *store, void (*visit)(void *user, const struct store_wait *wait), void *user);

#endif
