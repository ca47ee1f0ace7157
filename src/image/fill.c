/*
 * Filling: a thread walks the blocks in an order that is likely to be useful and
 * keeps a number of fetches under way behind everything that readers want. First
 * along the profile; then from the beginning to the end, but each time what lies
 * behind the place where a reader was last goes before.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "image/prefetch.h"

#define UNDER_WAY_MAX 64
#define EXTENT_BLOCKS 16 /* looked up and sent at a time */
#define NEAR_EXTENTS 16  /* of these behind the reader, the nearest goes first */

/* Outlives its thread until the last fetch has come back. */
struct fill {
    struct disk *disk;
    struct store *store;
    struct profile profile;
    bool all;
    atomic_bool stopping;
    pthread_t thread;

    pthread_mutex_t lock; /* all below; a leaf */
    pthread_cond_t room;
    unsigned under_way;
    bool detached; /* whoever comes last frees */
};

static void fill_free(struct fill *fill)
{
    pthread_cond_destroy(&fill->room);
    pthread_mutex_destroy(&fill->lock);
    profile_finish(&fill->profile);
    free(fill);
}

static void block_came(void *user, int code, struct block *block, const struct error *error)
{
    struct fill *fill = user;
    bool last;

    (void)code;
    (void)error; /* A reader that needs it will be told. */
    block_release(block);
    pthread_mutex_lock(&fill->lock);
    fill->under_way--;
    pthread_cond_signal(&fill->room);
    last = fill->detached && !fill->under_way;
    pthread_mutex_unlock(&fill->lock);
    if (last)
        fill_free(fill);
}

/* Wait for room, and take it. False: stop. */
static bool take_room(struct fill *fill)
{
    pthread_mutex_lock(&fill->lock);
    while (fill->under_way >= UNDER_WAY_MAX && !fill->stopping)
        pthread_cond_wait(&fill->room, &fill->lock);
    fill->under_way += !fill->stopping;
    pthread_mutex_unlock(&fill->lock);
    return !fill->stopping;
}

/* Send for the blocks of a run that are not here. False: stop. */
static bool fetch_run(struct fill *fill, uint64_t first, uint32_t count, enum priority priority)
{
    const struct map *map = tree_map(disk_tree(fill->disk));
    struct digest digests[EXTENT_BLOCKS];

    if (first >= map->block_count)
        return !fill->stopping;
    count = (uint32_t)min_u64(count, map->block_count - first);
    if (fill->stopping || tree_lookup(disk_tree(fill->disk), first, count, priority, digests, NULL))
        return !fill->stopping;
    for (uint32_t i = 0; i < count; i++) {
        if (digest_is_zero(&digests[i]) || store_has(fill->store, &digests[i]))
            continue;
        if (!take_room(fill))
            return false;
        store_get_async(fill->store, &digests[i], map_block_length(map, first + i), priority, block_came, fill);
    }
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

/* The next extent that was not sent for: near the last reader, else the first from *CURSOR on. UINT64_MAX: none. */
static uint64_t choose_extent(struct fill *fill, const bool *sent, uint64_t extent_count, uint64_t *cursor)
{
    uint64_t reader = disk_position(fill->disk) / disk_block_size(fill->disk) / EXTENT_BLOCKS;

    for (uint64_t e = reader; e < min_u64(reader + NEAR_EXTENTS, extent_count); e++)
        if (!sent[e])
            return e;
    while (*cursor < extent_count && sent[*cursor])
        (*cursor)++;
    return *cursor < extent_count ? *cursor : UINT64_MAX;
}

static void fill_all(struct fill *fill)
{
    struct tree *tree = disk_tree(fill->disk);
    uint64_t block_count = tree_map(tree)->block_count;
    uint64_t extent_count = divide_up(block_count, EXTENT_BLOCKS), cursor = 0, extent, data;
    bool *sent = calloc(extent_count, sizeof(*sent));

    while (sent && !fill->stopping && (extent = choose_extent(fill, sent, extent_count, &cursor)) != UINT64_MAX) {
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

static void *fill_main(void *user)
{
    struct fill *fill = user;

    if (fill_profile(fill) && fill->all)
        fill_all(fill);
    return NULL;
}

struct fill *fill_start(struct disk *disk, struct store *store, const struct profile *profile, bool all)
{
    struct fill *fill = store_mirrors(store) && (profile || all) ? calloc(1, sizeof(*fill)) : NULL;

    if (!fill)
        return NULL;
    fill->disk = disk;
    fill->store = store;
    fill->all = all;
    pthread_mutex_init(&fill->lock, NULL);
    pthread_cond_init(&fill->room, NULL);
    if ((profile && profile_copy(profile, &fill->profile, NULL)) ||
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
