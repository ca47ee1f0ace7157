/*
 * A sweep out of packs: what is wanted is divided into runs, each one request
 * that brings many frames; some are under way at a time. What no pack holds,
 * and what a stream does not bring, is fetched block by block.
 */
#include <stdlib.h>

#include "base/log.h"
#include "format/frame.h"
#include "image/sweep_parts.h"

#define STREAMS 6 /* as a boot pack has: enough that slow start takes few round trips */
#define PATIENCE_MS 10000
#define BATCH_BYTES (256 * KIB) /* frames that go to a worker together */
#define BATCH_FRAMES 64
#define BATCHES_BYTES_MAX (4 * MIB) /* that wait for a worker; beyond, the network's thread works itself */
#define FAULTS_MAX 3 /* streams of a pack that fail, or damaged frames; then it is left alone */

struct frame {
    struct digest digest;
    uint64_t offset; /* in the pack */
    uint32_t size;
    uint32_t block_length;
};

/* A stream of part of a pack, and what came of it. Outlives it until the last batch is dealt with. */
struct run {
    struct sweep *sweep;
    char path[ARCHIVE_PATH_MAX];
    size_t pack;
    struct store_stream stream;
    unsigned references; /* the stream's and its batches'; under the sweep's lock */
    unsigned mirror;     /* that the bytes come from; written by the mirrors */
    uint64_t at;         /* offset in the pack of the next byte */
    uint32_t next;       /* frame that is not complete yet; from it on the store expects them of the stream */
    uint32_t count;
    struct batch *batch; /* being filled */
    struct frame frames[];
};

/* Frames in a row, as they came. */
struct batch {
    struct job job; /* first */
    struct run *run;
    uint32_t count; /* items that are complete */
    size_t size, capacity;
    struct {
        uint32_t frame;
        uint32_t offset;
        unsigned mirror; /* or MIRROR_SEVERAL */
    } items[BATCH_FRAMES];
    uint8_t bytes[];
};

/* ---- What has come ---- */

static void run_release(struct run *run, size_t batch_bytes)
{
    struct sweep *sweep = run->sweep;
    bool gone, last;

    pthread_mutex_lock(&sweep->lock);
    sweep->batch_bytes -= batch_bytes;
    if (sweep->batch_bytes == 0 && sweep->abandoned)
        pthread_cond_signal(&sweep->changed);
    gone = --run->references == 0;
    sweep->runs -= gone;
    last = gone && sweep->returned && sweep->under_way == 0 && sweep->runs == 0;
    pthread_mutex_unlock(&sweep->lock);
    if (gone)
        free(run);
    if (last)
        sweep_destroy(sweep);
}

/* A fault of the pack of RUN. True if it is the one too many. */
static bool note_fault(struct run *run)
{
    struct sweep *sweep = run->sweep;
    bool enough;

    pthread_mutex_lock(&sweep->lock);
    enough = ++sweep->faults[run->pack] == FAULTS_MAX;
    pthread_mutex_unlock(&sweep->lock);
    return enough;
}

static bool is_bad(struct sweep *sweep, size_t pack)
{
    bool bad;

    pthread_mutex_lock(&sweep->lock);
    bad = sweep->faults[pack] >= FAULTS_MAX;
    pthread_mutex_unlock(&sweep->lock);
    return bad;
}

static void run_batch(struct job *job)
{
    struct batch *batch = (struct batch *)job;
    struct run *run = batch->run;
    struct store *store = run->sweep->settings.store;
    size_t size = batch->size;

    for (uint32_t i = 0; i < batch->count; i++) {
        const struct frame *frame = &run->frames[batch->items[i].frame];
        const struct store_frame bytes = {batch->bytes + batch->items[i].offset, frame->size, batch->items[i].mirror,
                                          run->path};
        struct error error = ERROR_INIT;
        bool blamed;
        int result = store_offer(store, &frame->digest, frame->block_length, &bytes, &blamed, &error);

        if (result == ERROR_CORRUPT && !blamed && note_fault(run))
            log_warning("%s: left alone after %d faults: %s", run->path, FAULTS_MAX, error.message);
    }
    free(batch);
    run_release(run, size);
}

/* Nobody is interested any more. */
static void discard(struct batch *batch)
{
    struct run *run = batch->run;

    for (uint32_t i = 0; i < batch->count; i++) {
        const struct frame *frame = &run->frames[batch->items[i].frame];

        store_unexpect(run->sweep->settings.store, &frame->digest, frame->block_length);
    }
    free(batch);
}

/* Hand the frames that are complete to a worker. What came of an incomplete one is forgotten. */
static void submit(struct run *run)
{
    struct batch *batch = run->batch;
    struct sweep *sweep = run->sweep;
    bool crowded, abandoned;

    run->batch = NULL;
    if (!batch || !batch->count) {
        free(batch);
        return;
    }
    pthread_mutex_lock(&sweep->lock);
    abandoned = sweep->abandoned;
    crowded = sweep->batch_bytes > BATCHES_BYTES_MAX;
    if (!abandoned) {
        run->references++;
        sweep->batch_bytes += batch->size;
    }
    pthread_mutex_unlock(&sweep->lock);
    if (abandoned)
        discard(batch);
    else if (crowded)
        run_batch(&batch->job); /* slows the stream down */
    else
        workers_submit(store_workers(sweep->settings.store), &batch->job, PRIORITY_FILL);
}

/* Room for FRAME, of which nothing has come yet. */
static bool begin_frame(struct run *run, const struct frame *frame)
{
    struct batch *batch = run->batch;

    if (batch && (batch->count == BATCH_FRAMES || batch->size + frame->size > batch->capacity)) {
        submit(run);
        batch = NULL;
    }
    if (!batch) {
        size_t capacity = max_u64(BATCH_BYTES, frame->size);

        batch = malloc(sizeof(*batch) + capacity);
        if (!batch)
            return false;
        batch->job.run = run_batch;
        batch->run = run;
        batch->count = 0;
        batch->size = 0;
        batch->capacity = capacity;
        run->batch = batch;
    }
    batch->items[batch->count].frame = run->next;
    batch->items[batch->count].offset = (uint32_t)batch->size;
    batch->items[batch->count].mirror = run->mirror;
    return true;
}

/* Take in bytes of the next frame, or of the gap before it. Returns how many; 0: no memory. */
static size_t take(struct run *run, const uint8_t *bytes, size_t size)
{
    struct frame *frame = &run->frames[run->next];
    struct batch *batch;

    if (run->at < frame->offset)
        return min_u64(size, frame->offset - run->at);
    size = min_u64(size, frame->offset + frame->size - run->at);
    if (run->at == frame->offset && !begin_frame(run, frame))
        return 0;
    batch = run->batch;
    memcpy(batch->bytes + batch->size, bytes, size);
    batch->size += size;
    if (batch->items[batch->count].mirror != run->mirror)
        batch->items[batch->count].mirror = MIRROR_SEVERAL;
    if (run->at + size == frame->offset + frame->size) {
        batch->count++;
        run->next++;
    }
    return size;
}

static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct run *run = user;
    bool abandoned;

    pthread_mutex_lock(&run->sweep->lock);
    abandoned = run->sweep->abandoned;
    pthread_mutex_unlock(&run->sweep->lock);
    if (abandoned || is_bad(run->sweep, run->pack))
        return false;
    while (size && run->next < run->count) {
        size_t taken = take(run, bytes, size);

        if (!taken)
            return false;
        run->at += taken;
        bytes += taken;
        size -= taken;
    }
    return true;
}

static void on_done(void *user, int code, const struct error *error)
{
    struct run *run = user;
    struct sweep *sweep = run->sweep;

    submit(run);
    if (code && code != ERROR_CANCELLED && note_fault(run))
        log_info("%s: left alone: %s", run->path, error->message);
    for (uint32_t i = run->next; i < run->count; i++)
        store_unexpect(sweep->settings.store, &run->frames[i].digest, run->frames[i].block_length);
    pthread_mutex_lock(&sweep->lock);
    sweep->streams--;
    pthread_cond_signal(&sweep->changed);
    pthread_mutex_unlock(&sweep->lock);
    run_release(run, 0);
}

/* ---- Dividing ---- */

/* What is to be asked for, and how. */
struct division {
    struct sweep *sweep;
    struct wish *wishes; /* sorted by digest */
    size_t count;
    struct wish *apart;  /* those of no pack; room for all */
    size_t apart_count, apart_next;
    struct planned {
        size_t pack;
        struct pack_run run;
    } *runs;
    size_t run_count, run_next, run_capacity;
};

static int compare_wishes(const void *a, const void *b)
{
    const struct wish *first = a, *second = b;
    int order = memcmp(first->digest.bytes, second->digest.bytes, DIGEST_SIZE);

    return order ? order : (first->block > second->block) - (first->block < second->block);
}

static int compare_places(const void *a, const void *b)
{
    const struct wish *first = a, *second = b;

    return (first->block > second->block) - (first->block < second->block);
}

/* The first wish for DIGEST, behind which the others for it are; NULL: there is none. */
static struct wish *find_wish(const struct division *division, const struct digest *digest)
{
    return digest_search(division->wishes, division->count, sizeof(*division->wishes), digest);
}

static bool is_last_for_digest(const struct division *division, const struct wish *wish)
{
    return wish + 1 == division->wishes + division->count || !digest_equal(&wish[0].digest, &wish[1].digest);
}

static void claim(const struct division *division, struct wish *wish, bool claimed)
{
    while (wish->claimed = claimed, !is_last_for_digest(division, wish))
        wish++;
}

/* Is the block of ENTRY wanted, and not here? A table is not trusted: it may name any lengths. */
static bool is_wanted(const struct division *division, const struct pack_entry *entry)
{
    const struct wish *wish = find_wish(division, &entry->digest);

    return wish && !wish->claimed && wish->length == entry->block_length &&
           entry->frame_size <= frame_bound(entry->block_length) &&
           !store_has(division->sweep->settings.store, &entry->digest);
}

/* A run of a single block is not worth a stream. */
static void add_run(struct division *division, size_t pack, const struct pack_run *run)
{
    const struct pack_entry *first = &division->sweep->settings.packs[pack].table.entries[run->first];
    struct planned *runs = NULL;

    if (run->limit - run->first > 1)
        runs = array_grow(division->runs, division->run_count, &division->run_capacity, sizeof(*runs));
    if (runs) {
        division->runs = runs;
        runs[division->run_count++] = (struct planned){pack, *run};
        return;
    }
    for (uint32_t e = run->first; e < run->limit; e++, first++) {
        struct wish *wish = find_wish(division, &first->digest);

        if (wish)
            claim(division, wish, false);
    }
}

static void divide_pack(struct division *division, size_t pack)
{
    const struct pack_table *table = &division->sweep->settings.packs[pack].table;
    bool *wanted = calloc(table->count, sizeof(*wanted));
    struct pack_run *runs = NULL;
    size_t count;

    for (uint32_t e = 0; wanted && e < table->count; e++) {
        wanted[e] = is_wanted(division, &table->entries[e]);
        if (wanted[e])
            claim(division, find_wish(division, &table->entries[e].digest), true);
    }
    count = wanted ? pack_plan(table, wanted, &runs) : 0;
    for (size_t i = 0; i < count; i++)
        add_run(division, pack, &runs[i]);
    /* Without memory for a plan nothing is claimed. */
    for (uint32_t e = 0; wanted && !count && e < table->count; e++)
        if (wanted[e])
            claim(division, find_wish(division, &table->entries[e].digest), false);
    free(runs);
    free(wanted);
}

static void divide(struct division *division)
{
    qsort(division->wishes, division->count, sizeof(*division->wishes), compare_wishes);
    for (size_t i = 0; i < division->sweep->settings.pack_count; i++)
        if (!is_bad(division->sweep, i))
            divide_pack(division, i);
    for (size_t i = 0; i < division->count; i++)
        if (!division->wishes[i].claimed)
            division->apart[division->apart_count++] = division->wishes[i];
    qsort(division->apart, division->apart_count, sizeof(*division->apart), compare_places);
}

/* ---- Asking ---- */

/* Call VISIT for each wish that PLANNED is to bring. */
static int each_wish(struct division *division, const struct planned *planned,
                     int (*visit)(struct division *division, struct run *run, const struct pack_entry *entry,
                                  struct wish *wish),
                     struct run *run)
{
    const struct pack_table *table = &division->sweep->settings.packs[planned->pack].table;
    int result = 0;

    for (uint32_t e = planned->run.first; e < planned->run.limit && !result; e++) {
        struct wish *wish = find_wish(division, &table->entries[e].digest);

        if (wish && wish->claimed && wish->length == table->entries[e].block_length &&
            table->entries[e].frame_size <= frame_bound(wish->length))
            result = visit(division, run, &table->entries[e], wish);
    }
    return result;
}

/* The pack has turned out to be no good. */
static int set_apart(struct division *division, struct run *run, const struct pack_entry *entry, struct wish *wish)
{
    (void)run;
    (void)entry;
    claim(division, wish, false);
    for (division->apart[division->apart_count++] = *wish; !is_last_for_digest(division, wish);)
        division->apart[division->apart_count++] = *++wish;
    return 0;
}

/* Expect the block of the stream, and ask for it wherever it is wanted. */
static int expect(struct division *division, struct run *run, const struct pack_entry *entry, struct wish *wish)
{
    struct sweep *sweep = division->sweep;
    int result = 0;

    if (store_expect(sweep->settings.store, &entry->digest, entry->block_length, &run->stream))
        run->frames[run->count++] =
            (struct frame){entry->digest, entry->offset, entry->frame_size, entry->block_length};
    for (bool last = false; !last && !result; wish++) {
        last = is_last_for_digest(division, wish);
        wish->claimed = false; /* a second entry for it is of no use */
        result = sweep_ask(sweep, wish, true);
    }
    return result;
}

static void start_stream(struct run *run)
{
    const struct frame *last = &run->frames[run->count - 1];
    uint64_t start = run->frames[0].offset, length = last->offset + last->size - start;

    run->at = start;
    mirrors_fetch(store_mirrors(run->sweep->settings.store), &(struct mirrors_request){
        .path = run->path,
        .offset = start,
        .length = length,
        .size_limit = length,
        .range_only = true,
        .priority = PRIORITY_FILL,
        .patience_ms = PATIENCE_MS,
        .data = on_data,
        .mirror_out = &run->mirror,
        .done = on_done,
        .user = run,
    });
}

static bool fetch_apart(void *user, const struct digest *digest)
{
    (void)user;
    (void)digest;
    return true;
}

static int start_run(struct division *division, const struct planned *planned)
{
    struct sweep *sweep = division->sweep;
    uint32_t most = planned->run.limit - planned->run.first;
    struct run *run = NULL;
    int result;

    if (!is_bad(sweep, planned->pack))
        run = calloc(1, sizeof(*run) + most * sizeof(run->frames[0]));
    if (!run)
        return each_wish(division, planned, set_apart, NULL);
    run->sweep = sweep;
    run->pack = planned->pack;
    run->stream.bulk = true;
    run->stream.wanted = sweep->settings.readers_first ? fetch_apart : NULL;
    run->references = 1;
    memcpy(run->path, sweep->settings.packs[planned->pack].path, sizeof(run->path));
    pthread_mutex_lock(&sweep->lock);
    sweep->runs++;
    sweep->streams++;
    pthread_mutex_unlock(&sweep->lock);
    result = each_wish(division, planned, expect, run);
    if (run->count && !result)
        start_stream(run);
    else
        on_done(run, 0, NULL);
    return result;
}

static int ask_for_all(struct division *division)
{
    struct sweep *sweep = division->sweep;
    int result = 0;

    while (!result && (division->run_next < division->run_count || division->apart_next < division->apart_count)) {
        bool runs = division->run_next < division->run_count, apart = division->apart_next < division->apart_count;
        bool stream;

        result = sweep_wait(sweep, apart, runs ? STREAMS : 0);
        pthread_mutex_lock(&sweep->lock);
        stream = runs && sweep->streams < STREAMS;
        apart = apart && sweep->under_way - sweep->streamed < sweep->window;
        pthread_mutex_unlock(&sweep->lock);
        if (!result && stream)
            result = start_run(division, &division->runs[division->run_next++]);
        else if (!result && apart)
            result = sweep_ask(sweep, &division->apart[division->apart_next++], false);
    }
    return result;
}

int sweep_gather(struct sweep *sweep)
{
    struct division division = {.sweep = sweep, .wishes = sweep->wishes, .count = sweep->wish_count};
    int result;

    division.apart = calloc(division.count + 1, sizeof(*division.apart));
    if (!division.apart)
        return sweep_fail_for_memory(sweep);
    divide(&division);
    result = ask_for_all(&division);
    free(division.apart);
    free(division.runs);
    sweep->wish_count = 0;
    return result;
}
