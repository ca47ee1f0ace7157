/*
 * The store: from a digest to a verified block, out of memory, the cache folder or a mirror. A block on its way is a
 * flight; whoever asks for it meanwhile joins.
 */
#include "store/store.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/latch.h"
#include "format/frame.h"
#include "format/map.h"
#include "store/store_parts.h"

#define MEMORY_DEFAULT (16 * MIB)

int block_verify(const void *frame, size_t frame_size, const struct digest *digest, uint32_t length, void *out,
                 struct error *error)
{
    struct digest found;
    int result = frame_decompress(frame, frame_size, out, length, error);

    if (result)
        return result;
    digest_of(out, length, &found);
    if (!digest_equal(&found, digest))
        return error_set(error, ERROR_CORRUPT, "digest differs");
    return 0;
}

int store_open(const struct store_settings *settings, struct store **store_out, struct error *error)
{
    struct store *store = calloc(1, sizeof(*store));

    if (store)
        store->memory = memory_create(settings->memory_bytes ? settings->memory_bytes : MEMORY_DEFAULT);
    if (!store || !store->memory) {
        free(store);
        return error_set(error, ERROR_SYSTEM, "no memory to open a store");
    }
    store->cache = settings->cache;
    store->mirrors = settings->mirrors;
    store->workers = settings->workers;
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->idle, NULL);
    *store_out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->lock);
    while (store->flight_count)
        pthread_cond_wait(&store->idle, &store->lock);
    pthread_mutex_unlock(&store->lock);
    if (store->cache)
        cache_settle(store->cache);
    while (store->frame_count)
        buffer_finish(&store->frames[--store->frame_count]);
    memory_destroy(store->memory);
    pthread_cond_destroy(&store->idle);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

struct cache *store_cache(struct store *store)
{
    return store->cache;
}

struct mirrors *store_mirrors(struct store *store)
{
    return store->mirrors;
}

struct workers *store_workers(struct store *store)
{
    return store->workers;
}

size_t store_memory(const struct store *store)
{
    return memory_limit(store->memory);
}

void store_set_generous(struct store *store, bool generous)
{
    memory_set_generous(store->memory, generous);
}

static uint64_t count_of(atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void store_count(struct store *store, struct store_statistics *statistics_out)
{
    *statistics_out = (struct store_statistics){
        .failed = count_of(&store->failed),
        .reads = count_of(&store->reads),
        .read_bytes = count_of(&store->read_bytes),
        .fetched_blocks = count_of(&store->fetched_blocks),
        .fetched_bytes = count_of(&store->fetched_bytes),
        .cache_corrupt = count_of(&store->cache_corrupt),
        .held_bytes = memory_held(store->memory),
        .wait_us = count_of(&store->wait_us),
    };
    for (size_t i = 0; i < PRIORITY_COUNT; i++) {
        statistics_out->memory_hits[i] = count_of(&store->memory_hits[i]);
        statistics_out->cache_hits[i] = count_of(&store->cache_hits[i]);
    }
    for (size_t i = 0; i < STATISTICS_BUCKETS; i++) {
        statistics_out->waits[i] = count_of(&store->waits[i]);
        statistics_out->misses += statistics_out->waits[i];
    }
}

void store_note_read(struct store *store, uint64_t bytes)
{
    atomic_fetch_add_explicit(&store->reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->read_bytes, bytes, memory_order_relaxed);
}

void store_each_waiting(struct store *store, void (*visit)(void *user, const struct store_wait *wait), void *user)
{
    pthread_mutex_lock(&store->lock);
    flight_each_waiting(store, visit, user);
    pthread_mutex_unlock(&store->lock);
}

static void refuse(struct store *store, const struct waiter *waiter, const struct error *error)
{
    atomic_fetch_add(&store->failed, 1);
    waiter->done(waiter->user, error->code, NULL, error);
}

/* BLOCK, a reference, was in memory. */
static void hit(struct store *store, struct block *block, uint32_t length, const struct waiter *waiter)
{
    struct error error;
    char text[DIGEST_TEXT];

    if (block->length == length) {
        atomic_fetch_add_explicit(&store->memory_hits[waiter->priority], 1, memory_order_relaxed);
        waiter->done(waiter->user, 0, block, NULL);
        return;
    }
    error_set(&error, ERROR_CORRUPT, "block %s has %u bytes, not %u", digest_format(&block->digest, text),
              block->length, length);
    block_release(block);
    refuse(store, waiter, &error);
}

/* Join the flight of the block, or begin one. */
static void begin(struct store *store, const struct digest *digest, uint32_t length, enum priority priority,
                  struct waiter *waiter)
{
    struct error error;
    struct block *block = NULL;
    struct flight *flight;
    enum flight_step step = STEP_NOTHING;
    bool waits = false;

    waiter->since_us = priority == PRIORITY_READER ? clock_us() : 0;
    pthread_mutex_lock(&store->lock);
    flight = flight_find(store, digest, length);
    if (flight) {
        waits = flight_join(flight, waiter);
        step = waits ? flight_hurry(flight, priority) : STEP_NOTHING;
    } else {
        /* It may have landed since the caller looked. */
        block = memory_find(store->memory, digest);
        flight = block ? NULL : flight_create(store, digest, length, priority, waiter);
        waits = flight != NULL;
        step = priority == PRIORITY_READER ? STEP_RESOLVE : STEP_ERRAND;
        if (flight && step == STEP_RESOLVE)
            flight->state = FLIGHT_READING;
    }
    pthread_mutex_unlock(&store->lock);
    if (block) {
        hit(store, block, length, waiter);
    } else if (waits) {
        flight_step(flight, step, priority);
    } else {
        error_set(&error, ERROR_SYSTEM, "no memory to ask for a block");
        refuse(store, waiter, &error);
    }
}

/* Never stored, but a caller that asks gets what it means. */
static struct block *make_zeros(struct store *store, const struct digest *digest, uint32_t length)
{
    uint8_t *bytes;
    struct block *block = memory_make(store->memory, digest, length, &bytes);

    if (block)
        memset(bytes, 0, length);
    return block;
}

void store_get_async(struct store *store, const struct digest *digest, uint32_t length, enum priority priority,
                     void (*done)(void *user, int code, struct block *block, const struct error *error), void *user)
{
    struct waiter waiter = {.done = done, .user = user, .priority = priority};
    struct block *block = memory_find(store->memory, digest);
    struct error error;

    if (!block && (length == 0 || length > BLOCK_SIZE_MAX)) {
        error_set(&error, ERROR_INVALID, "no block has %u bytes", length);
        refuse(store, &waiter, &error);
        return;
    }
    if (!block && digest_is_zero(digest))
        block = make_zeros(store, digest, length);
    if (block)
        hit(store, block, length, &waiter);
    else
        begin(store, digest, length, priority, &waiter);
}

struct waiting {
    struct latch latch;
    struct block *block;
};

static void wake(void *user, int code, struct block *block, const struct error *error)
{
    struct waiting *waiting = user;

    waiting->block = block;
    latch_set(&waiting->latch, code, error);
}

int store_get(struct store *store, const struct digest *digest, uint32_t length, enum priority priority,
              struct block **block_out, struct error *error)
{
    struct waiting waiting = {.block = NULL};
    int result;

    latch_init(&waiting.latch);
    store_get_async(store, digest, length, priority, wake, &waiting);
    result = latch_wait(&waiting.latch, error);
    latch_finish(&waiting.latch);
    if (!result)
        *block_out = waiting.block;
    return result;
}

static void ignore(void *user, int code, struct block *block, const struct error *error)
{
    (void)user;
    (void)code;
    (void)error;
    block_release(block);
}

void store_prefetch(struct store *store, const struct digest *digest, uint32_t length, enum priority priority)
{
    if (digest_is_zero(digest))
        return;
    /* Background fill wants it on the disk, not decompressed. */
    if (priority == PRIORITY_FILL && store_has(store, digest))
        return;
    store_get_async(store, digest, length, priority, ignore, NULL);
}

bool store_expect(struct store *store, const struct digest *digest, uint32_t length,
                  const struct store_stream *stream)
{
    struct flight *flight = NULL;

    if (digest_is_zero(digest) || length == 0 || length > BLOCK_SIZE_MAX || store_has(store, digest))
        return false;
    pthread_mutex_lock(&store->lock);
    if (!flight_find(store, digest, length) && !flight_find_owed(store, digest, length))
        flight = flight_create(store, digest, length, stream->priority, NULL);
    if (flight) {
        flight->state = FLIGHT_EXPECTED;
        flight->stream = stream;
        flight->passing = stream->priority == PRIORITY_FILL;
    }
    pthread_mutex_unlock(&store->lock);
    return flight;
}

static struct flight *take_expected(struct store *store, const struct digest *digest, uint32_t length)
{
    struct flight *flight;

    pthread_mutex_lock(&store->lock);
    flight = flight_unexpect(store, digest, length);
    pthread_mutex_unlock(&store->lock);
    return flight;
}

int store_offer(struct store *store, const struct digest *digest, uint32_t length, const struct store_frame *frame,
                bool *blamed_out, struct error *error)
{
    struct flight *flight = take_expected(store, digest, length);

    *blamed_out = false;
    return flight ? flight_offer(flight, frame, blamed_out, error) : 0;
}

void store_unexpect(struct store *store, const struct digest *digest, uint32_t length)
{
    struct flight *flight = take_expected(store, digest, length);

    if (flight)
        flight_abandon(flight, true);
}

void store_call_off(struct store *store, const struct digest *digest, uint32_t length)
{
    struct flight *flight = take_expected(store, digest, length);

    if (flight)
        flight_abandon(flight, false);
}

bool store_has(struct store *store, const struct digest *digest)
{
    return memory_has(store->memory, digest) || (store->cache && cache_has_block(store->cache, digest));
}

bool store_is_coming(struct store *store, const struct digest *digest, uint32_t length)
{
    bool coming;

    pthread_mutex_lock(&store->lock);
    coming = flight_find(store, digest, length);
    pthread_mutex_unlock(&store->lock);
    return coming;
}
