/*
 * A flight: one block on its way from the cache folder or a mirror through the verification to all who asked for it,
 * the first of them included.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "format/frame.h"
#include "format/name.h"
#include "store/store_parts.h"

/*
 * With so many requests before it, an unhurried fetch is taken to be still in the HTTP client's queue, and a reader
 * that joins sends a request of its own.
 */
#define FETCHES_AT_ONCE 60

static struct flight **bucket_of(struct store *store, const struct digest *digest)
{
    return &store->buckets[digest->bytes[0] & (BUCKET_COUNT - 1)];
}

struct flight *flight_find(struct store *store, const struct digest *digest, uint32_t length)
{
    struct flight *flight = *bucket_of(store, digest);

    while (flight && (flight->state == FLIGHT_LANDED || flight->length != length ||
                      !digest_equal(&flight->digest, digest)))
        flight = flight->chain;
    return flight;
}

struct flight *flight_find_owed(struct store *store, const struct digest *digest, uint32_t length)
{
    struct flight *flight = *bucket_of(store, digest);

    while (flight && (!flight->stream || flight->length != length || !digest_equal(&flight->digest, digest)))
        flight = flight->chain;
    return flight;
}

/* The readers among those who wait. */
static void visit_readers(const struct flight *flight, uint64_t now_us,
                          void (*visit)(void *user, const struct store_wait *wait), void *user)
{
    struct store_wait wait = {.digest = &flight->digest, .streamed = flight->state == FLIGHT_EXPECTED};

    for (const struct waiter *waiter = flight->waiters; waiter; waiter = waiter->next)
        if (waiter->priority == PRIORITY_READER) {
            wait.readers++;
            wait.age_us = max_u64(wait.age_us, now_us - min_u64(waiter->since_us, now_us));
        }
    if (wait.readers)
        visit(user, &wait);
}

void flight_each_waiting(struct store *store, void (*visit)(void *user, const struct store_wait *wait), void *user)
{
    uint64_t now_us = clock_us();

    for (size_t i = 0; i < BUCKET_COUNT; i++)
        for (const struct flight *flight = store->buckets[i]; flight; flight = flight->chain)
            visit_readers(flight, now_us, visit, user);
}

struct flight *flight_create(struct store *store, const struct digest *digest, uint32_t length,
                             enum priority priority, const struct waiter *waiter)
{
    struct flight *flight = calloc(1, sizeof(*flight));
    struct flight **bucket = bucket_of(store, digest);

    if (!flight)
        return NULL;
    flight->store = store;
    flight->digest = *digest;
    flight->length = length;
    flight->priority = priority;
    flight->references = 1;
    if (waiter) {
        flight->first = *waiter;
        flight->waiters = &flight->first;
    }
    flight->chain = *bucket;
    *bucket = flight;
    store->flight_count++;
    return flight;
}

/* Under the lock. */
static void unlink_fetching(struct flight *flight)
{
    struct store *store = flight->store;

    *(flight->earlier ? &flight->earlier->later : &store->first_fetching) = flight->later;
    *(flight->later ? &flight->later->earlier : &store->last_fetching) = flight->earlier;
}

/* Under the lock. */
static void link_fetching(struct flight *flight)
{
    struct store *store = flight->store;

    flight->earlier = store->last_fetching;
    flight->later = NULL;
    *(store->last_fetching ? &store->last_fetching->later : &store->first_fetching) = flight;
    store->last_fetching = flight;
}

static void release_flight(struct flight *flight)
{
    struct store *store = flight->store;

    pthread_mutex_lock(&store->lock);
    if (--flight->references == 0) {
        free(flight);
        if (--store->flight_count == 0)
            pthread_cond_broadcast(&store->idle);
    }
    pthread_mutex_unlock(&store->lock);
}

/* Under the lock. */
static void unlink_flight(struct flight *flight)
{
    struct flight **at = bucket_of(flight->store, &flight->digest);

    while (*at != flight)
        at = &(*at)->chain;
    *at = flight->chain;
}

/* Nobody can join the flight any more. Only the stream that owes it can find it. Under the lock. */
static void land(struct flight *flight)
{
    if (flight->state == FLIGHT_LANDED)
        return;
    if (flight->state == FLIGHT_FETCHING)
        unlink_fetching(flight);
    flight->state = FLIGHT_LANDED;
    if (!flight->stream)
        unlink_flight(flight);
}

/* The same, and returns who waits for it. */
static struct waiter *land_flight(struct flight *flight)
{
    struct store *store = flight->store;
    struct waiter *waiters;

    pthread_mutex_lock(&store->lock);
    waiters = flight->waiters;
    flight->waiters = NULL;
    land(flight);
    pthread_mutex_unlock(&store->lock);
    return waiters;
}

void flight_count_wait(const struct flight *flight, const struct waiter *waiter)
{
    struct store *store = flight->store;
    uint64_t us;

    if (flight->cached)
        atomic_fetch_add_explicit(&store->cache_hits[waiter->priority], 1, memory_order_relaxed);
    if (flight->cached || waiter->priority != PRIORITY_READER)
        return;
    us = clock_us() - waiter->since_us;
    atomic_fetch_add_explicit(&store->wait_us, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->waits[statistics_bucket(us)], 1, memory_order_relaxed);
}

/* Call everyone who waits. FLIGHT must be held by the caller; BLOCK is borrowed. */
static void call_waiters(struct flight *flight, int code, struct block *block, const struct error *error)
{
    struct waiter *waiter = land_flight(flight);

    while (waiter) {
        struct waiter *next = waiter->next;

        flight_count_wait(flight, waiter);
        if (code && code != ERROR_CANCELLED)
            atomic_fetch_add(&flight->store->failed, 1);
        waiter->done(waiter->user, code, block ? block_reference(block) : NULL, error);
        if (waiter != &flight->first)
            free(waiter);
        waiter = next;
    }
}

/* The flight has its verified block. What a background job wanted does not push out what readers use. */
static void deliver(struct flight *flight, enum priority priority, struct block *block)
{
    struct store *store = flight->store;

    if (priority <= PRIORITY_READAHEAD || (!store->cache && !flight->passing))
        memory_keep(store->memory, block, false);
    else if (priority == PRIORITY_PROFILE)
        memory_keep(store->memory, block, true);
    call_waiters(flight, 0, block, NULL);
}

static void fail(struct flight *flight, const struct error *error)
{
    call_waiters(flight, error->code, NULL, error);
}

static enum priority priority_of(struct flight *flight)
{
    enum priority priority;

    pthread_mutex_lock(&flight->store->lock);
    priority = flight->priority;
    pthread_mutex_unlock(&flight->store->lock);
    return priority;
}

/* Fetching from mirrors. */

/* Decompress and verify; a block with one reference in BLOCK_OUT. */
static int verify_into_block(struct flight *flight, const uint8_t *bytes, size_t size, struct block **block_out,
                             struct error *error)
{
    uint8_t *out;
    struct block *block = memory_make(flight->store->memory, &flight->digest, flight->length, &out);
    int result;

    if (!block)
        return error_set(error, ERROR_SYSTEM, "no memory for a block of %u bytes", flight->length);
    result = block_verify(bytes, size, &flight->digest, flight->length, out, error);
    if (result)
        block_release(block);
    else
        *block_out = block;
    return result;
}

/* BLOCK is verified, out of FRAME: keep it, and give it to all who wait. Consumes the block. */
static void keep_and_deliver(struct flight *flight, struct block *block, const void *frame, size_t frame_size)
{
    struct store *store = flight->store;
    enum priority priority = priority_of(flight);

    atomic_fetch_add(&store->fetched_blocks, 1);
    atomic_fetch_add(&store->fetched_bytes, frame_size);
    if (priority == PRIORITY_READER)
        deliver(flight, priority, block);
    /* Nobody waits for that but a pull, which is told only when the block has been kept. */
    if (store->cache && priority == PRIORITY_FILL)
        cache_write_block(store->cache, &flight->digest, frame, frame_size);
    else if (store->cache)
        cache_write_block_behind(store->cache, &flight->digest, frame, frame_size);
    if (priority != PRIORITY_READER)
        deliver(flight, priority_of(flight), block);
    block_release(block);
}

static int accept_frame(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct flight *flight = user;
    struct block *block = NULL;
    int result = verify_into_block(flight, bytes, size, &block, error);

    if (!result)
        keep_and_deliver(flight, block, bytes, size);
    return result;
}

static void fetch_ended(void *user, int code, const struct error *error)
{
    struct flight *flight = user;
    struct store *store = flight->store;
    bool last;

    pthread_mutex_lock(&store->lock);
    last = --flight->fetches == 0;
    pthread_mutex_unlock(&store->lock);
    /* If a second fetch of this flight is under way, that one decides. */
    if (code && last)
        fail(flight, error);
    release_flight(flight);
}

/* Consumes one of the flight's references. */
static void send_fetch(struct flight *flight, enum priority priority)
{
    char path[ARCHIVE_PATH_MAX];
    struct mirrors_request request = {
        .path = archive_path_block(&flight->digest, path),
        .size_limit = frame_bound(flight->length),
        .priority = priority,
        .accept = accept_frame,
        .done = fetch_ended,
        .user = flight,
    };

    mirrors_fetch(flight->store->mirrors, &request);
}

/* The block is not here. Consumes one of the flight's references. */
static void fetch(struct flight *flight)
{
    struct store *store = flight->store;
    enum priority priority;
    bool landed;

    if (!store->mirrors) {
        struct error error;
        char text[DIGEST_TEXT];

        error_set(&error, ERROR_UNAVAILABLE, "block %s is not in the cache and the network is not used (--offline)",
                  digest_format(&flight->digest, text));
        fail(flight, &error);
        release_flight(flight);
        return;
    }
    pthread_mutex_lock(&store->lock);
    landed = flight->state == FLIGHT_LANDED; /* a stream brought it just now */
    if (!landed) {
        flight->state = FLIGHT_FETCHING;
        flight->fetches = 1;
        link_fetching(flight);
    }
    priority = flight->priority;
    pthread_mutex_unlock(&store->lock);
    if (landed)
        release_flight(flight);
    else
        send_fetch(flight, priority);
}

/* Reading from the cache folder. */

static struct buffer take_frame(struct store *store)
{
    struct buffer frame = {0};

    pthread_mutex_lock(&store->lock);
    if (store->frame_count)
        frame = store->frames[--store->frame_count];
    pthread_mutex_unlock(&store->lock);
    return frame;
}

static void give_frame(struct store *store, struct buffer *frame)
{
    pthread_mutex_lock(&store->lock);
    if (store->frame_count < SPARE_FRAMES) {
        store->frames[store->frame_count++] = *frame;
        *frame = (struct buffer){0};
    }
    pthread_mutex_unlock(&store->lock);
    buffer_finish(frame);
}

static void report_cached(struct flight *flight, const struct error *error)
{
    struct store *store = flight->store;
    char path[ARCHIVE_PATH_MAX];

    archive_path_block(&flight->digest, path);
    if (error->code != ERROR_CORRUPT) {
        log_warning("cache: block %s/%s cannot be used: %s", cache_path(store->cache), path, error->message);
        return;
    }
    atomic_fetch_add(&store->cache_corrupt, 1);
    log_warning("cache: block %s/%s is damaged (%s), %s", cache_path(store->cache), path, error->message,
                store->mirrors ? "fetching it again" : "removing it");
    cache_drop_block(store->cache, &flight->digest);
}

/* The verified block, or NULL if it has to be fetched. *UNMARKED_OUT as of cache_read_block. */
static struct block *read_cached(struct flight *flight, bool *unmarked_out)
{
    struct store *store = flight->store;
    struct buffer frame = take_frame(store);
    struct block *block = NULL;
    struct error error;
    int result = cache_read_block(store->cache, &flight->digest, flight->length, &frame, unmarked_out, &error);

    if (!result)
        result = verify_into_block(flight, frame.bytes, frame.size, &block, &error);
    give_frame(store, &frame);
    if (result && result != ERROR_NOT_FOUND)
        report_cached(flight, &error);
    return block;
}

/* By whoever put the flight into FLIGHT_READING. Consumes one of its references. */
static void resolve(struct flight *flight)
{
    struct store *store = flight->store;
    bool unmarked = false;
    struct block *block = store->cache ? read_cached(flight, &unmarked) : NULL;

    if (!block) {
        fetch(flight);
        return;
    }
    flight->cached = true;
    deliver(flight, priority_of(flight), block);
    if (unmarked)
        cache_mark_block(store->cache, &flight->digest);
    block_release(block);
    release_flight(flight);
}

static void run_errand(struct job *job)
{
    struct flight *flight = ((struct errand *)job)->flight;
    bool mine;

    pthread_mutex_lock(&flight->store->lock);
    mine = flight->state == FLIGHT_QUEUED;
    if (mine)
        flight->state = FLIGHT_READING;
    pthread_mutex_unlock(&flight->store->lock);
    if (mine)
        resolve(flight);
    else
        release_flight(flight);
}

/* Resolve a queued flight on a worker. Consumes one of its references. */
static void send_errand(struct flight *flight, enum priority priority)
{
    struct errand *errand = &flight->errands[priority];

    *errand = (struct errand){.job.run = run_errand, .flight = flight};
    workers_submit(flight->store->workers, &errand->job, priority);
}

/* Under the lock: are so many others before FLIGHT that the HTTP client has hardly begun with it? */
static bool is_far_behind(const struct flight *flight)
{
    unsigned before = 0;

    for (const struct flight *other = flight->earlier; other && before < FETCHES_AT_ONCE; other = other->earlier)
        before += other->priority <= flight->priority;
    return before == FETCHES_AT_ONCE;
}

enum flight_step flight_hurry(struct flight *flight, enum priority priority)
{
    enum flight_step step = STEP_NOTHING;

    if (priority >= flight->priority)
        return STEP_NOTHING;
    if (flight->state == FLIGHT_EXPECTED) {
        /* Without a stream its frame has come and is being verified. */
        step = priority == PRIORITY_READER && flight->stream && flight->stream->wanted ? STEP_WANTED : STEP_NOTHING;
    } else if (flight->state == FLIGHT_QUEUED && priority == PRIORITY_READER) {
        flight->state = FLIGHT_READING;
        step = STEP_RESOLVE;
    } else if (flight->state == FLIGHT_QUEUED) {
        step = STEP_ERRAND;
    } else if (flight->state == FLIGHT_FETCHING && is_far_behind(flight)) {
        flight->fetches++;
        step = STEP_FETCH;
    } else if (flight->state == FLIGHT_FETCHING && priority == PRIORITY_READER) {
        step = STEP_HURRY;
    }
    flight->priority = priority;
    flight->references += step != STEP_NOTHING;
    return step;
}

bool flight_join(struct flight *flight, const struct waiter *waiter)
{
    struct waiter *joined = malloc(sizeof(*joined));
    struct waiter **at = &flight->waiters;

    if (!joined)
        return false;
    *joined = *waiter;
    while (*at)
        at = &(*at)->next;
    *at = joined;
    return true;
}

/* A reader waits for what a stream is to bring: is that soon enough? */
static void ask_stream(struct flight *flight)
{
    struct store *store = flight->store;
    const struct store_stream *stream;
    bool apart;

    pthread_mutex_lock(&store->lock);
    stream = flight->state == FLIGHT_EXPECTED ? flight->stream : NULL;
    flight->askers += stream != NULL;
    pthread_mutex_unlock(&store->lock);
    apart = stream && stream->wanted(stream->user, &flight->digest);
    pthread_mutex_lock(&store->lock);
    if (stream && --flight->askers == 0)
        pthread_cond_broadcast(&store->idle);
    apart = apart && flight->state == FLIGHT_EXPECTED;
    if (apart)
        flight->state = FLIGHT_READING;
    pthread_mutex_unlock(&store->lock);
    if (apart)
        fetch(flight);
    else
        release_flight(flight);
}

struct flight *flight_unexpect(struct store *store, const struct digest *digest, uint32_t length)
{
    struct flight *flight = flight_find_owed(store, digest, length);

    if (!flight)
        return NULL;
    /* The stream may be gone as soon as it owes nothing; not while somebody asks it. */
    while (flight->askers)
        pthread_cond_wait(&store->idle, &store->lock);
    flight->stream = NULL;
    if (flight->state == FLIGHT_LANDED)
        unlink_flight(flight);
    return flight;
}

void flight_abandon(struct flight *flight, bool for_all)
{
    struct store *store = flight->store;
    bool expected, fetched;
    struct error error;

    pthread_mutex_lock(&store->lock);
    expected = flight->state == FLIGHT_EXPECTED;
    fetched = expected && flight->waiters && (for_all || flight->priority != PRIORITY_FILL);
    if (expected)
        flight->state = FLIGHT_READING;
    if (expected && !fetched)
        land(flight);
    pthread_mutex_unlock(&store->lock);
    error_set(&error, ERROR_CANCELLED, "the stream that was to bring the block has ended");
    if (expected && !fetched)
        fail(flight, &error);
    if (fetched)
        fetch(flight);
    else
        release_flight(flight);
}

/* Before the block is asked for anew: not of a mirror that has just lied. */
static bool accuse(struct store *store, const struct store_frame *frame, const struct error *error)
{
    return store->mirrors && mirrors_accuse(store->mirrors, frame->mirror, frame->path, error ? error->message : "");
}

int flight_offer(struct flight *flight, const struct store_frame *frame, bool *blamed_out, struct error *error)
{
    struct store *store = flight->store;
    struct block *block = NULL;
    bool landed;
    int result;

    pthread_mutex_lock(&store->lock);
    landed = flight->state == FLIGHT_LANDED;
    pthread_mutex_unlock(&store->lock);
    if (landed) {
        release_flight(flight); /* it was fetched apart */
        return 0;
    }
    result = verify_into_block(flight, frame->bytes, frame->size, &block, error);
    if (result) {
        *blamed_out = result == ERROR_CORRUPT && accuse(store, frame, error);
        flight_abandon(flight, true);
        return result;
    }
    keep_and_deliver(flight, block, frame->bytes, frame->size);
    release_flight(flight);
    return 0;
}

void flight_step(struct flight *flight, enum flight_step step, enum priority priority)
{
    switch (step) {
    case STEP_NOTHING:
        break;
    case STEP_RESOLVE:
        resolve(flight);
        break;
    case STEP_ERRAND:
        send_errand(flight, priority);
        break;
    case STEP_FETCH:
        send_fetch(flight, priority);
        break;
    case STEP_HURRY:
        mirrors_hurry(flight->store->mirrors, flight);
        release_flight(flight);
        break;
    case STEP_WANTED:
        ask_stream(flight);
        break;
    }
}

