/*
 * Streaming a boot pack. The segments of the pack are fetched side by side, each
 * by one request. The first brings the table, by which the frames of all are
 * cut out as they arrive and offered to the store; until then the others keep
 * what they get. A reader who wants a block that is on its way waits for it,
 * unless its stream is slow.
 */
#include "image/prefetch.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "format/pack.h"

#define SEGMENTS_MAX 64
#define JOBS_BYTES_MAX (4 * MIB) /* frames that wait for a worker; beyond, the network's thread works itself */
#define BAD_FRAMES_MAX 4
#define PATIENCE_MS 10000
/* A stream that takes longer than this for a block that a reader waits for is slow, ... */
#define APART_MS 400
/* ... and so is one that takes so many times as long as it took to its first byte. */
#define APART_FACTOR 3
#define PENDING_MAX (16 * MIB) /* that a segment keeps while there is no table */

struct segment {
    struct prefetch *prefetch;
    uint64_t start, end;   /* in the pack */
    uint64_t received;     /* offset up to which bytes have come */
    uint64_t started_us, first_byte_us;
    struct buffer pending; /* bytes before RECEIVED that are not cut yet */
    bool ended;
    uint64_t awaited_us;   /* since when a reader waits for one of its blocks; 0: nobody does */
    uint32_t first, next, limit; /* entries of the table in this segment; those from NEXT on are not cut yet */
};

struct prefetch {
    struct store *store;
    struct store_stream stream;
    char path[ARCHIVE_PATH_MAX];
    struct digest name;
    uint64_t table_size, size;

    pthread_mutex_t lock; /* all below; before the store's, which is called under it only to expect */
    pthread_cond_t idle;
    struct pack_table table;
    bool has_table, stopping;
    unsigned under_way; /* streams and jobs */
    unsigned bad_frames;
    size_t jobs_bytes;
    bool *owed;          /* by entry: the store expects it */
    bool *awaited;       /* by entry: a reader waits for it, or did */
    uint32_t *by_digest; /* entries sorted by digest */
    size_t segment_count;
    struct segment segments[SEGMENTS_MAX];
};

/* A frame on its way to a worker. */
struct frame_job {
    struct job job; /* first */
    struct prefetch *prefetch;
    uint32_t entry;
    uint32_t size;
    uint8_t bytes[];
};

/* ---- Cutting frames out of streams ---- */

static void run_frame_job(struct job *job)
{
    struct frame_job *frame = (struct frame_job *)job;
    struct prefetch *prefetch = frame->prefetch;
    const struct pack_entry *entry = &prefetch->table.entries[frame->entry];
    struct error error;
    int result = store_offer(prefetch->store, &entry->digest, entry->block_length, frame->bytes, frame->size, &error);

    pthread_mutex_lock(&prefetch->lock);
    if (result == ERROR_CORRUPT && ++prefetch->bad_frames == BAD_FRAMES_MAX) {
        log_warning("%s: left alone after %d damaged frames: %s", prefetch->path, BAD_FRAMES_MAX, error.message);
        prefetch->stopping = true;
    }
    prefetch->jobs_bytes -= frame->size;
    if (--prefetch->under_way == 0)
        pthread_cond_broadcast(&prefetch->idle);
    pthread_mutex_unlock(&prefetch->lock);
    free(frame);
}

/* The frame of ENTRY is complete at BYTES: a job for it, linked before LIST. Under the lock. */
static struct job *cut_frame(struct prefetch *prefetch, uint32_t index, const uint8_t *bytes, struct job *list)
{
    const struct pack_entry *entry = &prefetch->table.entries[index];
    struct frame_job *frame = malloc(sizeof(*frame) + entry->frame_size);

    if (!frame)
        return list; /* the stream's end will tell the store */
    frame->job.run = run_frame_job;
    frame->job.next = list;
    frame->prefetch = prefetch;
    frame->entry = index;
    frame->size = entry->frame_size;
    memcpy(frame->bytes, bytes, entry->frame_size);
    prefetch->owed[index] = false;
    prefetch->jobs_bytes += entry->frame_size;
    prefetch->under_way++;
    return &frame->job;
}

/* Cut what has come of SEGMENT. Under the lock. */
static struct job *cut_segment(struct segment *segment, struct job *list)
{
    struct prefetch *prefetch = segment->prefetch;
    uint64_t first = segment->received - segment->pending.size, used = 0;

    for (; segment->next < segment->limit; segment->next++) {
        const struct pack_entry *entry = &prefetch->table.entries[segment->next];

        if (entry->offset + entry->frame_size > segment->received)
            break;
        if (prefetch->owed[segment->next])
            list = cut_frame(prefetch, segment->next, segment->pending.bytes + (entry->offset - first), list);
        used = entry->offset + entry->frame_size - first;
    }
    if (used > 0) {
        memmove(segment->pending.bytes, segment->pending.bytes + used, segment->pending.size - used);
        segment->pending.size -= used;
    }
    return list;
}

/* Hand jobs to the workers; when they are far behind, work here, which slows the streams down. */
static void submit(struct prefetch *prefetch, struct job *list)
{
    while (list) {
        struct job *next = list->next;
        bool crowded;

        pthread_mutex_lock(&prefetch->lock);
        crowded = prefetch->jobs_bytes > JOBS_BYTES_MAX;
        pthread_mutex_unlock(&prefetch->lock);
        if (crowded)
            list->run(list);
        else
            workers_submit(store_workers(prefetch->store), list, PRIORITY_PROFILE);
        list = next;
    }
}

/* ---- The table ---- */

static int compare_digests(const void *a, const void *b, void *user)
{
    const struct pack_table *table = user;

    return memcmp(table->entries[*(const uint32_t *)a].digest.bytes, table->entries[*(const uint32_t *)b].digest.bytes,
                  DIGEST_SIZE);
}

/* The first entry at or behind OFFSET. */
static uint32_t entry_at(const struct pack_table *table, uint64_t offset)
{
    uint32_t low = 0, high = table->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (table->entries[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Which entries does each segment bring whole? The store is told to expect those. Under the lock. */
static void expect_entries(struct prefetch *prefetch)
{
    const struct pack_table *table = &prefetch->table;

    for (size_t i = 0; i < prefetch->segment_count; i++) {
        struct segment *segment = &prefetch->segments[i];

        segment->first = segment->next = entry_at(table, segment->start);
        segment->limit = entry_at(table, segment->end);
        while (segment->limit > segment->next &&
               table->entries[segment->limit - 1].offset + table->entries[segment->limit - 1].frame_size >
                   segment->end)
            segment->limit--;
        for (uint32_t e = segment->next; e < segment->limit; e++)
            prefetch->owed[e] = store_expect(prefetch->store, &table->entries[e].digest,
                                             table->entries[e].block_length, &prefetch->stream);
    }
}

/* The table has come whole at the beginning of the first segment. Under the lock. False: it is no good. */
static bool adopt_table(struct prefetch *prefetch, const uint8_t *bytes)
{
    struct error error = ERROR_INIT;
    struct digest found;
    int result;

    digest_of(bytes, prefetch->table_size, &found);
    result = digest_equal(&found, &prefetch->name)
                 ? pack_parse_table(bytes, prefetch->table_size, &prefetch->table, &error)
                 : error_set(&error, ERROR_CORRUPT, "the table's digest is not the pack's name");
    if (!result && prefetch->table.file_size != prefetch->size)
        result = error_set(&error, ERROR_CORRUPT, "the hints are wrong about its size");
    if (!result) {
        prefetch->owed = calloc(prefetch->table.count, sizeof(*prefetch->owed));
        prefetch->awaited = calloc(prefetch->table.count, sizeof(*prefetch->awaited));
        prefetch->by_digest = calloc(prefetch->table.count, sizeof(*prefetch->by_digest));
        if (!prefetch->owed || !prefetch->awaited || !prefetch->by_digest)
            result = error_set(&error, ERROR_SYSTEM, "no memory for its table");
    }
    if (result) {
        log_warning("%s: not used: %s", prefetch->path, error.message);
        return false;
    }
    for (uint32_t i = 0; i < prefetch->table.count; i++)
        prefetch->by_digest[i] = i;
    qsort_r(prefetch->by_digest, prefetch->table.count, sizeof(*prefetch->by_digest), compare_digests,
            &prefetch->table);
    prefetch->has_table = true;
    expect_entries(prefetch);
    return true;
}

/* ---- Streams ---- */

/* Is anything still to come that somebody lacks? Under the lock. */
static bool is_worthwhile(const struct segment *segment)
{
    for (uint32_t e = segment->next; e < segment->limit; e++)
        if (segment->prefetch->owed[e])
            return true;
    return false;
}

/* Take in bytes. Under the lock. False: the stream is of no more use. */
static bool take(struct segment *segment, const uint8_t *bytes, size_t size, struct job **list)
{
    struct prefetch *prefetch = segment->prefetch;

    if (prefetch->stopping || (!prefetch->has_table && segment->pending.size + size > PENDING_MAX) ||
        !buffer_append(&segment->pending, bytes, size))
        return false;
    segment->received += size;
    if (!segment->first_byte_us)
        segment->first_byte_us = clock_us() - segment->started_us + 1;
    if (!prefetch->has_table) {
        if (segment != prefetch->segments || segment->received < prefetch->table_size)
            return true;
        if (!adopt_table(prefetch, segment->pending.bytes)) {
            prefetch->stopping = true;
            return false;
        }
        for (size_t i = 1; i < prefetch->segment_count; i++)
            *list = cut_segment(&prefetch->segments[i], *list);
    }
    *list = cut_segment(segment, *list);
    return is_worthwhile(segment);
}

/* What SEGMENT still owed - only what readers wait for, with AWAITED - will not come from it. Under the lock. */
static void forget(struct segment *segment, bool awaited)
{
    struct prefetch *prefetch = segment->prefetch;

    for (uint32_t e = segment->first; e < segment->limit; e++) {
        const struct pack_entry *entry = &prefetch->table.entries[e];

        if (!prefetch->owed[e] || (awaited && !prefetch->awaited[e]))
            continue;
        prefetch->owed[e] = false;
        pthread_mutex_unlock(&prefetch->lock); /* the store may call readers back */
        store_unexpect(prefetch->store, &entry->digest, entry->block_length);
        pthread_mutex_lock(&prefetch->lock);
    }
}

/* How long a reader waits for SEGMENT at most; a request of its own would take about as long as the first byte did. */
static uint64_t apart_us(const struct segment *segment)
{
    return max_u64(UINT64_C(1000) * APART_MS, APART_FACTOR * segment->first_byte_us);
}

/*
 * Let go of what cannot be hoped for: the rest of streams that have ended, and what readers have waited for too long.
 * Called as bytes come, from whatever stream, and at the end of each. Under the lock.
 */
static void review(struct prefetch *prefetch)
{
    for (size_t i = 0; i < prefetch->segment_count; i++) {
        struct segment *segment = &prefetch->segments[i];

        if (prefetch->has_table && segment->ended) {
            forget(segment, false);
            segment->first = segment->limit = segment->next;
        } else if (segment->awaited_us && clock_us() - segment->awaited_us > apart_us(segment)) {
            segment->awaited_us = 0;
            forget(segment, true);
        }
        if (segment->ended && (prefetch->has_table || prefetch->stopping))
            buffer_finish(&segment->pending);
    }
}

static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct segment *segment = user;
    struct prefetch *prefetch = segment->prefetch;
    struct job *list = NULL;
    bool more;

    pthread_mutex_lock(&prefetch->lock);
    more = take(segment, bytes, size, &list);
    pthread_mutex_unlock(&prefetch->lock);
    submit(prefetch, list);
    pthread_mutex_lock(&prefetch->lock);
    review(prefetch);
    pthread_mutex_unlock(&prefetch->lock);
    return more;
}

static void on_done(void *user, int code, const struct error *error)
{
    struct segment *segment = user;
    struct prefetch *prefetch = segment->prefetch;

    if (code && code != ERROR_CANCELLED)
        log_info("the boot pack is not used: %s", error->message);
    pthread_mutex_lock(&prefetch->lock);
    if (!prefetch->has_table && segment == prefetch->segments)
        prefetch->stopping = true; /* without it the other streams are of no use */
    segment->ended = true;
    review(prefetch);
    if (--prefetch->under_way == 0)
        pthread_cond_broadcast(&prefetch->idle);
    pthread_mutex_unlock(&prefetch->lock);
}

static void start_stream(struct segment *segment)
{
    struct prefetch *prefetch = segment->prefetch;
    const struct mirrors_request request = {
        .path = prefetch->path,
        .offset = segment->start,
        .length = segment->end - segment->start,
        .size_limit = segment->end - segment->start,
        .priority = PRIORITY_PROFILE,
        .patience_ms = PATIENCE_MS,
        .data = on_data,
        .done = on_done,
        .user = segment,
    };

    mirrors_fetch(store_mirrors(prefetch->store), &request);
}

/* ---- Readers who cannot wait ---- */

/* The segment that will bring ENTRY; NULL: none any more. Under the lock. */
static struct segment *segment_of(struct prefetch *prefetch, uint32_t entry)
{
    for (size_t i = 0; i < prefetch->segment_count; i++)
        if (entry >= prefetch->segments[i].next && entry < prefetch->segments[i].limit)
            return &prefetch->segments[i];
    return NULL;
}

/* Will a request of its own be sooner? Under the lock. */
static bool is_slow(const struct segment *segment, const struct pack_entry *entry)
{
    uint64_t elapsed_us = clock_us() - segment->started_us, flowing_us, missing, eta_us;
    uint64_t got = segment->received - segment->start;

    if (!got || !segment->first_byte_us)
        return elapsed_us > UINT64_C(1000) * APART_FACTOR * APART_MS;
    flowing_us = elapsed_us - min_u64(elapsed_us, segment->first_byte_us) + 1000;
    missing = entry->offset + entry->frame_size - segment->received;
    eta_us = (uint64_t)((double)missing * (double)flowing_us / (double)got);
    return eta_us > apart_us(segment);
}

static bool wanted(void *user, const struct digest *digest)
{
    struct prefetch *prefetch = user;
    const struct pack_entry *entry = NULL;
    struct segment *segment = NULL;
    uint32_t low = 0, high;
    bool slow;

    pthread_mutex_lock(&prefetch->lock);
    for (high = prefetch->table.count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        int order = memcmp(digest->bytes, prefetch->table.entries[prefetch->by_digest[middle]].digest.bytes,
                           DIGEST_SIZE);

        if (order == 0) {
            entry = &prefetch->table.entries[prefetch->by_digest[middle]];
            segment = segment_of(prefetch, prefetch->by_digest[middle]);
            break;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    slow = segment && is_slow(segment, entry);
    if (segment && !slow) {
        prefetch->awaited[entry - prefetch->table.entries] = true;
        if (!segment->awaited_us)
            segment->awaited_us = clock_us();
    }
    pthread_mutex_unlock(&prefetch->lock);
    return slow;
}

/* ---- For all threads ---- */

static const struct hints_pack *boot_pack(const struct hints *hints)
{
    for (size_t i = 0; i < hints->pack_count; i++)
        if (hints->packs[i].boot && hints->packs[i].size <= PREFETCH_PACK_MAX)
            return &hints->packs[i];
    return NULL;
}

static void plan_segments(struct prefetch *prefetch, const struct hints_pack *pack)
{
    uint64_t start = 0;

    for (size_t i = 0; i <= pack->segment_count && prefetch->segment_count < SEGMENTS_MAX; i++) {
        bool last = i == pack->segment_count || prefetch->segment_count == SEGMENTS_MAX - 1;
        uint64_t end = last ? pack->size : pack->segments[i];

        prefetch->segments[prefetch->segment_count++] =
            (struct segment){.prefetch = prefetch, .start = start, .received = start, .end = end,
                             .started_us = clock_us()};
        start = end;
        if (last)
            break;
    }
}

struct prefetch *prefetch_pack(struct store *store, const struct hints *hints)
{
    const struct hints_pack *pack = boot_pack(hints);
    struct prefetch *prefetch = pack && store_mirrors(store) ? calloc(1, sizeof(*prefetch)) : NULL;

    if (!prefetch)
        return NULL;
    prefetch->store = store;
    prefetch->stream = (struct store_stream){wanted, prefetch};
    prefetch->name = pack->table;
    prefetch->size = pack->size;
    prefetch->table_size = pack->table_size;
    archive_path_pack(&pack->table, prefetch->path);
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->idle, NULL);
    plan_segments(prefetch, pack);
    prefetch->under_way = (unsigned)prefetch->segment_count;
    for (size_t i = 0; i < prefetch->segment_count; i++)
        start_stream(&prefetch->segments[i]);
    return prefetch;
}

void prefetch_destroy(struct prefetch *prefetch)
{
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->lock);
    prefetch->stopping = true;
    while (prefetch->under_way)
        pthread_cond_wait(&prefetch->idle, &prefetch->lock);
    pthread_mutex_unlock(&prefetch->lock);
    pthread_cond_destroy(&prefetch->idle);
    pthread_mutex_destroy(&prefetch->lock);
    for (size_t i = 0; i < prefetch->segment_count; i++)
        buffer_finish(&prefetch->segments[i].pending);
    pack_table_finish(&prefetch->table);
    free(prefetch->owed);
    free(prefetch->awaited);
    free(prefetch->by_digest);
    free(prefetch);
}
