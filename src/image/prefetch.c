/*
 * Streaming a boot pack. The segments of the pack are fetched side by side, each
 * by one request. The first brings the table, by which the frames of all are
 * cut out as they arrive and offered to the store; until then the others keep
 * what they get. A reader who wants a block that is on its way waits for it,
 * unless its stream is slow.
 */
#include "image/prefetch.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/log.h"
#include "format/pack.h"
#include "image/prefetch_parts.h"
#include "image/packs.h"

#define JOBS_BYTES_MAX (4 * MIB) /* frames that wait for a worker; beyond, the streams rest */
#define BAD_FRAMES_MAX 4
#define PATIENCE_MS 10000
/*
 * A stream that takes longer than this for a block that a reader waits for is slow. Who boots wants all of a boot pack,
 * and what he has fetched apart comes twice and delays the rest.
 */
#define APART_BOOT_MS 1000
#define APART_MS 200
/* But not if it took so long to its first byte that a request of its own would hardly be sooner. */
#define APART_FACTOR 4
#define REVIEW_MS 100
#define TABLE_MS 10000 /* streams rest for so long until the table comes; it may be waiting for one of their places */
#define RATE_US 100000 /* a stream's rate is measured over so long */
/* What a segment keeps while there is no table: then it rests; or, if it does not, is given up. */
#define PENDING_ENOUGH (4 * MIB)
#define PENDING_MAX (16 * MIB)

/* A frame on its way to a worker. */
struct frame_job {
    struct job job; /* first */
    struct prefetch *prefetch;
    uint32_t entry;
    uint32_t size;
    unsigned mirror; /* that it came from; or MIRROR_SEVERAL */
    uint8_t bytes[];
};

/* ---- Cutting frames out of streams ---- */

static void run_frame_job(struct job *job)
{
    struct frame_job *frame = (struct frame_job *)job;
    struct prefetch *prefetch = frame->prefetch;
    const struct pack_entry *entry = &prefetch->table.entries[frame->entry];
    struct error error;
    const struct store_frame bytes = {frame->bytes, frame->size, frame->mirror, prefetch->path};
    bool blamed;
    int result = store_offer(prefetch->store, &entry->digest, entry->block_length, &bytes, &blamed, &error);

    pthread_mutex_lock(&prefetch->lock);
    prefetch->lacking |= result != 0;
    if (result == ERROR_CORRUPT && !blamed && ++prefetch->bad_frames == BAD_FRAMES_MAX) {
        log_info("%s: left alone after %d damaged frames: %s", prefetch->path, BAD_FRAMES_MAX, error.message);
        prefetch->stopping = true;
    }
    prefetch->jobs_bytes -= frame->size;
    if (--prefetch->under_way == 0)
        pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->lock);
    free(frame);
}

/* The frame of ENTRY is complete at BYTES: a job for it, linked before LIST. Under the lock. */
static struct job *cut_frame(struct segment *segment, uint32_t index, const uint8_t *bytes, struct job *list)
{
    struct prefetch *prefetch = segment->prefetch;
    const struct pack_entry *entry = &prefetch->table.entries[index];
    struct frame_job *frame = malloc(sizeof(*frame) + entry->frame_size);

    if (!frame)
        return list; /* the stream's end will tell the store */
    frame->job.run = run_frame_job;
    frame->job.next = list;
    frame->prefetch = prefetch;
    frame->entry = index;
    frame->size = entry->frame_size;
    frame->mirror = entry->offset >= segment->mirror_from ? segment->last_mirror : MIRROR_SEVERAL;
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
            list = cut_frame(segment, segment->next, segment->pending.bytes + (entry->offset - first), list);
        used = entry->offset + entry->frame_size - first;
    }
    if (used > 0) {
        memmove(segment->pending.bytes, segment->pending.bytes + used, segment->pending.size - used);
        segment->pending.size -= used;
    }
    return list;
}

/* Hand jobs to the workers. When they are far behind, a folder's bytes, which do not rest, are worked on here. */
static void submit(struct prefetch *prefetch, struct job *list, unsigned mirror)
{
    bool local = list && mirrors_is_local(store_mirrors(prefetch->store), mirror);

    while (list) {
        struct job *next = list->next;
        bool crowded;

        pthread_mutex_lock(&prefetch->lock);
        crowded = local && prefetch->jobs_bytes > JOBS_BYTES_MAX;
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

/* Which entries does each segment bring whole? The store is told to expect those. Under the lock. */
static void expect_entries(struct prefetch *prefetch)
{
    const struct pack_table *table = &prefetch->table;

    for (size_t i = 0; i < prefetch->segment_count; i++) {
        struct segment *segment = &prefetch->segments[i];

        segment->first = segment->next = prefetch_entry_at(table, segment->start);
        segment->limit = prefetch_entry_at(table, segment->end);
        while (segment->limit > segment->next &&
               table->entries[segment->limit - 1].offset + table->entries[segment->limit - 1].frame_size >
                   segment->end)
            segment->limit--;
        for (uint32_t e = segment->next; e < segment->limit; e++)
            prefetch->owed[e] = store_expect(prefetch->store, &table->entries[e].digest,
                                             table->entries[e].block_length, &prefetch->stream);
    }
}

/* The table is there, parsed: make what goes with it. Under the lock. */
static int prepare(struct prefetch *prefetch, struct error *error)
{
    const struct pack_table *table = &prefetch->table;

    if (table->file_size != prefetch->size)
        return error_set(error, ERROR_CORRUPT, "the hints are wrong about its size");
    prefetch->owed = calloc(table->count, sizeof(*prefetch->owed));
    prefetch->awaited_us = calloc(table->count, sizeof(*prefetch->awaited_us));
    prefetch->by_digest = calloc(table->count, sizeof(*prefetch->by_digest));
    if (!prefetch->owed || !prefetch->awaited_us || !prefetch->by_digest)
        return error_set(error, ERROR_SYSTEM, "no memory for its table");
    for (uint32_t i = 0; i < table->count; i++)
        prefetch->by_digest[i] = i;
    qsort_r(prefetch->by_digest, table->count, sizeof(*prefetch->by_digest), compare_digests, &prefetch->table);
    prefetch->has_table = true;
    return 0;
}

/* The table has come whole at the beginning of the first segment. Under the lock. False: it is no good. */
static bool adopt_table(struct prefetch *prefetch, const uint8_t *bytes)
{
    struct cache *cache = store_cache(prefetch->store);
    struct error error = ERROR_INIT;
    int result = pack_parse_table_of(&prefetch->name, bytes, prefetch->table_size, &prefetch->table, &error);

    if (!result)
        result = prepare(prefetch, &error);
    if (result) {
        log_warning("%s: not used: %s", prefetch->path, error.message);
        return false;
    }
    if (cache)
        cache_write_file(cache, &prefetch->name, bytes, prefetch->table_size);
    expect_entries(prefetch);
    pthread_cond_broadcast(&prefetch->changed);
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

/* Bytes have come. Under the lock. */
static void measure_rate(struct segment *segment)
{
    uint64_t now_us = clock_us(), elapsed_us = now_us - segment->rate_from_us;
    double rate;

    if (!segment->first_byte_us) {
        segment->first_byte_us = now_us - segment->started_us + 1;
    } else if (elapsed_us < RATE_US) {
        return;
    } else {
        rate = (double)(segment->received - segment->rate_from) / (double)elapsed_us;
        segment->rate = segment->rate > 0 ? (segment->rate + rate) / 2 : rate;
    }
    segment->rate_from = segment->received;
    segment->rate_from_us = now_us;
}

/* Take in bytes. Under the lock. False: the stream is of no more use. */
static bool take(struct segment *segment, const uint8_t *bytes, size_t size, struct job **list)
{
    struct prefetch *prefetch = segment->prefetch;

    if (prefetch->stopping || (!prefetch->has_table && segment->pending.size + size > PENDING_MAX) ||
        !buffer_append(&segment->pending, bytes, size))
        return false;
    if (segment->mirror != segment->last_mirror) {
        segment->last_mirror = segment->mirror;
        segment->mirror_from = segment->received;
    }
    segment->received += size;
    measure_rate(segment);
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
    /* The connection of one that comes to its end can be used again. */
    return segment->received >= segment->asked_end || is_worthwhile(segment);
}

/* How long a reader waits for SEGMENT at most; a request of its own would take about as long as the first byte did. */
static uint64_t apart_us(const struct segment *segment)
{
    return max_u64(segment->prefetch->apart_us, APART_FACTOR * segment->first_byte_us);
}

/*
 * What SEGMENT still owed - only what readers have waited for too long, with AWAITED - will not come from it. Under the
 * lock.
 */
static void forget(struct segment *segment, bool awaited)
{
    struct prefetch *prefetch = segment->prefetch;

    for (uint32_t e = segment->first; e < segment->limit; e++) {
        const struct pack_entry *entry = &prefetch->table.entries[e];

        if (!prefetch->owed[e] || (awaited && (!prefetch->awaited_us[e] ||
                                               clock_us() - prefetch->awaited_us[e] < apart_us(segment))))
            continue;
        prefetch->owed[e] = false;
        prefetch->lacking |= !awaited;
        pthread_mutex_unlock(&prefetch->lock); /* the store may call readers back */
        store_unexpect(prefetch->store, &entry->digest, entry->block_length);
        pthread_mutex_lock(&prefetch->lock);
    }
}

/*
 * Let go of what cannot be hoped for: the rest of streams that have ended, and, with AWAITED, what readers have waited
 * for too long. Under the lock.
 */
static void review(struct prefetch *prefetch, bool awaited)
{
    for (size_t i = 0; i < prefetch->segment_count; i++) {
        struct segment *segment = &prefetch->segments[i];

        if (prefetch->has_table && segment->ended) {
            forget(segment, false);
            segment->first = segment->limit = segment->next;
        } else if (prefetch->has_table && awaited) {
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
    submit(prefetch, list, segment->mirror);
    return more;
}

/* Need SEGMENT not wait for the table? Under the lock. */
static bool can_go_on(const struct segment *segment)
{
    return segment->prefetch->has_table || segment == segment->prefetch->segments ||
           segment->pending.size < PENDING_ENOUGH ||
           clock_us() - segment->started_us > UINT64_C(1000) * TABLE_MS;
}

static bool on_ready(void *user)
{
    struct segment *segment = user;
    struct prefetch *prefetch = segment->prefetch;
    bool ready;

    pthread_mutex_lock(&prefetch->lock);
    ready = prefetch->stopping || (prefetch->jobs_bytes <= JOBS_BYTES_MAX && can_go_on(segment));
    pthread_mutex_unlock(&prefetch->lock);
    return ready;
}

static void start_stream(struct segment *segment);

static void on_done(void *user, int code, const struct error *error)
{
    struct segment *segment = user, *more = NULL;
    struct prefetch *prefetch = segment->prefetch;

    if (code && code != ERROR_CANCELLED)
        log_info("%s: a stream of it has ended: %s", prefetch->path, error->message);
    pthread_mutex_lock(&prefetch->lock);
    if (!prefetch->has_table && segment == prefetch->segments)
        prefetch->stopping = true; /* without it the other streams are of no use */
    if (prefetch->stopping)
        pthread_cond_broadcast(&prefetch->changed);
    segment->ended = true;
    more = prefetch_share(segment);
    review(prefetch, false);
    if (--prefetch->under_way == 0)
        pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->lock);
    if (more)
        start_stream(more);
}

static void start_stream(struct segment *segment)
{
    struct prefetch *prefetch = segment->prefetch;
    const struct mirrors_request request = {
        .path = prefetch->path,
        .offset = segment->start,
        .length = segment->end - segment->start,
        .size_limit = segment->end - segment->start,
        .priority = prefetch->priority,
        .patience_ms = PATIENCE_MS,
        .shared = true,
        .data = on_data,
        .ready = on_ready,
        .mirror_out = &segment->mirror,
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
    uint64_t missing = entry->offset + entry->frame_size - segment->received;

    return segment->rate > 0 && (double)missing / segment->rate > (double)apart_us(segment);
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
    slow = segment && (prefetch->stopping || is_slow(segment, entry));
    if (segment && !slow)
        prefetch->awaited_us[entry - prefetch->table.entries] = clock_us();
    pthread_mutex_unlock(&prefetch->lock);
    return slow;
}

/* ---- For all threads ---- */

/* Divide the pack into streams. Under the lock. */
static void plan(struct prefetch *prefetch, const struct hints_pack *pack)
{
    struct pack_range ranges[PREFETCH_RANGES_MAX];
    struct error error = ERROR_INIT;
    bool known = pack_table_kept(store_cache(prefetch->store), &pack->table, pack->table_size, &prefetch->table);

    if (known && prepare(prefetch, &error)) {
        log_info("%s: not used: %s", prefetch->path, error.message);
        prefetch->stopping = true;
        return;
    }
    prefetch->segment_count = prefetch_plan(pack, known ? &prefetch->table : NULL, prefetch->store, ranges);
    for (size_t i = 0; i < prefetch->segment_count; i++)
        prefetch->segments[i] = (struct segment){.prefetch = prefetch,
                                                 .start = ranges[i].start,
                                                 .received = ranges[i].start,
                                                 .end = ranges[i].end,
                                                 .asked_end = ranges[i].end,
                                                 .started_us = clock_us()};
    if (known)
        expect_entries(prefetch);
}

struct prefetch *prefetch_pack(struct store *store, const struct hints_pack *pack)
{
    bool usable = pack->size <= PREFETCH_PACK_MAX && store_mirrors(store);
    struct prefetch *prefetch = usable ? calloc(1, sizeof(*prefetch)) : NULL;
    size_t count;

    if (!prefetch)
        return NULL;
    prefetch->store = store;
    prefetch->name = pack->table;
    prefetch->size = pack->size;
    prefetch->apart_us = UINT64_C(1000) * (pack->boot ? APART_BOOT_MS : APART_MS);
    prefetch->priority = pack->boot ? PRIORITY_PROFILE : PRIORITY_FILL;
    prefetch->stream = (struct store_stream){.wanted = wanted, .user = prefetch, .priority = prefetch->priority};
    prefetch->table_size = pack->table_size;
    archive_path_pack(&pack->table, prefetch->path);
    pthread_mutex_init(&prefetch->lock, NULL);
    condition_init(&prefetch->changed);
    pthread_mutex_lock(&prefetch->lock);
    plan(prefetch, pack);
    count = prefetch->segment_count; /* there may be more as soon as they have begun */
    prefetch->under_way = (unsigned)count;
    pthread_mutex_unlock(&prefetch->lock);
    for (size_t i = 0; i < count; i++)
        start_stream(&prefetch->segments[i]);
    return prefetch;
}

void prefetch_wait_table(struct prefetch *prefetch, uint64_t until_us)
{
    bool in_time = true;

    pthread_mutex_lock(&prefetch->lock);
    while (!prefetch->has_table && !prefetch->stopping && prefetch->under_way && in_time)
        in_time = condition_wait_us(&prefetch->changed, &prefetch->lock, until_us);
    pthread_mutex_unlock(&prefetch->lock);
}

/* It is over: nobody is to wait for what streams still owe. Under the lock. */
static void let_go(struct prefetch *prefetch)
{
    for (size_t i = 0; i < prefetch->segment_count && prefetch->has_table; i++)
        forget(&prefetch->segments[i], false);
}

bool prefetch_wait(struct prefetch *prefetch)
{
    bool complete;

    pthread_mutex_lock(&prefetch->lock);
    while (prefetch->under_way && !prefetch->stopping)
        if (!condition_wait_ms(&prefetch->changed, &prefetch->lock, clock_ms() + REVIEW_MS))
            review(prefetch, true);
    if (prefetch->stopping)
        let_go(prefetch);
    complete = prefetch->has_table && !prefetch->stopping && !prefetch->lacking;
    pthread_mutex_unlock(&prefetch->lock);
    return complete;
}

void prefetch_stop(struct prefetch *prefetch)
{
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->lock);
    prefetch->stopping = true;
    pthread_cond_broadcast(&prefetch->changed);
    let_go(prefetch);
    pthread_mutex_unlock(&prefetch->lock);
}

void prefetch_destroy(struct prefetch *prefetch)
{
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->lock);
    prefetch->stopping = true;
    while (prefetch->under_way)
        pthread_cond_wait(&prefetch->changed, &prefetch->lock);
    pthread_mutex_unlock(&prefetch->lock);
    pthread_cond_destroy(&prefetch->changed);
    pthread_mutex_destroy(&prefetch->lock);
    for (size_t i = 0; i < prefetch->segment_count; i++)
        buffer_finish(&prefetch->segments[i].pending);
    pack_table_finish(&prefetch->table);
    free(prefetch->owed);
    free(prefetch->awaited_us);
    free(prefetch->by_digest);
    free(prefetch);
}
