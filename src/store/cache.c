/*
 * The cache folder: opening it, and reading and writing single blocks and maps.
 *
 * What an attacker gains who can write into the folder: nothing but time. Whatever comes from here is verified by the
 * reader, so the folder's owner and mode are not checked; it is made 0755 less the umask, so that a web server may
 * serve it. Names are made here out of digests and checked words, never taken from outside.
 */
#include "store/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "format/frame.h"
#include "format/name.h"
#include "store/cache_parts.h"

#define REST_MS 30000
#define MARK_SECONDS 600

static void make_layout(int root_fd)
{
    static const char *const folders[] = {"blocks", "maps", "files", "packs", "archives"};

    /* If it cannot be done now, what needs the folder tries again and says so. */
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
        (void)!mkdirat(root_fd, folders[i], 0755);
}

int cache_open(const char *path, uint64_t max_bytes, struct cache **cache_out, struct error *error)
{
    auto_close int root_fd = file_open_folder(path, true, error);
    struct cache *cache;

    if (root_fd < 0)
        return root_fd;
    /* Pruning a publisher's archive would destroy it. */
    if (!faccessat(root_fd, ARCHIVE_CATALOG, F_OK, AT_SYMLINK_NOFOLLOW))
        return error_set(error, ERROR_INVALID, "%s is a published archive (it has a " ARCHIVE_CATALOG
                         "), it cannot be a cache", path);
    cache = calloc(1, sizeof(*cache));
    if (!cache || !(cache->path = strdup(path))) {
        free(cache);
        return error_set(error, ERROR_SYSTEM, "no memory to open the cache %s", path);
    }
    make_layout(root_fd);
    usage_open(&cache->usage, root_fd, max_bytes);
    pthread_mutex_init(&cache->prune_lock, NULL);
    behind_open(&cache->behind, cache);
    atomic_flag_clear(&cache->warned);
    cache->root_fd = steal_fd(&root_fd);
    cache->max_bytes = max_bytes <= INT64_MAX / 2 ? max_bytes : 0;
    *cache_out = cache;
    return 0;
}

void cache_close(struct cache *cache)
{
    if (!cache)
        return;
    behind_close(&cache->behind);
    usage_close(&cache->usage);
    pthread_mutex_destroy(&cache->prune_lock);
    close(cache->root_fd);
    free(cache->path);
    free(cache);
}

const char *cache_path(const struct cache *cache)
{
    return cache->path;
}

int cache_folder_fd(const struct cache *cache)
{
    return cache->root_fd;
}

void cache_rest(struct cache *cache, const char *reason)
{
    atomic_store(&cache->uncached_until, clock_ms() + REST_MS);
    log_warning_once(&cache->warned, "cache: cannot write to %s, reading goes on without it: %s", cache->path,
                     reason);
}

void cache_failed(struct cache *cache, const char *what, int errno_value)
{
    char reason[256];

    snprintf(reason, sizeof(reason), "%s: %s", what, strerror(errno_value));
    switch (errno_value) {
    case EISDIR:
    case ENOTDIR:
    case ELOOP:
    case ENOTEMPTY:
        /* This one name is in the way, the next will do. */
        log_debug("cache: %s/%s", cache->path, reason);
        return;
    default:
        cache_rest(cache, reason);
    }
}

static bool is_resting(struct cache *cache)
{
    uint64_t until = atomic_load_explicit(&cache->uncached_until, memory_order_relaxed);

    return until && clock_ms() < until;
}

/* The bytes that are free on the file system, and those that have to stay so. False: it does not know its size. */
static bool measure_space(const struct cache *cache, uint64_t *free_out, uint64_t *keep_out)
{
    return file_space(cache->root_fd, free_out, keep_out);
}

/* True if SIZE more bytes leave enough free space on the file system, asked for every few megabytes. */
static bool has_free_space(struct cache *cache, uint64_t size)
{
    uint64_t free_bytes, keep;
    char reason[80], text[SIZE_TEXT];

    if (atomic_fetch_sub(&cache->room, (int64_t)size) >= (int64_t)size)
        return true;
    if (!measure_space(cache, &free_bytes, &keep)) {
        atomic_store(&cache->room, (int64_t)(4 * MIB));
        return true;
    }
    if (free_bytes < keep + size) {
        snprintf(reason, sizeof(reason), "only %s are free on its file system", size_format(free_bytes, text));
        cache_rest(cache, reason);
        return false;
    }
    atomic_store(&cache->room, (int64_t)min_u64(4 * MIB, free_bytes - keep - size));
    return true;
}

/* An errno of opening or reading a block's file as what it means to the reader. */
static int read_failed(int errno_value, const char *path, struct error *error)
{
    if (errno_value == ENOENT)
        return error_set(error, ERROR_NOT_FOUND, "%s is not cached", path);
    /* A symbolic link, a socket, a folder, a bad sector: not what was written here. */
    if (errno_value == ELOOP || errno_value == ENXIO || errno_value == EISDIR || errno_value == EIO)
        return error_set(error, ERROR_CORRUPT, "cannot be read: %s", strerror(errno_value));
    return error_set_errno(error, errno_value, "cannot read %s", path);
}

/*
 * The first read of a file since it was written, or in a day, changes its time of access, which costs a journal entry
 * while a reader waits. Only a file's owner may do without.
 */
static int open_block(struct cache *cache, const char *path)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;

    if (!atomic_load_explicit(&cache->foreign, memory_order_relaxed)) {
        int fd = openat(cache->root_fd, path, flags | O_NOATIME);

        if (fd >= 0 || errno != EPERM)
            return fd;
        atomic_store(&cache->foreign, true);
    }
    return openat(cache->root_fd, path, flags);
}

int cache_read_block(struct cache *cache, const struct digest *digest, uint32_t block_length, struct buffer *frame,
                     bool *unmarked_out, struct error *error)
{
    char path[BLOCK_PATH_SIZE];
    auto_close int fd = -1;
    struct stat status;
    ssize_t got;

    *unmarked_out = false;
    frame->size = 0;
    if (behind_read(&cache->behind, digest, frame))
        return 0;
    fd = open_block(cache, cache_block_path(digest, path));
    if (fd < 0 || fstat(fd, &status))
        return read_failed(errno, path, error);
    if (!S_ISREG(status.st_mode))
        return error_set(error, ERROR_CORRUPT, "not a regular file");
    if (status.st_size <= 0 || (uint64_t)status.st_size > frame_bound(block_length))
        return error_set(error, ERROR_CORRUPT, "its file has %lld bytes", (long long)status.st_size);
    if (!buffer_reserve(frame, (size_t)status.st_size))
        return error_set(error, ERROR_SYSTEM, "no memory to read %s", path);
    got = file_pread_full(fd, frame->bytes, (size_t)status.st_size, 0, NULL);
    if (got < 0)
        return read_failed(errno, path, error);
    frame->size = (size_t)got;
    *unmarked_out = clock_wall() - status.st_mtim.tv_sec > MARK_SECONDS;
    return 0;
}

void cache_mark_block(struct cache *cache, const struct digest *digest)
{
    char path[BLOCK_PATH_SIZE];

    (void)!utimensat(cache->root_fd, cache_block_path(digest, path), NULL, AT_SYMLINK_NOFOLLOW);
}

bool cache_has_block(struct cache *cache, const struct digest *digest)
{
    char path[BLOCK_PATH_SIZE];

    return behind_has(&cache->behind, digest) ||
           !faccessat(cache->root_fd, cache_block_path(digest, path), F_OK, AT_SYMLINK_NOFOLLOW);
}

/* Give the nameless file FD the name PATH, by a way that works here. 0 or -1 with errno. */
static int link_file(struct cache *cache, int fd, const char *path)
{
    char own[40];

    if (atomic_load_explicit(&cache->link_way, memory_order_relaxed) == LINK_BY_DESCRIPTOR) {
        if (!linkat(fd, "", cache->root_fd, path, AT_EMPTY_PATH))
            return 0;
        /* Either the folder of PATH is missing, or it is a kernel before 6.10, which wants a privilege for this. */
        if (errno != ENOENT)
            return -1;
    }
    snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, own, cache->root_fd, path, AT_SYMLINK_FOLLOW))
        return -1;
    atomic_store(&cache->link_way, LINK_BY_PROC);
    return 0;
}

/* The way for file systems that have no nameless files: a temporary name, then rename. */
static int write_by_rename(struct cache *cache, const char *path, const void *frame, size_t frame_size)
{
    struct error error = ERROR_INIT;
    int result = file_write_atomic(cache->root_fd, path, frame, frame_size, FILE_MAKE_FOLDERS, &error);

    if (result)
        cache_rest(cache, error.message);
    return result;
}

/*
 * No flush to disk: a file torn by a power cut fails its digest when it is read. A nameless file costs a tenth less
 * than a temporary name and a rename, and a killed writer leaves nothing.
 */
static int write_file(struct cache *cache, const char *path, const void *frame, size_t frame_size)
{
    auto_close int fd = -1;

    if (atomic_load_explicit(&cache->link_way, memory_order_relaxed) == LINK_BY_RENAME)
        return write_by_rename(cache, path, frame, frame_size);
    fd = openat(cache->root_fd, "blocks", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)) {
        if (errno != ENOENT)
            atomic_store(&cache->link_way, LINK_BY_RENAME);
        return write_by_rename(cache, path, frame, frame_size);
    }
    if (fd < 0 || file_pwrite_full(fd, frame, frame_size, 0, NULL)) {
        cache_failed(cache, "blocks", errno);
        return -1;
    }
    if (!link_file(cache, fd, path))
        return 0;
    if (errno == ENOENT && !file_make_parent(cache->root_fd, path, NULL) && !link_file(cache, fd, path))
        return 0;
    if (errno == EEXIST)
        return -1; /* somebody else was faster */
    if (errno == ENOENT)
        atomic_store(&cache->link_way, LINK_BY_RENAME);
    cache_failed(cache, path, errno);
    return -1;
}

bool cache_has_room(struct cache *cache)
{
    uint64_t free_bytes, keep;

    if (is_resting(cache) || (measure_space(cache, &free_bytes, &keep) && free_bytes < 2 * keep))
        return false;
    return !cache->max_bytes || usage_refresh(&cache->usage) < (int64_t)(cache->max_bytes - cache->max_bytes / 8);
}

void cache_write_block(struct cache *cache, const struct digest *digest, const void *frame, size_t frame_size)
{
    char path[BLOCK_PATH_SIZE];
    int64_t charge = (int64_t)cache_charge(frame_size);

    if (is_resting(cache))
        return;
    if (cache->max_bytes && usage_is_stale(&cache->usage))
        cache_make_room(cache, 0);
    if (!usage_reserve(&cache->usage, charge, cache->max_bytes)) {
        /* Not while reserved: a scan counts files, and would take the reservation for an error of the count. */
        cache_make_room(cache, charge);
        if (!usage_reserve(&cache->usage, charge, cache->max_bytes))
            return;
    }
    if (!has_free_space(cache, (uint64_t)charge) ||
        write_file(cache, cache_block_path(digest, path), frame, frame_size))
        usage_add(&cache->usage, -charge);
}

void cache_drop_block(struct cache *cache, const struct digest *digest)
{
    char path[BLOCK_PATH_SIZE];
    struct stat status;

    if (fstatat(cache->root_fd, cache_block_path(digest, path), &status, AT_SYMLINK_NOFOLLOW))
        return;
    if (unlinkat(cache->root_fd, path, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0))
        log_warning("cache: cannot remove the damaged %s/%s: %s", cache->path, path, strerror(errno));
    else if (S_ISREG(status.st_mode))
        usage_add(&cache->usage, -(int64_t)cache_charge((uint64_t)status.st_size));
}

int cache_read_map(struct cache *cache, const struct digest *image_id, uint64_t offset, void *bytes, size_t size,
                   struct error *error)
{
    char path[ARCHIVE_PATH_MAX];
    auto_close int fd = openat(cache->root_fd, archive_path_map(image_id, path),
                               O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    ssize_t got;

    if (fd < 0)
        return error_set_errno(error, errno, "cannot read %s", path);
    got = file_pread_full(fd, bytes, size, offset, error);
    if (got < 0)
        return error_prefix(error, "%s", path);
    memset((uint8_t *)bytes + got, 0, size - (size_t)got);
    return 0;
}

void cache_write_map(struct cache *cache, const struct digest *image_id, uint64_t offset, const void *bytes,
                     size_t size)
{
    char path[ARCHIVE_PATH_MAX];
    auto_close int fd = -1;

    if (is_resting(cache) || !has_free_space(cache, cache_charge(size)))
        return;
    fd = openat(cache->root_fd, archive_path_map(image_id, path), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 && errno == ENOENT && !file_make_parent(cache->root_fd, path, NULL))
        fd = openat(cache->root_fd, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    /* Two writers of one page write the same bytes; one torn by a crash fails its digest. */
    if (fd < 0 || file_pwrite_full(fd, bytes, size, offset, NULL))
        cache_failed(cache, path, errno);
}
