/*
 * A stream of part of a pack, one request: frames are taken out of it as they
 * come, and handed to workers in batches. What it does not bring after all is
 * not expected any more, and then others ask for it.
 */
#include <stdlib.h>

#include "base/log.h"
#include "image/sweep_parts.h"

#define PATIENCE_MS 5000
#define BATCH_BYTES (256 * KIB) /* frames that go to a worker together */
#define BATCH_FRAMES 64
#define BATCHES_BYTES_MAX (4 * MIB) /* that wait for a worker; beyond, the streams rest */
#define FAULTS_MAX 3 /* damaged frames of a pack, or times that no mirror answered; then it is left alone */

struct frame {
    struct digest digest;
    uint64_t offset; /* in the pack */
    uint32_t size;
    uint32_t block_length;
};

/* A stream of part of a pack, and what came of it. Outlives it until the last batch is dealt with. */
struct run {
    LIST_ENTRY(run) entry; /* of the sweep's; under its lock */
    struct sweep *sweep;
    char path[ARCHIVE_PATH_MAX];
    size_t pack;
    unsigned faults_before; /* of the pack, when it began */
    struct store_stream stream;
    unsigned references; /* the stream's, its batches' and the list's; under the sweep's lock */
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

/* COUNT faults of the pack of RUN. Under the lock. True if it is left alone from now on. */
static bool add_faults(const struct run *run, unsigned count)
{
    unsigned *faults = &run->sweep->faults[run->pack], before = *faults;

    *faults += count;
    return before < FAULTS_MAX && *faults >= FAULTS_MAX;
}

/* A frame of RUN is damaged. True as above. */
static bool note_damage(struct run *run)
{
    bool enough;

    pthread_mutex_lock(&run->sweep->lock);
    enough = add_faults(run, 1);
    pthread_mutex_unlock(&run->sweep->lock);
    return enough;
}

/* The stream of RUN has failed. No answer for some seconds, which ends all streams of a pack at once, is one fault. */
static bool note_failure(struct run *run, int code)
{
    struct sweep *sweep = run->sweep;
    bool outage = code == ERROR_UNAVAILABLE, enough;

    pthread_mutex_lock(&sweep->lock);
    enough = !(outage && sweep->faults[run->pack] > run->faults_before) && add_faults(run, outage ? 1 : FAULTS_MAX);
    pthread_mutex_unlock(&sweep->lock);
    return enough;
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

        if (result == ERROR_CORRUPT && !blamed && note_damage(run))
            log_info("%s: left alone after %d faults: %s", run->path, FAULTS_MAX, error.message);
    }
    free(batch);
    run_release(run, size);
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
        free(batch);
    else if (crowded && mirrors_is_local(store_mirrors(sweep->settings.store), run->mirror))
        run_batch(&batch->job); /* a folder's bytes do not rest */
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

/* Is there no use in going on? Under the lock. */
static bool is_over(const struct run *run)
{
    return run->sweep->abandoned || run->sweep->faults[run->pack] >= FAULTS_MAX;
}

static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct run *run = user;
    bool over;

    pthread_mutex_lock(&run->sweep->lock);
    over = is_over(run);
    pthread_mutex_unlock(&run->sweep->lock);
    if (over)
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

static bool on_ready(void *user)
{
    struct run *run = user;
    bool ready;

    pthread_mutex_lock(&run->sweep->lock);
    ready = run->sweep->batch_bytes <= BATCHES_BYTES_MAX || is_over(run);
    pthread_mutex_unlock(&run->sweep->lock);
    return ready;
}

static void on_done(void *user, int code, const struct error *error)
{
    struct run *run = user;
    struct sweep *sweep = run->sweep;
    bool ours;

    submit(run);
    if (code && code != ERROR_CANCELLED && note_failure(run, code))
        log_info("%s: left alone: %s", run->path, error->message);
    pthread_mutex_lock(&sweep->lock);
    ours = !sweep->abandoned; /* else sweep_call_off does it */
    if (ours)
        LIST_REMOVE(run, entry);
    pthread_mutex_unlock(&sweep->lock);
    for (uint32_t i = run->next; ours && i < run->count; i++)
        store_unexpect(sweep->settings.store, &run->frames[i].digest, run->frames[i].block_length);
    if (ours)
        run_release(run, 0);
    pthread_mutex_lock(&sweep->lock);
    sweep->streams--;
    pthread_cond_signal(&sweep->changed);
    pthread_mutex_unlock(&sweep->lock);
    run_release(run, 0);
}

/* ---- Beginning and end ---- */

bool sweep_leaves_alone(struct sweep *sweep, size_t pack)
{
    bool bad;

    pthread_mutex_lock(&sweep->lock);
    bad = sweep->faults[pack] >= FAULTS_MAX;
    pthread_mutex_unlock(&sweep->lock);
    return bad;
}

static bool fetch_apart(void *user, const struct digest *digest)
{
    (void)user;
    (void)digest;
    return true;
}

struct run *run_begin(struct sweep *sweep, size_t pack, uint32_t most)
{
    struct run *run = calloc(1, sizeof(*run) + most * sizeof(run->frames[0]));

    if (!run)
        return NULL;
    run->sweep = sweep;
    run->pack = pack;
    run->stream.priority = PRIORITY_FILL;
    run->stream.wanted = sweep->settings.readers_first ? fetch_apart : NULL;
    run->references = 2;
    memcpy(run->path, sweep->settings.packs[pack].path, sizeof(run->path));
    pthread_mutex_lock(&sweep->lock);
    sweep->runs++;
    sweep->streams++;
    LIST_INSERT_HEAD(&sweep->expecting, run, entry);
    run->faults_before = sweep->faults[pack];
    pthread_mutex_unlock(&sweep->lock);
    return run;
}

void run_expect(struct run *run, const struct pack_entry *entry)
{
    if (store_expect(run->sweep->settings.store, &entry->digest, entry->block_length, &run->stream))
        run->frames[run->count++] =
            (struct frame){entry->digest, entry->offset, entry->frame_size, entry->block_length};
}

void run_end(struct run *run)
{
    on_done(run, 0, NULL);
}

void run_start(struct run *run)
{
    const struct frame *first = run->frames, *last;
    uint64_t length;

    if (!run->count) {
        run_end(run);
        return;
    }
    last = &run->frames[run->count - 1];
    length = last->offset + last->size - first->offset;
    run->at = first->offset;
    mirrors_fetch(store_mirrors(run->sweep->settings.store), &(struct mirrors_request){
        .path = run->path,
        .offset = run->at,
        .length = length,
        .size_limit = length,
        .range_only = true,
        .priority = PRIORITY_FILL,
        .patience_ms = PATIENCE_MS,
        .data = on_data,
        .ready = on_ready,
        .mirror_out = &run->mirror,
        .done = on_done,
        .user = run,
    });
}

void sweep_call_off(struct sweep *sweep)
{
    struct run *run;

    do {
        pthread_mutex_lock(&sweep->lock);
        run = LIST_FIRST(&sweep->expecting);
        if (run)
            LIST_REMOVE(run, entry);
        pthread_mutex_unlock(&sweep->lock);
        for (uint32_t i = 0; run && i < run->count; i++) /* nothing happens to those that have come */
            store_call_off(sweep->settings.store, &run->frames[i].digest, run->frames[i].block_length);
        if (run)
            run_release(run, 0);
    } while (run);
}
