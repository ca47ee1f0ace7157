/* Keeping profiles: see profile_keep.h. */
#include "image/profile_keep.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

/* A machine may lose power: written so long after the first read, then each time the double of it. */
#define FIRST_WRITE_MS 15000
/* Sequences that are read by several threads are not in perfect order. */
#define SEQUENCE_SLACK 16

struct profile_keeper {
    struct job job; /* first: a pointer to it is one to the keeper */
    struct disk *disk;
    struct cache *cache;
    struct workers *workers;
    const char *location;
    char path[ARCHIVE_PATH_MAX];
    struct digest image;
    struct profile carried;       /* for prefetching */
    /* When it is to be written again; 0: nothing was read yet, UINT64_MAX: a job is under way. */
    atomic_uint_fast64_t next_ms;
    uint64_t opened_ms;
    uint64_t interval_ms;         /* of the one who writes */

    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t idle;
    bool busy;

    /* Of the one who writes. */
    struct profile base;   /* runs of others, as in the file that this one replaced */
    struct digest written; /* of the file that was written last; zero: none */
    uint64_t block_count;  /* of the disk's own profile then */
};

int profile_keep_trim(const struct profile *profile, struct profile *trimmed_out, struct error *error)
{
    struct profile trimmed = {
        .image = profile->image, .block_size = profile->block_size, .boot_count = profile->boot_count};
    uint64_t sequence_max = max_u64(PROFILE_KEEP_SEQUENCE / profile->block_size, 1);
    uint64_t block_max = PROFILE_KEEP_BYTES / profile->block_size, end = 0, length = 0;
    int result = 0;

    for (uint32_t r = 0; r < profile->run_count && !result; r++) {
        const struct profile_run *run = &profile->runs[r];
        bool goes_on = run->block + SEQUENCE_SLACK >= end && run->block <= end + SEQUENCE_SLACK;

        if (run->time_ms > PROFILE_KEEP_MS)
            break;
        length = goes_on ? length : 0;
        for (uint32_t i = 0; i < run->count && !result && trimmed.block_count < block_max &&
                             trimmed.run_count < PROFILE_KEEP_RUNS; i++)
            if (++length <= sequence_max)
                result = profile_append(&trimmed, run->block + i, run->time_ms, error);
        end = run->block + run->count;
    }
    if (result)
        profile_finish(&trimmed);
    else
        *trimmed_out = trimmed;
    return result;
}

/* The first blocks of a merged profile, as many as may be kept. */
static void cut(struct profile *profile)
{
    uint64_t block_max = PROFILE_KEEP_BYTES / profile->block_size, count = 0;
    uint32_t r = 0;

    for (; r < profile->run_count && r < PROFILE_KEEP_RUNS && count < block_max; r++) {
        profile->runs[r].count = (uint32_t)min_u64(profile->runs[r].count, block_max - count);
        count += profile->runs[r].count;
    }
    profile->run_count = r;
    profile->block_count = count;
}

static const char *kept_path(const char *name, const char *version, char path[ARCHIVE_PATH_MAX])
{
    snprintf(path, ARCHIVE_PATH_MAX, "images/%s/%s" CACHE_PROFILE_SUFFIX, name, version);
    return path;
}

/* NOT_FOUND: there is none, or none that can be used. DIGEST_OUT (may be NULL) is that of the file. */
static int read_kept(struct cache *cache, const char *location, const char *path, struct profile *profile_out,
                     struct digest *digest_out)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    struct error error = ERROR_INIT;

    if (cache_read_metadata(cache, location, path, PROFILE_SIZE_MAX, &bytes, &error))
        return ERROR_NOT_FOUND;
    if (digest_out)
        digest_of(bytes.bytes, bytes.size, digest_out);
    if (profile_parse(bytes.bytes, bytes.size, profile_out, &error)) {
        log_info("cache: the kept profile %s is not used: %s", path, error.message);
        return ERROR_NOT_FOUND;
    }
    return 0;
}

/*
 * An older image's profile for this one: the same block numbers, as far as they exist. What has only moved need not be
 * looked for: it is in the cache.
 */
static void carry(struct profile *profile, const struct digest *image, uint32_t block_size, uint64_t block_count)
{
    uint32_t kept = 0;

    if (profile->block_size != block_size) {
        profile_finish(profile);
        return;
    }
    profile->image = *image;
    profile->block_count = 0;
    for (uint32_t r = 0; r < profile->run_count; r++) {
        struct profile_run run = profile->runs[r];

        if (run.block >= block_count)
            continue;
        run.count = (uint32_t)min_u64(run.count, block_count - run.block);
        profile->block_count += run.count;
        profile->runs[kept++] = run;
    }
    profile->run_count = kept;
}

/* The profile of this version, or of the latest other one of the same name that has one. */
static void find_kept(struct profile_keeper *keeper, const struct catalog *catalog,
                      const struct catalog_version *version)
{
    const struct map *map = tree_map(disk_tree(keeper->disk));
    int64_t latest = INT64_MIN;
    char path[ARCHIVE_PATH_MAX];

    if (!read_kept(keeper->cache, keeper->location, keeper->path, &keeper->carried, NULL)) {
        if (digest_equal(&keeper->carried.image, &keeper->image))
            return;
        profile_finish(&keeper->carried);
    }
    for (size_t i = 0; i < catalog->version_count; i++) {
        const struct catalog_version *other = &catalog->versions[i];
        struct profile profile = {0};

        if (other == version || strcmp(other->name, version->name) || other->published < latest ||
            read_kept(keeper->cache, keeper->location, kept_path(other->name, other->version, path), &profile, NULL))
            continue;
        latest = other->published;
        profile_finish(&keeper->carried);
        keeper->carried = profile;
    }
    if (keeper->carried.run_count)
        carry(&keeper->carried, &keeper->image, map->block_size, map->block_count);
}

struct profile_keeper *profile_keeper_open(struct disk *disk, struct store *store, const char *location,
                                           const struct catalog *catalog, const struct catalog_version *version)
{
    struct profile_keeper *keeper = store_cache(store) ? calloc(1, sizeof(*keeper)) : NULL;

    if (!keeper)
        return NULL;
    keeper->disk = disk;
    keeper->cache = store_cache(store);
    keeper->workers = store_workers(store);
    keeper->location = location;
    keeper->image = version->image;
    keeper->opened_ms = clock_ms();
    keeper->interval_ms = FIRST_WRITE_MS;
    kept_path(version->name, version->version, keeper->path);
    pthread_mutex_init(&keeper->lock, NULL);
    pthread_cond_init(&keeper->idle, NULL);
    find_kept(keeper, catalog, version);
    return keeper;
}

const struct profile *profile_keeper_kept(const struct profile_keeper *keeper)
{
    return keeper && keeper->carried.run_count ? &keeper->carried : NULL;
}

/* The runs that others have recorded: what is in the file, unless this keeper wrote it. */
static void take_base(struct profile_keeper *keeper)
{
    struct profile profile = {0};
    struct digest digest;

    if (read_kept(keeper->cache, keeper->location, keeper->path, &profile, &digest))
        return;
    if (digest_equal(&digest, &keeper->written) || !digest_equal(&profile.image, &keeper->image)) {
        profile_finish(&profile);
        return;
    }
    profile_finish(&keeper->base);
    keeper->base = profile;
}

/* The base with this run, which is given away. */
static int merge_base(const struct profile_keeper *keeper, struct profile *profile)
{
    struct profile both[2] = {keeper->base, *profile}, merged;
    int result;

    if (!keeper->base.run_count)
        return 0;
    result = profile_merge(both, 2, &merged, NULL);
    if (result)
        return result;
    profile_finish(profile);
    *profile = merged;
    cut(profile);
    return 0;
}

static void write_kept(struct profile_keeper *keeper)
{
    cleanup(profile_finish) struct profile whole = {0};
    cleanup(profile_finish) struct profile profile = {0};
    cleanup(buffer_finish) struct buffer bytes = {0};
    auto_close int lock = -1;

    if (disk_profile(keeper->disk, &whole, NULL) || whole.block_count == keeper->block_count ||
        profile_keep_trim(&whole, &profile, NULL))
        return;
    /* Another who writes between our reading and our writing would lose what he adds. */
    lock = cache_lock_metadata(keeper->cache, keeper->location);
    take_base(keeper);
    if (merge_base(keeper, &profile) || profile_format(&profile, &bytes, NULL))
        return;
    cache_write_metadata(keeper->cache, keeper->location, keeper->path, bytes.bytes, bytes.size);
    keeper->block_count = whole.block_count;
    digest_of(bytes.bytes, bytes.size, &keeper->written);
}

static void run_write(struct job *job)
{
    struct profile_keeper *keeper = (struct profile_keeper *)job;
    uint64_t now_ms;

    write_kept(keeper);
    now_ms = clock_ms();
    keeper->interval_ms *= 2;
    /* Behind that time nothing is kept any more. */
    if (now_ms - keeper->opened_ms < PROFILE_KEEP_MS + 2 * FIRST_WRITE_MS)
        atomic_store(&keeper->next_ms, now_ms + keeper->interval_ms);
    pthread_mutex_lock(&keeper->lock);
    keeper->busy = false;
    pthread_cond_signal(&keeper->idle);
    pthread_mutex_unlock(&keeper->lock);
}

void profile_keeper_tick(struct profile_keeper *keeper)
{
    uint_fast64_t next_ms = keeper ? atomic_load_explicit(&keeper->next_ms, memory_order_relaxed) : UINT64_MAX;
    uint64_t now_ms;

    if (next_ms == UINT64_MAX)
        return;
    now_ms = clock_ms();
    if (next_ms == 0) {
        atomic_compare_exchange_strong(&keeper->next_ms, &next_ms, now_ms + FIRST_WRITE_MS);
        return;
    }
    if (now_ms < next_ms || !atomic_compare_exchange_strong(&keeper->next_ms, &next_ms, UINT64_MAX))
        return;
    pthread_mutex_lock(&keeper->lock);
    keeper->busy = true;
    pthread_mutex_unlock(&keeper->lock);
    keeper->job = (struct job){.run = run_write};
    workers_submit(keeper->workers, &keeper->job, PRIORITY_FILL);
}

void profile_keeper_close(struct profile_keeper *keeper)
{
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->lock);
    while (keeper->busy)
        pthread_cond_wait(&keeper->idle, &keeper->lock);
    pthread_mutex_unlock(&keeper->lock);
    write_kept(keeper);
    profile_finish(&keeper->base);
    profile_finish(&keeper->carried);
    pthread_cond_destroy(&keeper->idle);
    pthread_mutex_destroy(&keeper->lock);
    free(keeper);
}
