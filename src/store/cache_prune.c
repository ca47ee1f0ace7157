/*
 * Walking over the cache, measuring it, and removing what was least recently used. One prune at a time among all
 * processes that share the folder; the memory it takes does not grow with the cache.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "store/cache_parts.h"

/* Most blocks that one round removes; a larger prune takes several. */
#define ROUND_BLOCKS 32768
/* After a prune that freed nothing, writers do not ask for another before this. */
#define PRUNE_REST_MS 10000
#define FOLDER_DEPTH_MAX 6

struct walk {
    int (*block)(struct walk *walk, const struct digest *digest, const struct stat *status);
    void (*temporary)(struct walk *walk, int folder_fd, const char *name, const struct stat *status);
};

static void close_folder(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

/* PATH below FD as a stream of names, NULL with errno. */
static DIR *open_folder(int fd, const char *path)
{
    int folder_fd = openat(fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = folder_fd < 0 ? NULL : fdopendir(folder_fd);

    if (!folder && folder_fd >= 0)
        close(folder_fd);
    return folder;
}

static int visit_entry(struct walk *walk, int folder_fd, unsigned prefix, const char *name)
{
    struct digest digest;
    struct stat status;
    bool temporary = file_is_temporary(name);

    if (!temporary && (!digest_parse(name, &digest) || digest.bytes[0] != prefix))
        return 0;
    /* It may be gone by now. */
    if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) || !S_ISREG(status.st_mode))
        return 0;
    if (!temporary)
        return walk->block(walk, &digest, &status);
    if (walk->temporary)
        walk->temporary(walk, folder_fd, name, &status);
    return 0;
}

/* All of blocks/. Nonzero from the callback stops and is returned. */
static int walk_blocks(struct cache *cache, struct walk *walk, struct error *error)
{
    for (unsigned prefix = 0; prefix < 256; prefix++) {
        char path[16];
        cleanup(close_folder) DIR *folder = NULL;
        struct dirent *entry;

        snprintf(path, sizeof(path), "blocks/%02x", prefix);
        folder = open_folder(cache->root_fd, path);
        if (!folder && errno != ENOENT && errno != ENOTDIR)
            return error_set_errno(error, errno, "cannot read the folder %s/%s", cache->path, path);
        while (folder && (entry = readdir(folder))) {
            int result = visit_entry(walk, dirfd(folder), prefix, entry->d_name);

            if (result)
                return result;
        }
    }
    return 0;
}

static bool is_old(const struct stat *status)
{
    return clock_wall() - status->st_mtim.tv_sec > TEMPORARY_AGE_SECONDS;
}

/*
 * Call FILE for the regular files below PATH, temporary or not. Depth is bounded; symbolic links are not followed,
 * so that the links of archives/<key>/ to blocks/ are not.
 */
static void walk_small(int fd, const char *path, int depth,
                       void (*file)(void *user, int folder_fd, const char *name, const struct stat *status),
                       void *user)
{
    int folder_fd = openat(fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup(close_folder) DIR *folder = folder_fd < 0 ? NULL : fdopendir(folder_fd);
    struct dirent *entry;

    if (!folder && folder_fd >= 0)
        close(folder_fd);
    while (folder && (entry = readdir(folder))) {
        struct stat status;

        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            fstatat(folder_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
            continue;
        if (S_ISDIR(status.st_mode) && depth > 1)
            walk_small(folder_fd, entry->d_name, depth - 1, file, user);
        else if (S_ISREG(status.st_mode))
            file(user, folder_fd, entry->d_name, &status);
    }
}

struct measure {
    struct walk walk;
    struct cache_usage *usage;
};

static int measure_block(struct walk *walk, const struct digest *digest, const struct stat *status)
{
    struct measure *measure = (struct measure *)walk;

    (void)digest;
    measure->usage->block_count++;
    measure->usage->block_bytes += cache_charge((uint64_t)status->st_size);
    return 0;
}

static void measure_temporary(struct walk *walk, int folder_fd, const char *name, const struct stat *status)
{
    (void)folder_fd;
    (void)name;
    if (is_old(status))
        ((struct measure *)walk)->usage->temporary_count++;
}

static void measure_small(void *user, int folder_fd, const char *name, const struct stat *status)
{
    if (file_is_temporary(name))
        measure_temporary(user, folder_fd, name, status);
}

static bool is_profile(const char *name)
{
    size_t length = strlen(name), suffix = strlen(CACHE_PROFILE_SUFFIX);

    return !file_is_temporary(name) && length > suffix && !strcmp(name + length - suffix, CACHE_PROFILE_SUFFIX);
}

static void measure_metadata(void *user, int folder_fd, const char *name, const struct stat *status)
{
    struct measure *measure = user;

    measure_small(user, folder_fd, name, status);
    if (is_profile(name)) {
        measure->usage->profile_count++;
        measure->usage->profile_bytes += (uint64_t)status->st_size;
    }
}

static void measure_map(void *user, int folder_fd, const char *name, const struct stat *status)
{
    struct measure *measure = user;

    measure_small(user, folder_fd, name, status);
    measure->usage->map_bytes += (uint64_t)status->st_blocks * 512;
}

int cache_measure(struct cache *cache, struct cache_usage *usage_out, struct error *error)
{
    int64_t before = usage_refresh(&cache->usage);
    struct cache_usage usage = {.max_bytes = cache->max_bytes};
    struct measure measure = {{measure_block, measure_temporary}, &usage};
    struct statvfs fs;
    int result = walk_blocks(cache, &measure.walk, error);

    if (result)
        return result;
    usage_correct(&cache->usage, before, usage.block_bytes);
    walk_small(cache->root_fd, "maps", 1, measure_map, &measure);
    walk_small(cache->root_fd, "files", 1, measure_small, &measure);
    walk_small(cache->root_fd, "archives", FOLDER_DEPTH_MAX, measure_metadata, &measure);
    if (fstatvfs(cache->root_fd, &fs))
        return error_set_errno(error, errno, "cannot ask for the free space of %s", cache->path);
    usage.free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *usage_out = usage;
    return 0;
}

struct candidate {
    int64_t used_ns; /* modification time, since that is what marks use */
    uint64_t charge;
    struct digest digest;
};

/*
 * One round: the least recently used blocks that together make up NEEDED bytes, in a heap with the most recent on
 * top, so that it gives way when an older one is found.
 */
struct round {
    struct walk walk;
    uint64_t needed;
    uint64_t total; /* all blocks seen */
    uint64_t held;  /* those in the heap */
    size_t count;
    size_t capacity;
    struct candidate *heap;
    int refusal; /* errno of one that could not be removed */
};

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate saved = *a;

    *a = *b;
    *b = saved;
}

static void heap_push(struct round *round, const struct candidate *candidate)
{
    struct candidate *heap = round->heap;
    size_t at = round->count++;

    heap[at] = *candidate;
    round->held += candidate->charge;
    for (; at && heap[(at - 1) / 2].used_ns < heap[at].used_ns; at = (at - 1) / 2)
        swap(&heap[at], &heap[(at - 1) / 2]);
}

static void heap_pop(struct round *round)
{
    struct candidate *heap = round->heap;
    size_t at = 0;

    round->held -= heap[0].charge;
    heap[0] = heap[--round->count];
    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < round->count && heap[child + 1].used_ns > heap[child].used_ns)
            child++;
        if (child >= round->count || heap[child].used_ns <= heap[at].used_ns)
            return;
        swap(&heap[at], &heap[child]);
        at = child;
    }
}

static bool heap_grow(struct round *round)
{
    struct candidate *heap = array_grow(round->heap, round->count, &round->capacity, sizeof(*heap));

    if (heap)
        round->heap = heap;
    return heap;
}

static int collect(struct walk *walk, const struct digest *digest, const struct stat *status)
{
    struct round *round = (struct round *)walk;
    struct candidate candidate = {
        .used_ns = (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec,
        .charge = cache_charge((uint64_t)status->st_size),
        .digest = *digest,
    };
    bool enough = round->held >= round->needed || round->count == ROUND_BLOCKS;

    round->total += candidate.charge;
    if (enough && (round->count == 0 || candidate.used_ns >= round->heap[0].used_ns))
        return 0;
    if (round->count == ROUND_BLOCKS || (round->count == round->capacity && !heap_grow(round))) {
        if (round->count == 0)
            return 0;
        heap_pop(round);
    }
    heap_push(round, &candidate);
    while (round->count && round->held - round->heap[0].charge >= round->needed)
        heap_pop(round);
    return 0;
}

static void remove_temporary(struct walk *walk, int folder_fd, const char *name, const struct stat *status)
{
    (void)walk;
    if (is_old(status))
        unlinkat(folder_fd, name, 0);
}

static void remove_small(void *user, int folder_fd, const char *name, const struct stat *status)
{
    (void)user;
    if (file_is_temporary(name))
        remove_temporary(NULL, folder_fd, name, status);
}

/* Below files/, where the tables of packs are. */
static void remove_file(void *user, int folder_fd, const char *name, const struct stat *status)
{
    remove_small(user, folder_fd, name, status);
    if (clock_wall() - status->st_mtim.tv_sec > CACHE_PROFILE_DAYS * 86400)
        unlinkat(folder_fd, name, 0);
}

static void remove_metadata(void *user, int folder_fd, const char *name, const struct stat *status)
{
    remove_small(user, folder_fd, name, status);
    if (is_profile(name) && clock_wall() - status->st_mtim.tv_sec > CACHE_PROFILE_DAYS * 86400)
        unlinkat(folder_fd, name, 0);
}

static int compare_age(const void *a, const void *b)
{
    const struct candidate *first = a, *second = b;

    return first->used_ns < second->used_ns ? -1 : first->used_ns > second->used_ns;
}

/* Remove the round's blocks, oldest first, until MAX_BYTES are left. Returns what was removed. */
static uint64_t remove_oldest(struct cache *cache, struct round *round, uint64_t max_bytes)
{
    uint64_t removed = 0;

    if (round->count)
        qsort(round->heap, round->count, sizeof(round->heap[0]), compare_age);
    for (size_t i = 0; i < round->count && round->total - removed > max_bytes; i++) {
        char path[BLOCK_PATH_SIZE];

        if (!unlinkat(cache->root_fd, cache_block_path(&round->heap[i].digest, path), 0)) {
            usage_add(&cache->usage, -(int64_t)round->heap[i].charge);
        } else if (errno != ENOENT) {
            round->refusal = errno;
            continue;
        }
        removed += round->heap[i].charge;
    }
    return removed;
}

static int prune_round(struct cache *cache, uint64_t max_bytes, struct round *round, uint64_t *removed_out,
                       struct error *error)
{
    int64_t before = usage_refresh(&cache->usage);
    int result;

    round->total = round->held = round->count = 0;
    round->refusal = 0;
    result = walk_blocks(cache, &round->walk, error);
    if (result)
        return result;
    usage_correct(&cache->usage, before, round->total);
    *removed_out = remove_oldest(cache, round, max_bytes);
    return 0;
}

/* Under both prune locks. *REFUSAL_OUT (not NULL): errno of why more than MAX_BYTES are left, or 0. */
static int prune(struct cache *cache, uint64_t max_bytes, uint64_t *removed_bytes_out, int *refusal_out,
                 struct error *error)
{
    int64_t held = usage_refresh(&cache->usage);
    struct round round = {
        .walk = {collect, remove_temporary},
        .needed = held > 0 && (uint64_t)held > max_bytes ? (uint64_t)held - max_bytes : 0,
    };
    uint64_t removed, left;
    bool only_measured;
    int result;

    *removed_bytes_out = 0;
    do {
        only_measured = round.needed == 0;
        result = prune_round(cache, max_bytes, &round, &removed, error);
        if (result)
            break;
        *removed_bytes_out += removed;
        left = round.total - removed;
        /* More rounds: the estimate was too low, or it is more than one round's work. */
        round.needed = left > max_bytes ? left - max_bytes : 0;
    } while (round.needed && (removed || only_measured));
    if (refusal_out)
        *refusal_out = round.needed ? round.refusal : 0;
    free(round.heap);
    return result;
}

int cache_prune(struct cache *cache, uint64_t max_bytes, uint64_t *removed_bytes_out, struct error *error)
{
    int result, refusal;

    pthread_mutex_lock(&cache->prune_lock);
    usage_lock_prune(&cache->usage, true);
    result = prune(cache, max_bytes, removed_bytes_out, &refusal, error);
    if (!result && refusal)
        result = error_set_errno(error, refusal, "cannot remove blocks from the cache %s", cache->path);
    if (!result) {
        walk_small(cache->root_fd, "maps", 1, remove_small, NULL);
        walk_small(cache->root_fd, "files", 1, remove_file, NULL);
        walk_small(cache->root_fd, "archives", FOLDER_DEPTH_MAX, remove_metadata, NULL);
    }
    usage_unlock_prune(&cache->usage);
    pthread_mutex_unlock(&cache->prune_lock);
    return result;
}

/* Under both prune locks. */
static void make_room(struct cache *cache, int64_t extra)
{
    uint64_t removed = 0;
    struct error error = ERROR_INIT;
    bool over = usage_refresh(&cache->usage) + extra > (int64_t)cache->max_bytes;

    /* Another process may have made room by now. */
    if (!over && !usage_is_stale(&cache->usage))
        return;
    /* An eighth at a time, so that one scan serves many writes; only a scan if the count may be wrong. */
    if (prune(cache, over ? cache->max_bytes - cache->max_bytes / 8 : cache->max_bytes, &removed, NULL, &error))
        log_warning("cache: cannot prune %s: %s", cache->path, error.message);
    if (over && !removed && usage_refresh(&cache->usage) + extra > (int64_t)cache->max_bytes)
        atomic_store(&cache->next_prune, clock_ms() + PRUNE_REST_MS);
    log_debug("cache: removed %llu bytes of least recently used blocks", (unsigned long long)removed);
}

void cache_make_room(struct cache *cache, int64_t extra)
{
    if (clock_ms() < atomic_load(&cache->next_prune) || pthread_mutex_trylock(&cache->prune_lock))
        return;
    if (usage_lock_prune(&cache->usage, false)) {
        make_room(cache, extra);
        usage_unlock_prune(&cache->usage);
    }
    pthread_mutex_unlock(&cache->prune_lock);
}
