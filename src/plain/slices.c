/* Reading: which slices, are they in memory, who waits for which, what to read ahead. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/latch.h"
#include "base/log.h"
#include "plain/plain_parts.h"

/* ---- Pieces ---- */

static void piece_done(struct piece *piece, const struct error *error)
{
    struct reading *reading = piece->reading;
    int none = 0, code;

    free(piece);
    if (error && atomic_compare_exchange_strong(&reading->code, &none, error->code))
        reading->error = *error;
    if (atomic_fetch_sub(&reading->left, 1) != 1)
        return;
    code = atomic_load(&reading->code);
    if (!code) {
        atomic_fetch_add(&reading->plain->reads, 1);
        atomic_fetch_add(&reading->plain->read_bytes, reading->size);
    }
    reading->done(reading->user, code ? code : (ssize_t)reading->size, code ? &reading->error : NULL);
    free(reading);
}

/* The slices' bytes for a list of pieces. */
static void serve(const struct slice *slice, struct piece *pieces)
{
    while (pieces) {
        struct piece *piece = pieces;

        pieces = piece->next;
        if (piece->since_us && slice->asked)
            count_wait(slice->plain, piece);
        memcpy(piece->to, slice->bytes.bytes + piece->skip, piece->size);
        piece_done(piece, NULL);
    }
}

/* ---- The table; with the lock held ---- */

static struct slice **find(struct plain *plain, uint64_t index)
{
    struct slice **at = &plain->buckets[index % SLICE_BUCKETS];

    while (*at && (*at)->index != index)
        at = &(*at)->next;
    return at;
}

static void take_from_use(struct plain *plain, struct slice *slice)
{
    *(slice->newer ? &slice->newer->older : &plain->newest) = slice->older;
    *(slice->older ? &slice->older->newer : &plain->oldest) = slice->newer;
    plain->ready_count--;
}

static void put_in_use(struct plain *plain, struct slice *slice)
{
    slice->newer = NULL;
    slice->older = plain->newest;
    *(plain->newest ? &plain->newest->newer : &plain->oldest) = slice;
    plain->newest = slice;
    plain->ready_count++;
}

static void slice_destroy(struct slice *slice)
{
    buffer_finish(&slice->bytes);
    free(slice);
}

/* Let go of the least recently used until MOST are left. */
static void evict(struct plain *plain, uint64_t most)
{
    struct slice *newer;

    for (struct slice *slice = plain->oldest; slice && plain->ready_count > most; slice = newer) {
        newer = slice->newer;
        if (slice->pins)
            continue;
        take_from_use(plain, slice);
        *find(plain, slice->index) = slice->next;
        slice_destroy(slice);
    }
}

void slices_drop(struct plain *plain)
{
    pthread_mutex_lock(&plain->lock);
    evict(plain, 0);
    pthread_mutex_unlock(&plain->lock);
}

/* ---- Coming and failing ---- */

static void leave(struct plain *plain)
{
    if (--plain->under_way == 0)
        pthread_cond_broadcast(&plain->changed);
}

void slice_ready(struct slice *slice)
{
    struct plain *plain = slice->plain;
    struct piece *pieces;

    pthread_mutex_lock(&plain->lock);
    pieces = slice->pieces;
    slice->pieces = NULL;
    slice->ready = true;
    slice->pins++;
    put_in_use(plain, slice);
    pthread_mutex_unlock(&plain->lock);
    serve(slice, pieces);
    pthread_mutex_lock(&plain->lock);
    slice->pins--;
    evict(plain, MEMORY_BYTES / SLICE_SIZE);
    leave(plain);
    pthread_mutex_unlock(&plain->lock);
}

void slice_hide(struct slice *slice)
{
    if (!slice->hidden)
        *find(slice->plain, slice->index) = slice->next;
    slice->hidden = true;
}

void slice_failed(struct slice *slice, const struct error *error)
{
    struct plain *plain = slice->plain;
    struct piece *pieces;

    pthread_mutex_lock(&plain->lock);
    slice_hide(slice);
    pieces = slice->pieces;
    pthread_mutex_unlock(&plain->lock);
    if (pieces)
        atomic_fetch_add(&plain->failed, 1);
    while (pieces) {
        struct piece *piece = pieces;

        pieces = piece->next;
        count_wait(plain, piece);
        piece_done(piece, error);
    }
    slice_destroy(slice);
    pthread_mutex_lock(&plain->lock);
    leave(plain);
    pthread_mutex_unlock(&plain->lock);
}

/* Out of what is kept; false: it must be fetched. */
static bool read_kept(struct slice *slice)
{
    struct plain *plain = slice->plain;
    size_t size = slice_length(plain, slice->index);
    struct digest digest;
    int result;

    if (!plain->keep || !buffer_reserve(&slice->bytes, size))
        return false;
    result = keep_read(plain->keep, slice->index, slice->bytes.bytes, size);
    if (!result && plain->checked) {
        digest_of(slice->bytes.bytes, size, &digest);
        result = digest_equal(&digest, &plain->checked[slice->index]) ? 0 : ERROR_CORRUPT;
    }
    if (result == ERROR_CORRUPT) {
        atomic_fetch_add(&plain->damaged, 1);
        log_warning("%s: a slice in the cache is damaged, it is fetched again", plain->shown);
    }
    if (result)
        return false;
    slice->bytes.size = size;
    atomic_fetch_add(&plain->kept_hits, 1);
    return true;
}

/* A slice that was not in memory, put into the table; with the lock held. NULL: no memory. */
static struct slice *begin(struct plain *plain, uint64_t index, enum priority priority)
{
    struct slice *slice = calloc(1, sizeof(*slice));
    struct slice **bucket = &plain->buckets[index % SLICE_BUCKETS];

    if (!slice)
        return NULL;
    slice->plain = plain;
    slice->index = index;
    slice->priority = priority;
    slice->next = *bucket;
    *bucket = slice;
    plain->under_way++;
    return slice;
}

static void wait_for(struct slice *slice, struct piece *piece)
{
    if (!slice->pieces)
        slice->waited_ms = clock_ms();
    piece->since_us = clock_us();
    piece->next = slice->pieces;
    slice->pieces = piece;
    slice->priority = PRIORITY_READER;
}

static void want(struct plain *plain, uint64_t index, struct piece *piece)
{
    struct error error = ERROR_INIT;
    struct slice *slice, *begun = NULL;
    bool ready;

    pthread_mutex_lock(&plain->lock);
    slice = *find(plain, index);
    ready = slice && slice->ready;
    if (!slice)
        slice = begun = begin(plain, index, PRIORITY_READER);
    if (ready) {
        slice->pins++;
        take_from_use(plain, slice);
        put_in_use(plain, slice);
    } else if (slice) {
        wait_for(slice, piece);
    }
    pthread_mutex_unlock(&plain->lock);
    if (ready) {
        atomic_fetch_add(&plain->memory_hits, 1);
        serve(slice, piece);
        pthread_mutex_lock(&plain->lock);
        slice->pins--;
        pthread_mutex_unlock(&plain->lock);
    } else if (!slice) {
        error_set(&error, ERROR_SYSTEM, "no memory for a read");
        piece_done(piece, &error);
    } else if (begun && read_kept(begun)) {
        slice_ready(begun);
    } else if (begun) {
        slice_fetch(begun);
    }
}

static void want_ahead(struct plain *plain, uint64_t first, uint32_t count)
{
    for (uint64_t index = first; index < first + count; index++) {
        struct slice *slice = NULL;

        if (plain->keep && keep_has(plain->keep, index))
            continue;
        pthread_mutex_lock(&plain->lock);
        if (!*find(plain, index) && !plain->cancelled)
            slice = begin(plain, index, PRIORITY_READAHEAD);
        pthread_mutex_unlock(&plain->lock);
        if (slice)
            slice_fetch(slice);
    }
}

/* ---- Local files ---- */

static int check_slice(const struct plain *plain, uint64_t index, uint8_t *bytes, struct error *error)
{
    size_t length = slice_length(plain, index);
    ssize_t got = file_pread_full(plain->local_fd, bytes, length, index * SLICE_SIZE, error);
    struct digest digest;

    if (got < 0)
        return (int)got;
    digest_of(bytes, (size_t)got, &digest);
    if ((size_t)got == length && digest_equal(&digest, &plain->checked[index]))
        return 0;
    return error_set(error, ERROR_CHANGED, "%s has changed since it was checked", plain->shown);
}

/* A slice at a time, so that what is given is what was checked. */
static ssize_t read_checked(const struct plain *plain, uint8_t *to, size_t size, uint64_t offset, struct error *error)
{
    uint8_t *bytes = malloc(SLICE_SIZE);
    size_t done = 0;
    int result = bytes ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a read");

    while (done < size && !result) {
        uint64_t at = offset + done;
        size_t skip = at % SLICE_SIZE, count = (size_t)min_u64(SLICE_SIZE - skip, size - done);

        result = check_slice(plain, at / SLICE_SIZE, bytes, error);
        if (!result)
            memcpy(to + done, bytes + skip, count);
        done += count;
    }
    free(bytes);
    return result ? result : (ssize_t)size;
}

static ssize_t read_local(const struct plain *plain, void *bytes, size_t size, uint64_t offset, struct error *error)
{
    ssize_t got = plain->checked ? read_checked(plain, bytes, size, offset, error)
                                 : file_pread_full(plain->local_fd, bytes, size, offset, error);

    if (got >= 0 && (size_t)got < size)
        return error_set(error, ERROR_CHANGED, "%s has become shorter", plain->shown);
    return got;
}

/* ---- Reads ---- */

static struct piece *piece_create(struct reading *reading, uint8_t *to, uint64_t at, size_t size)
{
    struct piece *piece = malloc(sizeof(*piece));

    if (piece)
        *piece =
            (struct piece){.reading = reading, .to = to, .skip = (uint32_t)(at % SLICE_SIZE), .size = (uint32_t)size};
    return piece;
}

/* One piece a slice. They may end while this goes on, but not all: one more is counted until it is through. */
static void cut(struct plain *plain, struct reading *reading, uint8_t *to, uint64_t offset)
{
    struct error error = ERROR_INIT;
    uint64_t end = offset + reading->size, at = offset;
    struct piece *last = piece_create(reading, NULL, 0, 0);

    if (!last) {
        error_set(&error, ERROR_SYSTEM, "no memory for a read");
        reading->done(reading->user, error.code, &error);
        free(reading);
        return;
    }
    while (at < end && !error.code) {
        size_t size = (size_t)(min_u64(end, (at / SLICE_SIZE + 1) * SLICE_SIZE) - at);
        struct piece *piece = piece_create(reading, to + (at - offset), at, size);

        if (!piece) {
            error_set(&error, ERROR_SYSTEM, "no memory for a read");
            break;
        }
        atomic_fetch_add(&reading->left, 1);
        want(plain, at / SLICE_SIZE, piece);
        at += size;
    }
    piece_done(last, error.code ? &error : NULL);
}

void plain_read_async(struct plain *plain, void *bytes, size_t size, uint64_t offset,
                      void (*done)(void *user, ssize_t result, const struct error *error), void *user)
{
    struct error error = ERROR_INIT;
    struct reading *reading;
    struct readahead_piece pieces[READAHEAD_PIECES_MAX];
    size_t piece_count;

    size = (size_t)(offset < plain->size ? min_u64(size, plain->size - offset) : 0);
    if (size == 0 || plain->local_fd >= 0) {
        ssize_t got = size ? read_local(plain, bytes, size, offset, &error) : 0;

        if (got > 0) {
            atomic_fetch_add(&plain->reads, 1);
            atomic_fetch_add(&plain->read_bytes, (uint64_t)got);
        }
        done(user, got, got < 0 ? &error : NULL);
        return;
    }
    reading = calloc(1, sizeof(*reading));
    if (!reading) {
        error_set(&error, ERROR_SYSTEM, "no memory for a read");
        done(user, error.code, &error);
        return;
    }
    *reading = (struct reading){.plain = plain, .done = done, .user = user, .size = size, .left = 1};
    pthread_mutex_lock(&plain->lock);
    piece_count = readahead_note(&plain->readahead, offset, size, pieces);
    pthread_mutex_unlock(&plain->lock);
    cut(plain, reading, bytes, offset);
    for (size_t i = 0; i < piece_count; i++)
        want_ahead(plain, pieces[i].first, pieces[i].count);
}

/* A read that is waited for. */
struct waiting {
    struct latch latch;
    ssize_t got;
};

static void on_read(void *user, ssize_t result, const struct error *error)
{
    struct waiting *waiting = user;

    waiting->got = result;
    latch_set(&waiting->latch, result < 0 ? (int)result : 0, error);
}

ssize_t plain_read(struct plain *plain, void *bytes, size_t size, uint64_t offset, struct error *error)
{
    struct waiting waiting;
    int result;

    latch_init(&waiting.latch);
    plain_read_async(plain, bytes, size, offset, on_read, &waiting);
    result = latch_wait(&waiting.latch, error);
    latch_finish(&waiting.latch);
    return result ? result : waiting.got;
}
