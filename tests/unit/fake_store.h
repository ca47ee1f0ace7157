/*
 * A store for tests of src/image that need to see and steer what it asks for:
 * mirrors are byte strings in memory, requests are counted, answers may come
 * at once or on other threads, mixed up.
 */
#ifndef TESTS_FAKE_STORE_H
#define TESTS_FAKE_STORE_H

#include <pthread.h>

#include "store/store.h"

#define FAKE_MIRRORS_MAX 4

struct mirrors {
    struct workers *workers; /* answers come from there; NULL: before mirrors_fetch returns */
    size_t count;
    struct fake_mirror {
        const uint8_t *bytes; /* its file, whatever the path; NULL: 404 */
        size_t size;
        bool unreachable;
        unsigned asked, refused;
    } list[FAKE_MIRRORS_MAX];

    pthread_mutex_t lock;
    unsigned request_count;
    uint64_t byte_count;
    char last_path[320];
};

struct cache {
    int fd; /* a sparse file in memory: the one map */
    unsigned read_count;
};

struct fake_block;
struct store {
    struct cache *cache;
    struct mirrors *mirrors;
    size_t memory;
    struct workers *workers; /* blocks come from there; NULL: at once */
    struct fake_block *blocks;
    pthread_mutex_t lock;
    unsigned get_count, prefetch_count;
    uint64_t prefetched_end; /* highest NUMBER of a block that was prefetched, and one */
    struct digest failing;   /* this block fails with UNAVAILABLE; zero: none */
};

void fake_store_init(struct store *store);
void fake_store_finish(struct store *store);
void fake_cache_init(struct cache *cache);
void fake_cache_finish(struct cache *cache);
void fake_mirror_add(struct store *store, struct mirrors *mirrors, const void *bytes, size_t size);

/* Let the store deliver BYTES (borrowed) under their digest, which is returned. NUMBER: for prefetched_end. */
struct digest fake_store_add(struct store *store, const void *bytes, uint32_t length, uint64_t number);

#endif
