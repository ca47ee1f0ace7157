/* Ahead: see ahead.h. */
#include "image/ahead.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/latch.h"
#include "base/log.h"

struct ahead {
    struct store *store;
    enum prefetch_mode mode;
    struct latch hints_came;   /* or will not */
    struct hints hints;        /* written before the latch is set */
    struct prefetch *prefetch; /* likewise */
    struct disk *disk;
    struct profile kept;       /* of earlier runs; empty: none */
    struct fill *fill;         /* written by STARTER */
    pthread_t starter;         /* waits for the hints and then fills; only if DISK */
};

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

static void hints_done(void *user, int code, const struct error *error)
{
    struct ahead *ahead = user;

    if (code)
        hints_finish(&ahead->hints);
    else
        ahead->prefetch = prefetch_pack(ahead->store, &ahead->hints);
    if (code && code != ERROR_NOT_FOUND && code != ERROR_CANCELLED)
        log_info("no hints: %s", error->message);
    latch_set(&ahead->hints_came, 0, NULL);
}

struct ahead *ahead_begin(struct store *store, const char *name, const char *version, enum prefetch_mode mode)
{
    struct ahead *ahead = mode != PREFETCH_NONE && store_mirrors(store) ? calloc(1, sizeof(*ahead)) : NULL;
    char path[ARCHIVE_PATH_MAX];

    if (!ahead)
        return NULL;
    ahead->store = store;
    ahead->mode = mode;
    latch_init(&ahead->hints_came);
    mirrors_fetch(store_mirrors(store), &(struct mirrors_request){
        .path = version && *version ? archive_path_hints(name, version, path) : archive_path_newest_hints(name, path),
        .size_limit = HINTS_SIZE_MAX,
        .priority = PRIORITY_PROFILE,
        .patience_ms = 1, /* one pass: they are only hints */
        .accept = accept_hints,
        .done = hints_done,
        .user = ahead,
    });
    return ahead;
}

/* A profile on its way, and the digest that names it. */
struct incoming_profile {
    const struct digest *wanted;
    struct profile profile;
};

static int accept_profile(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct incoming_profile *incoming = user;
    struct error reason = ERROR_INIT;
    struct digest digest;

    digest_of(bytes, size, &digest);
    if (!digest_equal(&digest, incoming->wanted))
        return error_set(error, ERROR_CORRUPT, "digest differs");
    profile_finish(&incoming->profile);
    /* What the digest names is no profile: the hints are to blame, not the mirror. */
    if (profile_parse(bytes, size, &incoming->profile, &reason))
        log_info("the profile is not used: %s", reason.message);
    return 0;
}

/* The published profile; empty if there is none, or it is of another image. */
static struct profile fetch_profile(struct ahead *ahead)
{
    struct incoming_profile incoming = {.wanted = &ahead->hints.profile};
    struct digest id;
    char path[ARCHIVE_PATH_MAX];
    int result;

    if (digest_is_zero(&ahead->hints.profile))
        return incoming.profile;
    result = mirrors_fetch_wait(store_mirrors(ahead->store), &(struct mirrors_request){
        .path = archive_path_file(&ahead->hints.profile, path),
        .size_limit = PROFILE_SIZE_MAX,
        .priority = PRIORITY_PROFILE,
        .patience_ms = 1,
        .accept = accept_profile,
        .user = &incoming,
    }, NULL);
    map_image_id(tree_map(disk_tree(ahead->disk)), &id);
    if (result || !digest_equal(&incoming.profile.image, &id))
        profile_finish(&incoming.profile);
    return incoming.profile;
}

static void *starter_main(void *user)
{
    struct ahead *ahead = user;
    struct profile profile = {0};
    bool all = ahead->mode == PREFETCH_ALL;

    latch_wait(&ahead->hints_came, NULL);
    if (!ahead->prefetch)
        profile = fetch_profile(ahead);
    if (!ahead->prefetch && !profile.run_count && ahead->kept.run_count && !profile_copy(&ahead->kept, &profile, NULL))
        log_info("prefetching along the profile of earlier runs, of %llu blocks",
                 (unsigned long long)profile.block_count);
    ahead->fill = fill_start(ahead->disk, ahead->store, profile.run_count ? &profile : NULL, all);
    profile_finish(&profile);
    return NULL;
}

void ahead_disk(struct ahead *ahead, struct disk *disk, const struct profile *kept)
{
    if (!ahead || ahead->disk)
        return;
    ahead->disk = disk;
    profile_finish(&ahead->kept);
    if (kept)
        (void)profile_copy(kept, &ahead->kept, NULL); /* without memory for it there is none */
    if (pthread_create(&ahead->starter, NULL, starter_main, ahead))
        ahead->disk = NULL; /* then everything is fetched when it is read */
}

void ahead_leave(struct ahead *ahead, const struct disk *disk)
{
    if (!ahead || !disk || ahead->disk != disk)
        return;
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
    latch_wait(&ahead->hints_came, NULL);
    prefetch_destroy(ahead->prefetch);
    hints_finish(&ahead->hints);
    profile_finish(&ahead->kept);
    latch_finish(&ahead->hints_came);
    free(ahead);
}
