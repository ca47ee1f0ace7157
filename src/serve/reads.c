/* Reads: see reads.h. */
#include "serve/reads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "serve/claim.h"

#define BUFFER_UNIT    (128 * 1024)
#define KEPT_BYTES_MAX (4 * 1024 * 1024) /* of buffers kept for reuse */
/*
 * A request of the kernel's readahead may hold blocks that are here and blocks that are not. A reader of the former
 * must not wait for the latter: when nothing of a request has come for this long, but a part of it is here, it
 * fails, and the kernel asks again for just the pages that are wanted.
 */
#define STRAGGLER_MS 300
#define WATCH_MS     50
/* A disk that nobody serves fails every read: so many failures are told, then none for so long. */
#define TOLD_MAX      8
#define TOLD_PAUSE_MS 10000

struct piece {
    struct read *read;
    uint64_t offset; /* on the disk */
    uint32_t at;     /* in the read's bytes */
    uint32_t size;
};

struct read {
    struct read *next, *previous; /* in the list of those under way; NEXT also among those kept */
    struct reads *reads;
    void *request;
    uint64_t node;
    uint64_t offset;
    size_t size;
    uint8_t *bytes;
    size_t capacity;
    bool may_fail_early;
    struct claim claim;
    _Atomic int code; /* first failure of a piece */
    _Atomic unsigned pieces_left;
    _Atomic unsigned pieces_done;
    _Atomic uint64_t progress_ms;
    struct piece *pieces;
    size_t piece_capacity;
};

struct reads {
    struct read_host host;
    pthread_mutex_t lock;   /* before any lock that the host takes to answer */
    pthread_cond_t changed; /* the first read started, or stopping */
    struct read head;       /* of the list of reads whose pieces are not all done */
    unsigned count;
    struct read *kept;
    size_t kept_bytes;
    unsigned told; /* failures, since TOLD_FROM_MS */
    unsigned untold;
    uint64_t told_from_ms;
    bool stopping;
    bool watching;
    pthread_t watch;
};

static struct read *read_create(struct reads *reads, size_t size)
{
    struct read *read = calloc(1, sizeof(*read));

    if (!read)
        return NULL;
    read->reads = reads;
    read->capacity = divide_up(size, BUFFER_UNIT) * BUFFER_UNIT;
    read->bytes = malloc(read->capacity);
    if (!read->bytes) {
        free(read);
        return NULL;
    }
    return read;
}

static void read_destroy(struct read *read)
{
    free(read->pieces);
    free(read->bytes);
    free(read);
}

/* A read with room for SIZE bytes: a kept one, whose memory is warm, or a new one. NULL: no memory. */
static struct read *read_take(struct reads *reads, size_t size)
{
    struct read *read, **at;

    pthread_mutex_lock(&reads->lock);
    for (at = &reads->kept; *at && (*at)->capacity < size; at = &(*at)->next)
        ;
    read = *at;
    if (read) {
        *at = read->next;
        reads->kept_bytes -= read->capacity;
    }
    pthread_mutex_unlock(&reads->lock);
    return read ? read : read_create(reads, size);
}

static void list_add(struct reads *reads, struct read *read)
{
    pthread_mutex_lock(&reads->lock);
    read->next = &reads->head;
    read->previous = reads->head.previous;
    read->previous->next = read;
    reads->head.previous = read;
    if (reads->count++ == 0)
        pthread_cond_signal(&reads->changed);
    pthread_mutex_unlock(&reads->lock);
}

/* Nothing refers to READ any more: keep it for reuse or free it. */
static void list_remove(struct reads *reads, struct read *read)
{
    bool keep;

    pthread_mutex_lock(&reads->lock);
    read->previous->next = read->next;
    read->next->previous = read->previous;
    reads->count--;
    keep = reads->kept_bytes + read->capacity <= KEPT_BYTES_MAX;
    if (keep) {
        read->next = reads->kept;
        reads->kept = read;
        reads->kept_bytes += read->capacity;
    }
    pthread_mutex_unlock(&reads->lock);
    if (!keep)
        read_destroy(read);
}

static void answer(struct read *read, int code)
{
    struct read_host *host = &read->reads->host;

    /* An interrupt that is just being handled must be through with READ before that is reused. */
    host->watch(read->request, NULL);
    host->answer(read->request, code, read->bytes, read->size);
}

void reads_interrupt(struct read *read)
{
    struct reads *reads = read->reads;
    void *request = read->request;

    /* Once it is claimed here, its last piece does not wait for us: READ may be reused at once. */
    if (claim_interrupt(&read->claim))
        reads->host.answer(request, ERROR_CANCELLED, NULL, 0);
}

/* Is one more failure to be told? *UNTOLD_OUT: how many were not, since the last that was. */
static bool may_tell(struct reads *reads, unsigned *untold_out)
{
    uint64_t now = clock_ms();
    bool may;

    pthread_mutex_lock(&reads->lock);
    if (now - reads->told_from_ms >= TOLD_PAUSE_MS) {
        reads->told_from_ms = now;
        reads->told = 0;
    }
    may = reads->told < TOLD_MAX;
    *untold_out = reads->untold;
    reads->told += may;
    reads->untold = may ? 0 : reads->untold + 1;
    pthread_mutex_unlock(&reads->lock);
    return may;
}

static void tell_failure(struct read *read, uint64_t offset, const struct circular_error *error)
{
    unsigned untold;

    if (!may_tell(read->reads, &untold))
        return;
    if (untold)
        log_error("%u more reads have failed", untold);
    log_error("a read at %llu failed: %s", (unsigned long long)offset, error ? error->message : "for no known reason");
}

static void on_piece(void *user, ssize_t result, const struct circular_error *error)
{
    struct piece *piece = user;
    struct read *read = piece->read;
    struct reads *reads = read->reads;
    uint64_t node = read->node;
    int none = 0;

    if (result < 0) {
        if (atomic_compare_exchange_strong(&read->code, &none, (int)result) && result != ERROR_CANCELLED)
            tell_failure(read, piece->offset, error);
    } else if ((size_t)result < piece->size) {
        atomic_compare_exchange_strong(&read->code, &none, ERROR_SYSTEM);
    }
    atomic_store(&read->progress_ms, clock_ms());
    atomic_fetch_add(&read->pieces_done, 1);
    if (atomic_fetch_sub(&read->pieces_left, 1) != 1)
        return;
    if (claim_take(&read->claim))
        answer(read, read->code);
    reads->host.release(reads->host.user, node);
    list_remove(reads, read);
}

/* Where byte AT of SOURCE lies on its disk, and how many of the SIZE bytes from there on make a piece. */
static uint64_t find_piece(const struct read_source *source, uint64_t at, uint64_t size, uint64_t *length_out)
{
    uint64_t together = size, offset = source->extents ? extents_find(source->extents, at, &together) : at;

    *length_out = min_u64(min_u64(size, together), PIECE_SIZE - offset % PIECE_SIZE);
    return offset;
}

/* Returns how many; 0: no memory. */
static unsigned cut_pieces(struct read *read, const struct read_source *source)
{
    size_t count = 0;

    for (uint64_t at = 0, length; at < read->size; at += length) {
        uint64_t offset = find_piece(source, read->offset + at, read->size - at, &length);
        struct piece *pieces = array_grow(read->pieces, count, &read->piece_capacity, sizeof(*pieces));

        if (!pieces)
            return 0;
        read->pieces = pieces;
        pieces[count++] = (struct piece){read, offset, (uint32_t)at, (uint32_t)length};
    }
    return (unsigned)count;
}

/* From here on an interrupt answers the request. */
static void watch_interrupt(struct read *read)
{
    claim_start(&read->claim);
    read->reads->host.watch(read->request, read);
    if (claim_started(&read->claim))
        answer(read, ERROR_CANCELLED);
}

static void start_pieces(struct read *read, struct circular_disk *disk, unsigned count)
{
    uint8_t *bytes = read->bytes;
    struct piece *pieces = read->pieces;

    /* The last of these may end the read, and reuse it, before this returns. */
    for (unsigned i = 0; i < count; i++)
        circular_pread_async(disk, bytes + pieces[i].at, pieces[i].size, pieces[i].offset, on_piece, &pieces[i]);
}

void reads_start(struct reads *reads, void *request, const struct read_source *source, size_t size, uint64_t offset,
                 bool may_fail_early)
{
    struct read *read = read_take(reads, size);
    unsigned count = 0;

    if (read) {
        read->offset = offset;
        read->size = size;
        count = cut_pieces(read, source);
    }
    if (!count) {
        if (read)
            read_destroy(read);
        reads->host.answer(request, ERROR_SYSTEM, NULL, 0);
        reads->host.release(reads->host.user, source->node);
        return;
    }
    read->request = request;
    read->node = source->node;
    read->may_fail_early = may_fail_early;
    atomic_store(&read->code, 0);
    atomic_store(&read->pieces_left, count);
    atomic_store(&read->pieces_done, 0);
    atomic_store(&read->progress_ms, clock_ms());
    watch_interrupt(read);
    list_add(reads, read);
    start_pieces(read, source->disk, count);
}

/* With the lock held. */
static void fail_stragglers(struct reads *reads, uint64_t now)
{
    for (struct read *read = reads->head.next; read != &reads->head; read = read->next) {
        bool partial = atomic_load(&read->pieces_done) && atomic_load(&read->pieces_left);

        if (partial && read->may_fail_early && now >= atomic_load(&read->progress_ms) + STRAGGLER_MS &&
            claim_take(&read->claim))
            answer(read, ERROR_UNAVAILABLE);
    }
}

static void *watch_main(void *argument)
{
    struct reads *reads = argument;

    pthread_mutex_lock(&reads->lock);
    while (!reads->stopping) {
        if (reads->count == 0) {
            pthread_cond_wait(&reads->changed, &reads->lock);
            continue;
        }
        pthread_mutex_unlock(&reads->lock);
        clock_sleep_ms(WATCH_MS);
        pthread_mutex_lock(&reads->lock);
        fail_stragglers(reads, clock_ms());
    }
    pthread_mutex_unlock(&reads->lock);
    return NULL;
}

int reads_create(const struct read_host *host, struct reads **reads_out, struct error *error)
{
    struct reads *reads = calloc(1, sizeof(*reads));

    if (!reads)
        return error_set(error, ERROR_SYSTEM, "no memory for reads");
    reads->host = *host;
    reads->head.next = reads->head.previous = &reads->head;
    pthread_mutex_init(&reads->lock, NULL);
    pthread_cond_init(&reads->changed, NULL);
    if (pthread_create(&reads->watch, NULL, watch_main, reads)) {
        reads_destroy(reads);
        return error_set(error, ERROR_SYSTEM, "cannot start a thread");
    }
    reads->watching = true;
    *reads_out = reads;
    return 0;
}

void reads_stop(struct reads *reads)
{
    if (!reads->watching)
        return;
    pthread_mutex_lock(&reads->lock);
    reads->stopping = true;
    pthread_cond_signal(&reads->changed);
    pthread_mutex_unlock(&reads->lock);
    pthread_join(reads->watch, NULL);
    reads->watching = false;
}

bool reads_wait(struct reads *reads, uint64_t timeout_ms)
{
    uint64_t until = clock_ms() + timeout_ms;

    for (;;) {
        bool idle;

        pthread_mutex_lock(&reads->lock);
        idle = reads->count == 0;
        pthread_mutex_unlock(&reads->lock);
        if (idle || clock_ms() >= until)
            return idle;
        clock_sleep_ms(2);
    }
}

void reads_destroy(struct reads *reads)
{
    if (!reads)
        return;
    reads_stop(reads);
    while (reads->kept) {
        struct read *read = reads->kept;

        reads->kept = read->next;
        read_destroy(read);
    }
    pthread_cond_destroy(&reads->changed);
    pthread_mutex_destroy(&reads->lock);
    free(reads);
}
