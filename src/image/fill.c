/*
 * Filling: a thread walks the blocks in an order that is likely to be useful and
 * keeps so many fetches under way, behind everything that readers want, that the
 * link is full. First along the profile; then around the places where readers
 * were last; then from the beginning to the end. It ends when the cache has no
 * room left, and pauses while the network is lost.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/log.h"
#include "image/pace.h"
#include "image/prefetch.h"

/* Requests under way; in between, what the link takes. Fewer than the HTTP client would send of this class. */
#define UNDER_WAY_MIN 8
#define UNDER_WAY_START 32
#define UNDER_WAY_MAX 60
#define EXTENT_BLOCKS 8    /* sent for at a time */
#define NEAR_EXTENTS 8     /* of these behind and before each reader, the nearest go first */
#define LOOKUP_BLOCKS 4096 /* whose digests are fetched at a time */
#define QUIET_MS 3000      /* without a reader who waited: what is near the readers is not urgent any more */
/*
 * Where answers come within DISK_NEAR_US, a reader waits for processors rather than for the network, and what is
 * fetched for nobody only keeps them busy: it is fetched when no reader has waited for LULL_MS.
 */
#define LULL_MS 50
#define LULL_STEP_MS 10
/* After the network was lost. */
#define PAUSE_MIN_MS 5000
#define PAUSE_MAX_MS 300000

/* Outlives its thread until the last fetch has come back. */
struct fill {
    struct disk *disk;
    struct store *store;
    struct fill_settings settings; /* but its profile is a copy: */
    struct profile profile;
    atomic_bool stopping;
    pthread_t thread;
    bool *looked_up;   /* the thread's: by LOOKUP_BLOCKS */
    uint64_t misses;   /* likewise: how often readers had waited at */
    uint64_t noisy_ms; /* this time, the last one */

    pthread_mutex_t lock; /* all below; a leaf */
    pthread_cond_t room;
    struct pace pace;
    unsigned under_way;
    bool lost;     /* a block could not be had for now */
    bool detached; /* whoever comes last frees */
};

/* A block that was sent for. */
struct errand {
    struct fill *fill;
    uint64_t sent_us;
    pthread_t sender;
};

static void fill_free(struct fill *fill)
{
    pthread_cond_destroy(&fill->room);
    pthread_mutex_destroy(&fill->lock);
    profile_finish(&fill->profile);
    free(fill->looked_up);
    free(fill);
}

static void block_came(void *user, int code, struct block *block, const struct error *error)
{
    struct errand *errand = user;
    struct fill *fill = errand->fill;
    bool last;

    (void)error; /* A reader that needs it will be told. */
    block_release(block);
    pthread_mutex_lock(&fill->lock);
    fill->under_way--;
    fill->lost |= code == ERROR_UNAVAILABLE;
    if (!code && !pthread_equal(errand->sender, pthread_self())) /* else it was in memory */
        pace_note(&fill->pace, clock_us() - errand->sent_us);
    pthread_cond_signal(&fill->room);
    last = fill->detached && !fill->under_way;
    pthread_mutex_unlock(&fill->lock);
    free(errand);
    if (last)
        fill_free(fill);
}

/* Wait for room, and take it. False: stop, or try again later. */
static bool take_room(struct fill *fill)
{
    bool go_on;

    pthread_mutex_lock(&fill->lock);
    while (fill->under_way >= fill->pace.limit && !fill->stopping && !fill->lost)
        pthread_cond_wait(&fill->room, &fill->lock);
    go_on = !fill->stopping && !fill->lost;
    fill->under_way += go_on;
    pthread_mutex_unlock(&fill->lock);
    return go_on;
}

static void give_back_room(struct fill *fill, unsigned count)
{
    pthread_mutex_lock(&fill->lock);
    fill->under_way -= count;
    pthread_mutex_unlock(&fill->lock);
}

static bool is_over(struct fill *fill)
{
    bool over;

    pthread_mutex_lock(&fill->lock);
    over = fill->stopping || fill->lost;
    pthread_mutex_unlock(&fill->lock);
    return over;
}

/* The digests of COUNT blocks, at most EXTENT_BLOCKS. Pages of the map are fetched many at a time. */
static bool look_up(struct fill *fill, uint64_t first, uint32_t count, enum priority priority,
                    struct digest digests[EXTENT_BLOCKS])
{
    struct tree *tree = disk_tree(fill->disk);
    uint64_t chunk = first / LOOKUP_BLOCKS, block_count = tree_map(tree)->block_count;
    struct digest *all = fill->looked_up[chunk] ? NULL : calloc(LOOKUP_BLOCKS, sizeof(*all));
    int result = 0;

    if (all)
        result = tree_lookup(tree, chunk * LOOKUP_BLOCKS,
                             (uint32_t)min_u64(LOOKUP_BLOCKS, block_count - chunk * LOOKUP_BLOCKS), priority, all,
                             NULL);
    free(all);
    if (!result)
        result = tree_lookup(tree, first, count, priority, digests, NULL);
    if (result) {
        pthread_mutex_lock(&fill->lock);
        fill->lost |= result == ERROR_UNAVAILABLE;
        pthread_mutex_unlock(&fill->lock);
    }
    fill->looked_up[chunk] |= !result;
    return !result;
}

static bool is_lacking(struct fill *fill, const struct digest *digest, uint32_t length)
{
    return !digest_is_zero(digest) && !store_has(fill->store, digest) && !store_is_coming(fill->store, digest, length);
}

/* Send for a block, for which there is room. False: no memory. */
static bool send_for(struct fill *fill, const struct digest *digest, uint32_t length, enum priority priority)
{
    struct errand *errand = malloc(sizeof(*errand));

    if (!errand)
        return false;
    *errand = (struct errand){fill, clock_us(), pthread_self()};
    store_get_async(fill->store, digest, length, priority, block_came, errand);
    return true;
}

/*
 * Of COUNT blocks from FIRST on, leave the DIGESTS of those that are lacking, and take room for them. Returns for how
 * many; -1: stop, or try again later.
 */
static int choose_lacking(struct fill *fill, uint64_t first, uint32_t count, struct digest *digests)
{
    const struct map *map = tree_map(disk_tree(fill->disk));
    unsigned taken = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (!is_lacking(fill, &digests[i], map_block_length(map, first + i))) {
            digests[i] = (struct digest){0};
        } else if (take_room(fill)) {
            taken++;
        } else {
            give_back_room(fill, taken);
            return -1;
        }
    }
    /* Still, after a wait? */
    for (uint32_t i = 0; i < count; i++)
        if (!is_lacking(fill, &digests[i], map_block_length(map, first + i)))
            digests[i] = (struct digest){0};
    return (int)taken;
}

/* Send for the blocks of COUNT that are not here, as soon as there is room for all of them. False as of fetch_run. */
static bool fetch_together(struct fill *fill, uint64_t first, uint32_t count, struct digest *digests,
                           enum priority priority)
{
    const struct map *map = tree_map(disk_tree(fill->disk));
    int room = choose_lacking(fill, first, count, digests);
    unsigned sent = 0;
    bool failed = false;

    if (room < 0)
        return false;
    disk_gather(fill->disk, first, count, digests, priority);
    for (uint32_t i = 0; i < count && !failed; i++)
        if (!digest_is_zero(&digests[i])) {
            failed = !send_for(fill, &digests[i], map_block_length(map, first + i), priority);
            sent += !failed;
        }
    give_back_room(fill, (unsigned)room - sent);
    return !failed;
}

/* Send for the blocks of a run, at most EXTENT_BLOCKS, that are not here. False: stop, or try again later. */
static bool fetch_run(struct fill *fill, uint64_t first, uint32_t count, enum priority priority)
{
    uint64_t block_count = tree_map(disk_tree(fill->disk))->block_count;
    uint32_t step = disk_gathers(fill->disk);
    struct digest digests[EXTENT_BLOCKS];

    if (first >= block_count || is_over(fill))
        return !is_over(fill);
    count = (uint32_t)min_u64(count, block_count - first);
    if (!look_up(fill, first, count, priority, digests))
        return !is_over(fill);
    for (uint32_t at = 0; at < count; at += step)
        if (!fetch_together(fill, first + at, (uint32_t)min_u64(step, count - at), digests + at, priority))
            return false;
    return true;
}

static bool fill_profile(struct fill *fill)
{
    for (uint32_t r = 0; r < fill->profile.run_count; r++) {
        const struct profile_run *run = &fill->profile.runs[r];

        for (uint32_t at = 0; at < run->count; at += EXTENT_BLOCKS)
            if (!fetch_run(fill, run->block + at, (uint32_t)min_u64(EXTENT_BLOCKS, run->count - at),
                           PRIORITY_PROFILE))
                return false;
    }
    return true;
}

/* The nearest extent to a reader at EXTENT that was not sent for: behind him, else before him. UINT64_MAX: none. */
static uint64_t choose_near(const bool *sent, uint64_t extent_count, uint64_t extent)
{
    for (uint64_t e = extent; e < min_u64(extent + NEAR_EXTENTS, extent_count); e++)
        if (!sent[e])
            return e;
    for (uint64_t e = extent; e > 0 && extent - e < NEAR_EXTENTS; e--)
        if (!sent[e - 1])
            return e - 1;
    return UINT64_MAX;
}

/* The next extent that was not sent for: near a reader, the last one first, else from *CURSOR on. UINT64_MAX: none. */
static uint64_t choose_extent(struct fill *fill, const bool *sent, uint64_t extent_count, uint64_t *cursor)
{
    uint64_t positions[DISK_POSITIONS];
    size_t count = disk_positions(fill->disk, positions);

    for (size_t i = 0; i < count; i++) {
        uint64_t extent = choose_near(sent, extent_count,
                                      positions[i] / disk_block_size(fill->disk) / EXTENT_BLOCKS);

        if (extent != UINT64_MAX)
            return extent;
    }
    while (*cursor < extent_count && sent[*cursor])
        (*cursor)++;
    return *cursor < extent_count ? *cursor : UINT64_MAX;
}

/* For how long no reader has waited, as far as this was asked. */
static uint64_t quiet_ms(struct fill *fill)
{
    struct store_statistics statistics;
    uint64_t now_ms = clock_ms();

    store_count(fill->store, &statistics);
    if (statistics.misses != fill->misses)
        fill->noisy_ms = now_ms;
    fill->misses = statistics.misses;
    return now_ms - fill->noisy_ms;
}

/* False: answers take longer. */
static bool rest_where_near(struct fill *fill)
{
    uint64_t others_us = mirrors_first_byte_us(store_mirrors(fill->store)), quickest_us;
    bool near;

    pthread_mutex_lock(&fill->lock);
    quickest_us = fill->pace.quickest_us ? fill->pace.quickest_us : others_us;
    near = !fill->stopping && quickest_us && quickest_us < DISK_NEAR_US;
    if (near)
        condition_wait_ms(&fill->room, &fill->lock, clock_ms() + LULL_STEP_MS);
    pthread_mutex_unlock(&fill->lock);
    return near;
}

static void fill_all(struct fill *fill)
{
    struct tree *tree = disk_tree(fill->disk);
    uint64_t block_count = tree_map(tree)->block_count;
    uint64_t extent_count = divide_up(block_count, EXTENT_BLOCKS), cursor = 0, extent, data;
    bool *sent = calloc(extent_count, sizeof(*sent));

    while (sent) {
        while (quiet_ms(fill) < LULL_MS && rest_where_near(fill))
            ;
        extent = choose_extent(fill, sent, extent_count, &cursor);
        if (extent == UINT64_MAX)
            break;
        if (!cache_has_room(store_cache(fill->store))) {
            log_info("the rest of the disk is not fetched ahead: there is no room for it in the cache");
            break;
        }
        /* Near nobody. */
        if (extent == cursor && fill->settings.when_quiet && quiet_ms(fill) >= QUIET_MS &&
            fill->settings.when_quiet(fill->settings.user))
            fill->settings.when_quiet = NULL;
        sent[extent] = true;
        if (!fetch_run(fill, extent * EXTENT_BLOCKS, EXTENT_BLOCKS, PRIORITY_FILL))
            break;
        /* Over a large hole in one step. */
        if (extent == cursor &&
            !tree_next_data(tree, min_u64((extent + 1) * EXTENT_BLOCKS, block_count), block_count, &data, NULL))
            cursor = max_u64(cursor, min_u64(data / EXTENT_BLOCKS, extent_count));
    }
    free(sent);
}

/* Wait until all that was sent for has come. True if it is worth while to go over everything again after a pause. */
static bool must_repeat(struct fill *fill, unsigned pause_ms)
{
    uint64_t until_ms = clock_ms() + pause_ms;
    bool lost, in_time = true;

    pthread_mutex_lock(&fill->lock);
    while (fill->under_way && !fill->stopping)
        pthread_cond_wait(&fill->room, &fill->lock);
    lost = fill->lost;
    while (lost && !fill->stopping && in_time)
        in_time = condition_wait_ms(&fill->room, &fill->lock, until_ms);
    fill->lost = false;
    pthread_mutex_unlock(&fill->lock);
    return lost && !fill->stopping;
}

static bool bring_many(struct fill *fill)
{
    return !fill->settings.before_all || fill->settings.before_all(fill->settings.user);
}

static void *fill_main(void *user)
{
    struct fill *fill = user;
    unsigned pause_ms = PAUSE_MIN_MS;
    bool again;

    do {
        bool along = fill_profile(fill);

        disk_set_covered(fill->disk, false);
        if (along && fill->settings.all && bring_many(fill))
            fill_all(fill);
        again = must_repeat(fill, pause_ms);
        pause_ms = (unsigned)min_u64(2 * pause_ms, PAUSE_MAX_MS);
    } while (again);
    return NULL;
}

static struct fill *fill_create(struct disk *disk, struct store *store)
{
    struct fill *fill = calloc(1, sizeof(*fill));

    if (!fill)
        return NULL;
    fill->disk = disk;
    fill->store = store;
    pace_init(&fill->pace, UNDER_WAY_MIN, UNDER_WAY_START, UNDER_WAY_MAX);
    pthread_mutex_init(&fill->lock, NULL);
    condition_init(&fill->room);
    fill->looked_up = calloc(divide_up(tree_map(disk_tree(disk))->block_count, LOOKUP_BLOCKS), sizeof(bool));
    return fill;
}

struct fill *fill_start(struct disk *disk, struct store *store, const struct fill_settings *settings)
{
    const struct profile *profile = settings->profile;
    bool all = settings->all && store_cache(store); /* into memory alone it would only push out what readers use */
    struct fill *fill = store_mirrors(store) && (profile || all) ? fill_create(disk, store) : NULL;

    if (!fill)
        return NULL;
    fill->settings = *settings;
    fill->settings.all = all;
    fill->noisy_ms = clock_ms();
    workers_set_background(store_workers(store));
    if (!fill->looked_up || (profile && profile_copy(profile, &fill->profile, NULL)) ||
        pthread_create(&fill->thread, NULL, fill_main, fill)) {
        fill_free(fill); /* what is not filled is fetched when it is read */
        return NULL;
    }
    return fill;
}

void fill_stop(struct fill *fill)
{
    bool last;

    if (!fill)
        return;
    pthread_mutex_lock(&fill->lock);
    fill->stopping = true;
    pthread_cond_broadcast(&fill->room);
    pthread_mutex_unlock(&fill->lock);
    pthread_join(fill->thread, NULL);
    pthread_mutex_lock(&fill->lock);
    fill->detached = true;
    last = !fill->under_way;
    pthread_mutex_unlock(&fill->lock);
    if (last)
        fill_free(fill);
}
