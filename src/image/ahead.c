/*
 * Ahead: see ahead.h. Requests for hints and profile are under way on their own; the starter, a thread, waits for what
 * comes of them, but no longer than until the disk is left; for tables of packs until they have come, or
 * mirrors_cancel.
 */
#include "image/ahead.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/log.h"
#include "image/pack.h"
#include "image/packs.h"
#include "image/sweep.h"

/* How long opening a disk waits at most for the table of its boot pack, beside so many times what the hints took. */
#define TABLE_WAIT_MS 500
#define TABLE_WAIT_FACTOR 4
/* Packs of the rest are streamed when this part of the blocks is lacking. */
#define PACKS_PART 4
#define LOOKUP_BLOCKS 4096 /* digests asked for at a time */
/* How long after the boot pack has come its blocks are held for their first reader, more than memory is meant for. */
#define HOLD_MS 30000
#define RANGE_TABLES_MAX (8 * MIB) /* kept in memory as long as the disk is open: for some 10 GiB of data */
#define LULL_MISSES 8 /* so often readers may wait for other blocks while packs are streamed */

struct ahead {
    struct store *store;
    enum prefetch_mode mode;
    char *name; /* of the image */
    uint64_t begun_us;
    struct disk *disk;
    struct profile kept; /* of earlier runs; empty: none */
    struct fill *fill;   /* written by STARTER */
    pthread_t starter;   /* only if DISK */

    pthread_mutex_t lock;      /* all below; before those of prefetch and store */
    pthread_cond_t changed;
    unsigned under_way;        /* requests for hints and profile */
    bool leaving;              /* the disk is about to be closed */
    bool profile_wanted;       /* was asked for, once */
    struct hints hints;        /* not changed any more once no request is under way */
    struct profile profile;    /* likewise; the published one, empty if there is none */
    struct prefetch *prefetch; /* likewise, but by FILL's thread; of the pack that is being streamed, or was last */
};

static void begin_request(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->lock);
    ahead->under_way++;
    pthread_mutex_unlock(&ahead->lock);
}

static void end_request(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->lock);
    ahead->under_way--;
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->lock);
}

/* ---- The profile ---- */

static int accept_profile(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct ahead *ahead = user;
    struct error reason = ERROR_INIT;
    struct digest digest;

    digest_of(bytes, size, &digest);
    if (!digest_equal(&digest, &ahead->hints.profile))
        return error_set(error, ERROR_CORRUPT, "digest differs");
    profile_finish(&ahead->profile);
    /* What the digest names is no profile: the hints are to blame, not the mirror. */
    if (profile_parse(bytes, size, &ahead->profile, &reason))
        log_info("the profile is not used: %s", reason.message);
    return 0;
}

static void profile_done(void *user, int code, const struct error *error)
{
    struct ahead *ahead = user;

    if (code)
        profile_finish(&ahead->profile);
    if (code && code != ERROR_CANCELLED)
        log_info("no profile: %s", error->message);
    end_request(ahead);
}

/* Ask for the profile that the hints name, if any, and if nobody has yet. */
static void request_profile(struct ahead *ahead)
{
    char path[ARCHIVE_PATH_MAX];

    if (ahead->profile_wanted || digest_is_zero(&ahead->hints.profile))
        return;
    ahead->profile_wanted = true;
    begin_request(ahead);
    mirrors_fetch(store_mirrors(ahead->store), &(struct mirrors_request){
        .path = archive_path_file(&ahead->hints.profile, path),
        .size_limit = PROFILE_SIZE_MAX,
        .priority = PRIORITY_PROFILE,
        .patience_ms = 1,
        .accept = accept_profile,
        .done = profile_done,
        .user = ahead,
    });
}

/* ---- The hints ---- */

static int accept_hints(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct ahead *ahead = user;
    struct error reason = ERROR_INIT;

    (void)error; /* Bad hints are no reason to think ill of the mirror: nobody vouched for them. */
    hints_finish(&ahead->hints);
    if (hints_parse(bytes, size, &ahead->hints, &reason))
        log_info("hints are not used: %s", reason.message);
    return 0;
}

/* Begin with the boot pack, if there is one. */
static struct prefetch *begin_boot(const struct ahead *ahead)
{
    for (size_t i = 0; i < ahead->hints.pack_count; i++)
        if (ahead->hints.packs[i].boot)
            return prefetch_pack(ahead->store, &ahead->hints.packs[i]);
    return NULL;
}

static void hints_done(void *user, int code, const struct error *error)
{
    struct ahead *ahead = user;
    bool left;

    if (code)
        hints_finish(&ahead->hints);
    for (size_t i = 0; i < ahead->hints.mirror_count; i++)
        mirrors_add_hinted(store_mirrors(ahead->store), ahead->hints.mirrors[i]);
    pthread_mutex_lock(&ahead->lock);
    left = ahead->leaving;
    if (!code && !left)
        ahead->prefetch = begin_boot(ahead);
    if (ahead->prefetch)
        store_set_generous(ahead->store, true);
    pthread_mutex_unlock(&ahead->lock);
    if (!ahead->prefetch && !left)
        request_profile(ahead);
    if (code && code != ERROR_NOT_FOUND && code != ERROR_CANCELLED)
        log_info("no hints: %s", error->message);
    end_request(ahead);
}

struct ahead *ahead_begin(struct store *store, const char *name, const char *version, enum prefetch_mode mode,
                          bool first)
{
    struct ahead *ahead = mode != PREFETCH_NONE && store_mirrors(store) ? calloc(1, sizeof(*ahead)) : NULL;
    char path[ARCHIVE_PATH_MAX];

    if (!ahead)
        return NULL;
    ahead->name = strdup(name);
    if (!ahead->name) {
        free(ahead);
        return NULL;
    }
    ahead->store = store;
    ahead->mode = mode;
    ahead->begun_us = clock_us();
    pthread_mutex_init(&ahead->lock, NULL);
    condition_init(&ahead->changed);
    begin_request(ahead);
    mirrors_fetch(store_mirrors(store), &(struct mirrors_request){
        .path = version && *version ? archive_path_hints(name, version, path) : archive_path_newest_hints(name, path),
        .size_limit = HINTS_SIZE_MAX,
        .priority = PRIORITY_PROFILE,
        .more_soon = first ? PACK_STREAMS + 1 : 0, /* for the boot pack that they are hoped to name, and the map */
        .patience_ms = 1, /* one pass: they are only hints */
        .accept = accept_hints,
        .done = hints_done,
        .user = ahead,
    });
    return ahead;
}

/* ---- Filling ---- */

/* Wait until no request is under way. False: the disk is left before. */
static bool wait_for_requests(struct ahead *ahead)
{
    bool left;

    pthread_mutex_lock(&ahead->lock);
    while (ahead->under_way && !ahead->leaving)
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    left = ahead->leaving;
    pthread_mutex_unlock(&ahead->lock);
    return !left;
}

/* The profile to go along: the published one if it is of this image, else that of earlier runs; NULL: none. */
static const struct profile *choose_profile(const struct ahead *ahead)
{
    struct digest id;

    map_image_id(tree_map(disk_tree(ahead->disk)), &id);
    if (ahead->profile.run_count && digest_equal(&ahead->profile.image, &id))
        return &ahead->profile;
    if (ahead->profile.run_count)
        log_info("the profile is not used: it is of another image");
    if (!ahead->kept.run_count)
        return NULL;
    log_info("prefetching along the profile of earlier runs, of %llu blocks",
             (unsigned long long)ahead->kept.block_count);
    return &ahead->kept;
}

/* Are the hints, which nobody vouched for, at least of this disk? */
static bool is_of_disk(const struct ahead *ahead)
{
    struct digest id;

    map_image_id(tree_map(disk_tree(ahead->disk)), &id);
    return digest_is_zero(&ahead->hints.image) || digest_equal(&ahead->hints.image, &id);
}

static bool has_rest(const struct ahead *ahead)
{
    for (size_t i = 0; i < ahead->hints.pack_count; i++)
        if (!ahead->hints.packs[i].boot)
            return is_of_disk(ahead);
    return false;
}

static bool is_leaving(struct ahead *ahead)
{
    bool leaving;

    pthread_mutex_lock(&ahead->lock);
    leaving = ahead->leaving;
    pthread_mutex_unlock(&ahead->lock);
    return leaving;
}

/* Is so much of the disk neither here nor on its way that streaming packs of it is better than asking for blocks? */
static bool lacks_much(struct ahead *ahead)
{
    struct tree *tree = disk_tree(ahead->disk);
    uint64_t block_count = tree_map(tree)->block_count, used = 0, lacking = 0;
    struct digest *digests = calloc(LOOKUP_BLOCKS, sizeof(*digests));
    int result = digests ? 0 : ERROR_SYSTEM;

    for (uint64_t first = 0; !result && !tree_next_data(tree, first, block_count, &first, NULL) && first < block_count;
         first += LOOKUP_BLOCKS) {
        uint32_t count = (uint32_t)min_u64(LOOKUP_BLOCKS, block_count - first);

        result = is_leaving(ahead) ? ERROR_CANCELLED : tree_lookup(tree, first, count, PRIORITY_FILL, digests, NULL);
        for (uint32_t i = 0; !result && i < count; i++) {
            used += !digest_is_zero(&digests[i]);
            lacking += !digest_is_zero(&digests[i]) && !store_has(ahead->store, &digests[i]);
        }
    }
    free(digests);
    return !result && lacking > used / PACKS_PART;
}

/* Stream PACK to its end. False: the disk is left. */
static bool stream_pack(struct ahead *ahead, const struct hints_pack *pack)
{
    struct prefetch *next = prefetch_pack(ahead->store, pack), *ended;
    bool left;

    if (!next)
        return true;
    pthread_mutex_lock(&ahead->lock);
    ended = ahead->prefetch;
    ahead->prefetch = next;
    left = ahead->leaving;
    pthread_mutex_unlock(&ahead->lock);
    prefetch_destroy(ended);
    if (left)
        prefetch_stop(next);
    else
        prefetch_wait(next);
    return wait_for_requests(ahead);
}

/*
 * Stream the packs of the rest, where there are any, one after the other. Hints are not trusted: no more than the disk
 * has. False: the disk is left.
 */
static bool stream_rest(void *user)
{
    struct ahead *ahead = user;
    struct cache *cache = store_cache(ahead->store);
    uint64_t left = disk_size(ahead->disk);
    bool go_on = true;

    if (!has_rest(ahead) || !lacks_much(ahead))
        return wait_for_requests(ahead);
    for (size_t i = 0; i < ahead->hints.pack_count && go_on && cache_has_room(cache); i++) {
        const struct hints_pack *pack = &ahead->hints.packs[i];

        if (pack->boot || pack->size > left)
            continue;
        left -= pack->size;
        go_on = stream_pack(ahead, pack);
    }
    return go_on;
}

/* A sweep while the readers are quiet. */
struct lull {
    struct ahead *ahead;
    uint64_t misses; /* how often readers had waited before */
};

static uint64_t count_misses(const struct ahead *ahead)
{
    struct store_statistics statistics;

    store_count(ahead->store, &statistics);
    return statistics.misses;
}

/* What the readers do themselves is more urgent, when they begin to need much. */
static bool is_lull(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct lull *lull = user;
    struct ahead *ahead = lull->ahead;

    (void)done_bytes;
    (void)total_bytes;
    return !is_leaving(ahead) && count_misses(ahead) - lull->misses < LULL_MISSES &&
           cache_has_room(store_cache(ahead->store));
}

static int lacks(void *user, uint64_t block, const struct digest *digest, uint32_t length, struct error *error)
{
    const struct lull *lull = user;

    (void)block;
    (void)length;
    (void)error;
    return !store_has(lull->ahead->store, digest);
}

/* A block that no mirror has, or has right, is no reason to leave out the others. */
static int pass_over(void *user, uint64_t block, const struct digest *digest, const struct error *reason)
{
    (void)user;
    (void)block;
    (void)digest;
    return reason->code == ERROR_NOT_FOUND || reason->code == ERROR_CORRUPT ? 0 : reason->code;
}

/* Stream what is lacking out of packs. True: it is over, and need not be done again. */
static bool sweep_rest(void *user)
{
    struct ahead *ahead = user;
    struct lull lull = {.ahead = ahead, .misses = count_misses(ahead)};
    struct progress progress = {.update = is_lull, .user = &lull};
    struct sweep_settings settings = {
        .disk = ahead->disk, .store = ahead->store, .readers_first = true, .progress = &progress, .wanted = lacks,
        .failed = pass_over, .user = &lull};
    struct error error = ERROR_INIT;
    struct packs *packs;
    int result = 0;

    if (!has_rest(ahead))
        return true;
    packs = packs_begin_hinted(ahead->store, &ahead->hints, &ahead->hints.image, disk_size(ahead->disk),
                               PACKS_TABLES_MAX);
    settings.pack_count = packs ? packs_wait(packs, &settings.packs) : 0;
    if (settings.pack_count)
        result = sweep_run(&settings, &error);
    packs_end(packs);
    if (result && result != ERROR_CANCELLED)
        log_info("packs of the rest: %s", error.message);
    return result != ERROR_CANCELLED && result != ERROR_UNAVAILABLE;
}

/* All of the disk is to be fetched: then it comes out of packs, many blocks in a request. Waits for the tables. */
static void give_ranges(struct ahead *ahead)
{
    struct digest id;
    struct packs *packs;
    struct ranges *ranges;

    map_image_id(tree_map(disk_tree(ahead->disk)), &id);
    packs = packs_begin_hinted(ahead->store, &ahead->hints, &id, disk_size(ahead->disk), RANGE_TABLES_MAX);
    ranges = packs ? ranges_create(ahead->store, packs) : NULL;
    if (ranges)
        disk_set_ranges(ahead->disk, ranges);
}

/* The boot pack has come (PACKED), or there is none: go on with what else is to be fetched. */
static void go_on(struct ahead *ahead, bool packed)
{
    const struct profile *profile;

    if (!packed)
        request_profile(ahead);
    if (!wait_for_requests(ahead))
        return;
    profile = packed ? NULL : choose_profile(ahead);
    if (!profile)
        disk_set_covered(ahead->disk, false);
    /* Readers who have neither are served best by what is near them, which packs in the order of the disk are not. */
    ahead->fill = fill_start(ahead->disk, ahead->store, &(struct fill_settings){
        .profile = profile, .all = ahead->mode == PREFETCH_ALL, .before_all = packed || profile ? stream_rest : NULL,
        .when_quiet = sweep_rest, .user = ahead});
    if (!ahead->fill)
        disk_set_covered(ahead->disk, false);
    if (ahead->fill && ahead->mode == PREFETCH_ALL && store_cache(ahead->store) && has_rest(ahead))
        give_ranges(ahead);
}

/* At UNTIL_US, or when the disk is left: what nobody has read by then nobody will read soon. */
static void settle(struct ahead *ahead, uint64_t until_us)
{
    bool in_time = true;

    pthread_mutex_lock(&ahead->lock);
    while (!ahead->leaving && in_time)
        in_time = condition_wait_us(&ahead->changed, &ahead->lock, until_us);
    pthread_mutex_unlock(&ahead->lock);
    store_set_generous(ahead->store, false);
}

static void *starter_main(void *user)
{
    struct ahead *ahead = user;
    uint64_t until_us = 0;
    bool packed;

    if (wait_for_requests(ahead)) {
        packed = ahead->prefetch && prefetch_wait(ahead->prefetch);
        until_us = clock_us() + UINT64_C(1000) * HOLD_MS;
        if (wait_for_requests(ahead))
            go_on(ahead, packed);
    }
    settle(ahead, until_us);
    return NULL;
}

/*
 * Readers of a disk whose boot pack is on its way would ask for blocks one by one that the pack brings: wait until it
 * has said which those are. A pack of another image is of no use.
 */
static void meet_pack(struct ahead *ahead)
{
    uint64_t until_us = clock_us() + UINT64_C(1000) * TABLE_WAIT_MS;
    struct prefetch *prefetch;

    until_us += TABLE_WAIT_FACTOR * (clock_us() - ahead->begun_us);
    pthread_mutex_lock(&ahead->lock);
    while (ahead->under_way && condition_wait_us(&ahead->changed, &ahead->lock, until_us))
        ;
    prefetch = ahead->under_way ? NULL : ahead->prefetch;
    pthread_mutex_unlock(&ahead->lock);
    if (prefetch && !is_of_disk(ahead)) {
        log_info("the boot pack is not used: it is of another image");
        prefetch_stop(prefetch);
    } else if (prefetch) {
        prefetch_wait_table(prefetch, until_us);
    }
}

void ahead_disk(struct ahead *ahead, struct disk *disk, const struct profile *kept)
{
    if (!ahead || ahead->disk)
        return;
    ahead->disk = disk;
    pthread_mutex_lock(&ahead->lock);
    ahead->leaving = false;
    pthread_mutex_unlock(&ahead->lock);
    profile_finish(&ahead->kept);
    if (kept)
        (void)profile_copy(kept, &ahead->kept, NULL); /* without memory for it there is none */
    meet_pack(ahead);
    disk_set_covered(disk, true);
    if (pthread_create(&ahead->starter, NULL, starter_main, ahead)) {
        disk_set_covered(disk, false);
        store_set_generous(ahead->store, false);
        ahead->disk = NULL; /* then everything is fetched when it is read */
    }
}

void ahead_leave(struct ahead *ahead, const struct disk *disk)
{
    if (!ahead || !disk || ahead->disk != disk)
        return;
    pthread_mutex_lock(&ahead->lock);
    ahead->leaving = true;
    pthread_cond_broadcast(&ahead->changed);
    prefetch_stop(ahead->prefetch);
    pthread_mutex_unlock(&ahead->lock);
    pthread_join(ahead->starter, NULL);
    fill_stop(ahead->fill);
    ahead->fill = NULL;
    ahead->disk = NULL;
}

void ahead_end(struct ahead *ahead)
{
    if (!ahead)
        return;
    ahead_leave(ahead, ahead->disk);
    pthread_mutex_lock(&ahead->lock);
    while (ahead->under_way)
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    pthread_mutex_unlock(&ahead->lock);
    prefetch_destroy(ahead->prefetch);
    hints_finish(&ahead->hints);
    profile_finish(&ahead->profile);
    profile_finish(&ahead->kept);
    pthread_cond_destroy(&ahead->changed);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead->name);
    free(ahead);
}
