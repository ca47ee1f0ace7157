/*
 * Everything at once: one stream of a server that knows no ranges, and reading
 * the whole to compare its digest.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/latch.h"
#include "plain/plain_parts.h"

enum { ATTEMPTS = 5, PAUSE_MS = 500 };

/* ---- One stream ---- */

struct stream {
    struct plain *plain;
    const struct progress *progress;
    struct buffer bytes; /* of the slice that is coming */
    uint64_t index;
    struct http_facts facts;
    struct latch latch;
    bool stopped;
    struct error error; /* of keeping */
};

/* The slice is whole, or the last. */
static bool keep_slice(struct stream *stream)
{
    struct plain *plain = stream->plain;
    struct digest digest;

    digest_of(stream->bytes.bytes, stream->bytes.size, &digest);
    if (keep_write(plain->keep, stream->index, stream->bytes.bytes, stream->bytes.size, &digest, &stream->error))
        return false;
    atomic_fetch_add(&plain->fetched, 1);
    atomic_fetch_add(&plain->fetched_bytes, stream->bytes.size);
    stream->index++;
    stream->bytes.size = 0;
    return true;
}

static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct stream *stream = user;
    uint64_t total = stream->plain->size;

    while (size) {
        size_t count = (size_t)min_u64(size, SLICE_SIZE - stream->bytes.size);

        if (!buffer_append(&stream->bytes, bytes, count)) {
            error_set(&stream->error, ERROR_SYSTEM, "no memory for a slice");
            return false;
        }
        bytes += count;
        size -= count;
        if (stream->bytes.size == SLICE_SIZE && !keep_slice(stream))
            return false;
    }
    stream->stopped = !progress_update(stream->progress, stream->index * SLICE_SIZE, total);
    return !stream->stopped;
}

static void on_end(void *user, const struct http_response *response)
{
    struct stream *stream = user;

    latch_set(&stream->latch, response->code, &response->error);
}

/* One attempt, from the beginning: there are no ranges to go on with. */
static int run_stream(struct plain *plain, struct stream *stream, struct error *error)
{
    int result;

    *stream = (struct stream){.plain = plain, .progress = plain->settings.progress};
    latch_init(&stream->latch);
    http_fetch(plain->settings.http, &(struct http_request){
                                         .url = plain->url,
                                         .owner = plain,
                                         .facts = &stream->facts,
                                         .data = on_data,
                                         .done = on_end,
                                         .user = stream,
                                     });
    result = latch_wait(&stream->latch, error);
    latch_finish(&stream->latch);
    if (!result && stream->bytes.size)
        keep_slice(stream);
    if (stream->error.code)
        result = error_copy(error, &stream->error);
    if (stream->stopped)
        result = error_set(error, ERROR_CANCELLED, "%s: cancelled", plain->shown);
    return result;
}

/* What came is of the file that was opened, and all of it. */
static int judge_stream(struct plain *plain, const struct stream *stream, struct error *error)
{
    uint64_t size = atomic_load(&plain->fetched_bytes);

    if (plain->bound.object_size == HTTP_SIZE_UNKNOWN) {
        plain->bound.object_size = plain->size = size;
        keep_set_size(plain->keep, size);
    }
    if (fetch_compare(plain, &stream->facts, error))
        return error ? error->code : ERROR_CHANGED;
    if (size == 0)
        return error_set(error, ERROR_INVALID, "%s is empty", plain->shown);
    return size == plain->size ? 0
                               : error_set(error, ERROR_UNAVAILABLE, "%s: ended after %llu of %llu bytes", plain->shown,
                                           (unsigned long long)size, (unsigned long long)plain->size);
}

int whole_fetch(struct plain *plain, struct error *error)
{
    struct stream stream;
    int result = ERROR_UNAVAILABLE;

    for (unsigned i = 0; i < ATTEMPTS && result == ERROR_UNAVAILABLE; i++) {
        if (i)
            clock_sleep_ms((uint64_t)PAUSE_MS << i);
        atomic_store(&plain->fetched_bytes, 0);
        result = run_stream(plain, &stream, error);
        buffer_finish(&stream.bytes);
        if (!result)
            result = judge_stream(plain, &stream, error);
    }
    return result;
}

/* ---- The digest of the whole ---- */

#define WINDOW 8 /* slices that are read at a time */

struct turn {
    struct latch latch;
    uint8_t *bytes;
    size_t size;
};

static void on_turn(void *user, ssize_t result, const struct error *error)
{
    struct turn *turn = user;

    latch_set(&turn->latch, result < 0 ? (int)result : 0, error);
}

static void start_turn(struct plain *plain, struct turn *turn, uint64_t index)
{
    turn->size = slice_length(plain, index);
    latch_init(&turn->latch);
    plain_read_async(plain, turn->bytes, turn->size, index * SLICE_SIZE, on_turn, turn);
}

/* All slices in order through HASH, each digest into DIGESTS. */
static int read_all(struct plain *plain, struct turn turns[WINDOW], struct hash *hash, struct digest *digests,
                    const struct progress *progress, struct error *error)
{
    uint64_t started = 0;
    int result = 0;

    for (uint64_t i = 0; i < plain->slice_count && (!result || i < started); i++) {
        struct turn *turn = &turns[i % WINDOW];
        int ended;

        for (; !result && started < plain->slice_count && started < i + WINDOW; started++)
            start_turn(plain, &turns[started % WINDOW], started);
        ended = latch_wait(&turn->latch, result ? NULL : error);
        latch_finish(&turn->latch);
        result = result ? result : ended;
        if (result)
            continue;
        hash_update(hash, turn->bytes, turn->size);
        digest_of(turn->bytes, turn->size, &digests[i]);
        if (!progress_update(progress, i * SLICE_SIZE + turn->size, plain->size))
            result = error_set(error, ERROR_CANCELLED, "cancelled while %s was checked", plain->shown);
    }
    return result;
}

static int compare(struct plain *plain, struct hash *hash, const struct digest *wanted, struct error *error)
{
    char is[DIGEST_TEXT], should[DIGEST_TEXT];
    struct digest found;

    hash_final(hash, &found);
    if (digest_equal(&found, wanted))
        return 0;
    if (plain->keep)
        keep_discard(plain->keep); /* or it would be as wrong the next time */
    return error_set(error, ERROR_CORRUPT, "%s: its SHA-256 is %s, not %s", plain->shown, digest_format(&found, is),
                     digest_format(wanted, should));
}

int plain_check(struct plain *plain, const struct digest *wanted, const struct progress *progress,
                struct error *error)
{
    struct digest *digests = calloc(plain->slice_count, sizeof(*digests));
    uint8_t *bytes = malloc(WINDOW * SLICE_SIZE);
    struct turn turns[WINDOW];
    struct hash *hash = hash_create();
    int result = digests && bytes && hash ? 0 : error_set(error, ERROR_SYSTEM, "no memory to check a file");

    for (size_t i = 0; i < WINDOW && !result; i++)
        turns[i].bytes = bytes + i * SLICE_SIZE;
    if (!result)
        result = read_all(plain, turns, hash, digests, progress, error);
    if (!result)
        result = compare(plain, hash, wanted, error);
    if (!result) {
        plain->checked = digests;
        digests = NULL;
        slices_drop(plain); /* what is in memory was not compared with them */
    }
    hash_destroy(hash);
    free(bytes);
    free(digests);
    return result;
}
