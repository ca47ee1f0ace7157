/*
 * For the tests of the store: a store over a scratch cache, mirrors that the test plays, and blocks to get from them.
 * To be included by one file of a program, since it stands in for mirrors.c.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <sched.h>

#include "format/frame.h"
#include "store/store.h"
#include "store_scratch.h"

#define LENGTH 65536
#define FRAME_MAX 70000

/* Block SEED of the one archive there is: half of it compresses. */
static inline void make_block(uint64_t seed, uint8_t bytes[LENGTH], struct digest *digest)
{
    memset(bytes, (int)seed, LENGTH);
    fill_random(bytes, LENGTH / 4, seed);
    digest_of(bytes, LENGTH, digest);
}

static inline size_t make_frame(uint64_t seed, uint8_t frame[FRAME_MAX], struct digest *digest)
{
    uint8_t bytes[LENGTH];

    make_block(seed, bytes, digest);
    return frame_compress(bytes, LENGTH, 1, frame, FRAME_MAX);
}

/* The mirrors: requests are answered at once, or held until the test lets them go. */

#define HELD_MAX 256
#define BLOCKS 128

struct mirrors {
    pthread_mutex_t lock;
    atomic_bool holds;
    atomic_bool lies;         /* every answer is another block's */
    atomic_bool lies_first;   /* ... but only that of the first mirror */
    atomic_bool is_down;
    atomic_uint fetches;
    atomic_uint hurries;
    atomic_uint accusations;
    atomic_uint fetches_before; /* the last accusation */
    atomic_uint refused;
    enum priority last_priority;
    struct mirrors_request held[HELD_MAX];
    struct digest held_digests[HELD_MAX];
    size_t held_count;
    struct digest digests[BLOCKS];
};

static inline void mirrors_make(struct mirrors *mirrors)
{
    *mirrors = (struct mirrors){.lock = PTHREAD_MUTEX_INITIALIZER};
    for (uint64_t i = 0; i < BLOCKS; i++)
        make_block(i, (uint8_t[LENGTH]){0}, &mirrors->digests[i]);
}

static inline void answer(struct mirrors *mirrors, const struct mirrors_request *request, const struct digest *digest)
{
    uint8_t frame[FRAME_MAX];
    struct digest found;
    struct error error = ERROR_INIT;
    uint64_t seed = 0;
    size_t size;
    int result;

    if (mirrors->is_down) {
        error_set(&error, ERROR_UNAVAILABLE, "down");
        request->done(request->user, error.code, &error);
        return;
    }
    while (!digest_equal(&mirrors->digests[seed], digest))
        assert_true(++seed < BLOCKS);
    for (int attempt = 0;; attempt++) {
        bool lie = mirrors->lies || (mirrors->lies_first && attempt == 0);

        size = make_frame(seed + lie, frame, &found);
        assert_true(size <= request->size_limit);
        result = request->accept(request->user, frame, size, &error);
        if (!result || mirrors->lies)
            break;
        mirrors->refused++;
    }
    request->done(request->user, result, result ? &error : NULL);
}

void mirrors_fetch(struct mirrors *mirrors, const struct mirrors_request *request)
{
    struct digest digest;
    bool held;

    assert_memory_equal(request->path, "blocks/", 7);
    assert_true(digest_parse(request->path + 10, &digest));
    pthread_mutex_lock(&mirrors->lock);
    mirrors->fetches++;
    mirrors->last_priority = request->priority;
    held = mirrors->holds;
    if (held) {
        assert_true(mirrors->held_count < HELD_MAX);
        mirrors->held_digests[mirrors->held_count] = digest;
        mirrors->held[mirrors->held_count++] = *request;
    }
    pthread_mutex_unlock(&mirrors->lock);
    if (!held)
        answer(mirrors, request, &digest);
}

void mirrors_hurry(struct mirrors *mirrors, const void *user)
{
    pthread_mutex_lock(&mirrors->lock);
    for (size_t i = 0; i < mirrors->held_count; i++)
        mirrors->hurries += mirrors->held[i].user == user;
    pthread_mutex_unlock(&mirrors->lock);
}

bool mirrors_accuse(struct mirrors *mirrors, unsigned mirror, const char *path, const char *reason)
{
    (void)mirror;
    (void)path;
    (void)reason;
    atomic_store(&mirrors->fetches_before, atomic_load(&mirrors->fetches));
    atomic_fetch_add(&mirrors->accusations, 1);
    return true;
}

static inline size_t held_count(struct mirrors *mirrors)
{
    size_t count;

    pthread_mutex_lock(&mirrors->lock);
    count = mirrors->held_count;
    pthread_mutex_unlock(&mirrors->lock);
    return count;
}

/* Answer the request that was held last. False: there is none. */
static inline bool let_go(struct mirrors *mirrors)
{
    struct mirrors_request request;
    struct digest digest;

    pthread_mutex_lock(&mirrors->lock);
    if (mirrors->held_count == 0) {
        pthread_mutex_unlock(&mirrors->lock);
        return false;
    }
    request = mirrors->held[--mirrors->held_count];
    digest = mirrors->held_digests[mirrors->held_count];
    pthread_mutex_unlock(&mirrors->lock);
    answer(mirrors, &request, &digest);
    return true;
}

/* A store over a scratch cache and the mirrors above. */

struct fixture {
    struct scratch scratch;
    struct mirrors mirrors;
    struct workers *workers;
    struct store *store;
};

static inline void open_store(struct fixture *fixture, bool cached, bool online, size_t memory_bytes)
{
    struct store_settings settings = {
        .cache = cached ? fixture->scratch.cache : NULL,
        .mirrors = online ? &fixture->mirrors : NULL,
        .workers = fixture->workers,
        .memory_bytes = memory_bytes,
    };

    store_close(fixture->store);
    assert_int_equal(store_open(&settings, &fixture->store, NULL), 0);
}

static inline void set_up(struct fixture *fixture)
{
    *fixture = (struct fixture){.store = NULL};
    scratch_open(&fixture->scratch, 0);
    mirrors_make(&fixture->mirrors);
    assert_int_equal(workers_create(2, &fixture->workers, NULL), 0);
    open_store(fixture, true, true, 0);
}

static inline void tear_down(struct fixture *fixture)
{
    store_close(fixture->store);
    workers_destroy(fixture->workers);
    scratch_close(&fixture->scratch);
}

/* Get block SEED and compare it. */
static inline int get(struct fixture *fixture, uint64_t seed, enum priority priority, struct error *error)
{
    uint8_t expected[LENGTH];
    struct digest digest;
    struct block *block = NULL;
    int result;

    make_block(seed, expected, &digest);
    result = store_get(fixture->store, &digest, LENGTH, priority, &block, error);
    if (!result && (block->length != LENGTH || memcmp(block->bytes, expected, LENGTH)))
        result = 1;
    block_release(block);
    return result;
}

static inline struct store_statistics count(struct fixture *fixture)
{
    struct store_statistics statistics;

    store_count(fixture->store, &statistics);
    return statistics;
}

struct delivery {
    atomic_int calls;
    atomic_int code;
};

static inline void delivered(void *user, int code, struct block *block, const struct error *error)
{
    struct delivery *delivery = user;

    assert_true(code == 0 ? block != NULL : error != NULL);
    delivery->code = code;
    delivery->calls++;
    block_release(block);
}

#endif
