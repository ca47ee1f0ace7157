/*
 * Ranges of packs: see ranges.h. A range is one request; its answer is cut into frames when it has come whole. A thread
 * looks after readers who wait for one that takes long: theirs are fetched apart.
 */
#include "image/ranges.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/log.h"
#include "format/frame.h"

#define RANGE_BYTES_MAX (512 * KIB)
#define PATIENCE_MS 5000
#define FAULTS_MAX 3  /* of a pack, damaged or not as its table says; then it is left alone */
#define REST_MS 30000 /* for so long no ranges are asked for after no mirror gave one */
/* So long a reader waits for a range at most: a server, or a proxy, may be slower with packs than with blocks. */
#define APART_MS 1000
#define APART_FACTOR 4 /* or so many times what is usual until the first byte */

/* Where a block lies. */
struct place {
    struct digest digest; /* first */
    uint32_t pack, entry;
};

struct range {
    TAILQ_ENTRY(range) entry; /* of those that are awaited */
    struct ranges *ranges;
    struct store_stream stream;
    uint32_t pack;
    uint64_t start, end;  /* bytes of it */
    enum priority priority;
    unsigned mirror;      /* that the bytes come from; written by the mirrors */
    uint32_t first, count; /* entries; changed under the lock of RANGES, not any more once it has begun */
    /* All below under that lock. */
    unsigned references;  /* the request's, its maker's, and the thread's */
    unsigned owed;        /* bits, by entry: the store expects them */
    unsigned awaited;     /* bits: readers wait for them, */
    uint64_t awaited_us;  /* since then; while it is in the list */
};

struct ranges {
    struct store *store;
    struct packs *packs;
    const struct pack *all; /* of PACKS */
    struct place *places;   /* sorted by digest */
    size_t place_count;
    atomic_uint references; /* the owner's, and one of each range under way */
    atomic_uint_fast64_t rest_until_ms;
    pthread_t thread;
    pthread_mutex_t lock; /* before that of the mirrors */
    pthread_cond_t changed;
    TAILQ_HEAD(, range) awaited; /* since when, rising */
    bool closing, asleep; /* the thread, until somebody waits */
    atomic_uint faults[]; /* by pack */
};

/* ---- Which lie where ---- */

static int compare_places(const void *a, const void *b)
{
    return memcmp(((const struct place *)a)->digest.bytes, ((const struct place *)b)->digest.bytes, DIGEST_SIZE);
}

static void *look_after(void *user);

static void ranges_free(struct ranges *ranges)
{
    packs_end(ranges->packs);
    free(ranges->places);
    pthread_cond_destroy(&ranges->changed);
    pthread_mutex_destroy(&ranges->lock);
    free(ranges);
}

struct ranges *ranges_create(struct store *store, struct packs *packs)
{
    const struct pack *all;
    size_t pack_count = packs_wait(packs, &all), count = 0;
    struct ranges *ranges = calloc(1, sizeof(*ranges) + pack_count * sizeof(ranges->faults[0]));

    if (!ranges) {
        packs_end(packs);
        return NULL;
    }
    ranges->store = store;
    ranges->packs = packs;
    ranges->all = all;
    atomic_init(&ranges->references, 1);
    pthread_mutex_init(&ranges->lock, NULL);
    condition_init(&ranges->changed);
    TAILQ_INIT(&ranges->awaited);
    for (size_t i = 0; i < pack_count; i++)
        count += all[i].table.count;
    if (count)
        ranges->places = malloc(count * sizeof(*ranges->places));
    if (!ranges->places) {
        ranges_free(ranges);
        return NULL;
    }
    for (uint32_t i = 0; i < pack_count; i++)
        for (uint32_t e = 0; e < all[i].table.count; e++)
            ranges->places[ranges->place_count++] = (struct place){all[i].table.entries[e].digest, i, e};
    qsort(ranges->places, count, sizeof(*ranges->places), compare_places);
    if (pthread_create(&ranges->thread, NULL, look_after, ranges)) {
        ranges_free(ranges);
        return NULL;
    }
    return ranges;
}

static void release(struct ranges *ranges)
{
    if (atomic_fetch_sub(&ranges->references, 1) == 1)
        ranges_free(ranges);
}

void ranges_close(struct ranges *ranges)
{
    if (!ranges)
        return;
    pthread_mutex_lock(&ranges->lock);
    ranges->closing = true;
    pthread_cond_signal(&ranges->changed);
    pthread_mutex_unlock(&ranges->lock);
    pthread_join(ranges->thread, NULL);
    release(ranges);
}

/* ---- One request ---- */

static void range_release(struct range *range)
{
    struct ranges *ranges = range->ranges;
    bool last;

    pthread_mutex_lock(&ranges->lock);
    last = --range->references == 0;
    pthread_mutex_unlock(&ranges->lock);
    if (!last)
        return;
    free(range);
    release(ranges);
}

static const struct pack_entry *entry_of(const struct range *range, uint32_t index)
{
    return &range->ranges->all[range->pack].table.entries[range->first + index];
}

static void note_fault(const struct range *range, const char *reason)
{
    const char *path = range->ranges->all[range->pack].path;

    if (atomic_fetch_add(&range->ranges->faults[range->pack], 1) + 1 == FAULTS_MAX)
        log_info("%s: left alone after %d faults: %s", path, FAULTS_MAX, reason);
}

/* Of BITS, those that the store expects there: the caller deals with them; nobody else does. */
static unsigned claim(struct range *range, unsigned bits)
{
    unsigned claimed;

    pthread_mutex_lock(&range->ranges->lock);
    claimed = range->owed & bits;
    range->owed &= ~bits;
    pthread_mutex_unlock(&range->ranges->lock);
    return claimed;
}

static int on_answer(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct range *range = user;

    (void)error; /* store_offer blames the mirror for what is wrong, frame by frame */
    for (uint32_t i = 0; i < range->count; i++) {
        const struct pack_entry *entry = entry_of(range, i);
        const struct store_frame frame = {bytes + (entry->offset - range->start), entry->frame_size, range->mirror,
                                          range->ranges->all[range->pack].path};
        struct error reason = ERROR_INIT;
        bool blamed;

        if (entry->offset + entry->frame_size - range->start > size || !claim(range, 1U << i))
            continue; /* the file is shorter than its table says; or it was fetched apart */
        if (store_offer(range->ranges->store, &entry->digest, entry->block_length, &frame, &blamed, &reason) ==
                ERROR_CORRUPT && !blamed)
            note_fault(range, reason.message);
    }
    return 0;
}

/* Nobody waits for it any more. Under the lock. */
static void leave_list(struct range *range)
{
    if (range->awaited)
        TAILQ_REMOVE(&range->ranges->awaited, range, entry);
    range->awaited = 0;
}

static void on_done(void *user, int code, const struct error *error)
{
    struct range *range = user;
    struct ranges *ranges = range->ranges;
    /* All at once: a reader who came for one that is still owed would put the range into the list again. */
    unsigned lacking = claim(range, ~0U);

    pthread_mutex_lock(&ranges->lock);
    leave_list(range);
    pthread_mutex_unlock(&ranges->lock);
    for (uint32_t i = 0; i < range->count; i++)
        if (lacking >> i & 1)
            store_unexpect(ranges->store, &entry_of(range, i)->digest, entry_of(range, i)->block_length);
    if (code == ERROR_UNAVAILABLE)
        atomic_store(&ranges->rest_until_ms, clock_ms() + REST_MS);
    else if (lacking && code != ERROR_CANCELLED)
        note_fault(range, code ? error->message : "the file is too short");
    range_release(range);
}

/* ---- Readers who wait ---- */

static void hurry(struct range *range)
{
    if (range->priority != PRIORITY_READER)
        mirrors_hurry(store_mirrors(range->ranges->store), range);
}

static bool on_wanted(void *user, const struct digest *digest)
{
    struct range *range = user;
    struct ranges *ranges = range->ranges;
    unsigned bit = 0;

    pthread_mutex_lock(&ranges->lock);
    for (uint32_t i = 0; i < range->count; i++)
        if (digest_equal(&entry_of(range, i)->digest, digest))
            bit = 1U << i;
    if (!range->awaited && range->owed & bit) {
        range->awaited_us = clock_us();
        TAILQ_INSERT_TAIL(&ranges->awaited, range, entry);
        if (ranges->asleep)
            pthread_cond_signal(&ranges->changed);
        ranges->asleep = false;
    }
    range->awaited |= range->owed & bit;
    pthread_mutex_unlock(&ranges->lock);
    hurry(range);
    return false;
}

/* Do without RANGE for what readers wait for. The lock is let go meanwhile. */
static void fetch_apart(struct ranges *ranges, struct range *range)
{
    unsigned bits = range->awaited & range->owed;

    leave_list(range);
    range->owed &= ~bits;
    range->references++;
    pthread_mutex_unlock(&ranges->lock);
    for (uint32_t i = 0; i < range->count; i++)
        if (bits >> i & 1)
            store_unexpect(ranges->store, &entry_of(range, i)->digest, entry_of(range, i)->block_length);
    range_release(range);
    pthread_mutex_lock(&ranges->lock);
}

static void *look_after(void *user)
{
    struct ranges *ranges = user;

    pthread_mutex_lock(&ranges->lock);
    while (!ranges->closing) {
        struct range *range = TAILQ_FIRST(&ranges->awaited);
        uint64_t most_us = max_u64(APART_MS * 1000, APART_FACTOR * mirrors_first_byte_us(store_mirrors(ranges->store)));
        uint64_t until_us = range ? range->awaited_us + most_us : 0;

        if (!range) {
            ranges->asleep = true;
            pthread_cond_wait(&ranges->changed, &ranges->lock);
        } else if (clock_us() < until_us) {
            condition_wait_us(&ranges->changed, &ranges->lock, until_us);
        } else {
            fetch_apart(ranges, range);
        }
    }
    pthread_mutex_unlock(&ranges->lock);
    return NULL;
}

/* ---- Beginning one ---- */

/* Consumes the caller's reference. */
static void range_start(struct range *range)
{
    struct ranges *ranges = range->ranges;
    bool awaited;

    if (!range->count) {
        range_release(range);
        return;
    }
    pthread_mutex_lock(&ranges->lock);
    range->references++;
    pthread_mutex_unlock(&ranges->lock);
    mirrors_fetch(store_mirrors(ranges->store), &(struct mirrors_request){
        .path = ranges->all[range->pack].path,
        .offset = range->start,
        .length = range->end - range->start,
        .size_limit = range->end - range->start,
        .range_only = true,
        .priority = range->priority,
        .patience_ms = PATIENCE_MS,
        .mirror_out = &range->mirror,
        .accept = on_answer,
        .done = on_done,
        .user = range,
    });
    /* Who came before the mirrors knew of it could not hurry it. */
    pthread_mutex_lock(&ranges->lock);
    awaited = range->awaited;
    pthread_mutex_unlock(&ranges->lock);
    if (awaited)
        hurry(range);
    range_release(range);
}

static struct range *range_create(struct ranges *ranges, uint32_t pack, enum priority priority)
{
    struct range *range = calloc(1, sizeof(*range));

    if (!range)
        return NULL;
    atomic_fetch_add(&ranges->references, 1);
    range->ranges = ranges;
    range->stream = (struct store_stream){.wanted = on_wanted, .user = range, .priority = priority};
    if (priority == PRIORITY_READER)
        range->stream.priority = PRIORITY_READAHEAD; /* those that come with the reader's own */
    range->pack = pack;
    range->priority = priority;
    range->references = 1;
    return range;
}

/*
 * Let RANGE bring the next entry too, a block of LENGTH bytes. False: it does not lie there, or is not needed. A table
 * is not trusted: it may name any lengths and places.
 */
static bool range_add(struct range *range, uint32_t index, uint32_t length)
{
    const struct pack_table *table = &range->ranges->all[range->pack].table;
    const struct pack_entry *entry = &table->entries[index];
    uint64_t end = entry->offset + entry->frame_size, start = range->count ? range->start : entry->offset;

    if ((range->count && index != range->first + range->count) || range->count == RANGE_BLOCKS_MAX ||
        end - start > RANGE_BYTES_MAX + entry->frame_size || entry->block_length != length ||
        entry->frame_size > frame_bound(length))
        return false;
    /* Before the store has it: others may come to wait at once. */
    pthread_mutex_lock(&range->ranges->lock);
    range->first = index - range->count;
    range->owed |= 1U << range->count++;
    pthread_mutex_unlock(&range->ranges->lock);
    if (!store_expect(range->ranges->store, &entry->digest, length, &range->stream)) {
        pthread_mutex_lock(&range->ranges->lock);
        range->owed &= ~(1U << --range->count);
        pthread_mutex_unlock(&range->ranges->lock);
        return false;
    }
    range->start = start;
    range->end = end;
    return true;
}

/* ---- What is wished for ---- */

/* NULL: it lies in no pack that can be used. */
static const struct place *find_place(struct ranges *ranges, const struct digest *digest)
{
    const struct place *place =
        digest_is_zero(digest) ? NULL
                               : digest_search(ranges->places, ranges->place_count, sizeof(*place), digest);

    return place && atomic_load(&ranges->faults[place->pack]) < FAULTS_MAX ? place : NULL;
}

void ranges_fetch(struct ranges *ranges, const struct ranges_wish *wish)
{
    struct range *range = NULL;
    uint32_t more = wish->more;

    if (clock_ms() < atomic_load(&ranges->rest_until_ms))
        return;
    for (uint32_t i = 0; i < wish->count; i++) {
        const struct place *place = find_place(ranges, &wish->digests[i]);
        uint32_t length = map_block_length(wish->map, wish->first + i);

        if (!place || (range && range->pack == place->pack && range_add(range, place->entry, length)))
            continue;
        if (range)
            range_start(range);
        range = range_create(ranges, place->pack, wish->priority);
        if (!range)
            return;
        (void)range_add(range, place->entry, length);
    }
    while (range && range->count && more-- && range->first + range->count < ranges->all[range->pack].table.count)
        if (!range_add(range, range->first + range->count, wish->map->block_size))
            break;
    if (range)
        range_start(range);
}
