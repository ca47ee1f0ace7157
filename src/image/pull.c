/*
 * Pulling into the cache is a sweep that asks for everything; into a file it
 * asks for what the file does not hold yet, and makes holes of what is zero.
 */
#include "image/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "image/sweep.h"

#define ZEROS_SIZE (256 * KIB)
#define WRITEBACK_SIZE (64 * MIB) /* start writing to the disk after this much */

struct pull {
    struct cache *cache; /* into the cache: */
    uint64_t lost_blocks;

    int fd; /* or into a file: */
    const char *path;
    bool device;
    uint32_t block_size;
    uint64_t disk_size;
    uint64_t old_size; /* of the file before, at most the disk's: beyond there is nothing to keep */
    uint64_t cleared;  /* up to here zeros are zeros */
    uint8_t *existing; /* a block */
    atomic_uint_fast64_t written;

    struct pull_result *result;
};

static int count_block(void *user, uint64_t block, const struct digest *digest, uint32_t length, struct error *error)
{
    struct pull *pull = user;

    (void)block;
    (void)digest;
    (void)error;
    pull->result->blocks++;
    pull->result->bytes += length;
    return 1;
}

static int check_kept(void *user, uint64_t block, const struct digest *digest, uint32_t length, struct error *error)
{
    struct pull *pull = user;

    (void)block;
    (void)length;
    (void)error;
    pull->lost_blocks += !cache_has_block(pull->cache, digest);
    return 0;
}

/* A sweep, with what the store has fetched during it. */
static int sweep_and_count(const struct sweep_settings *settings, struct pull *pull, struct error *error)
{
    struct store_statistics before, after;
    int result;

    store_count(settings->store, &before);
    result = sweep_run(settings, error);
    store_count(settings->store, &after);
    pull->result->fetched_blocks = after.fetched_blocks - before.fetched_blocks;
    pull->result->fetched_bytes = after.fetched_bytes - before.fetched_bytes;
    return result;
}

int pull_to_cache(struct disk *disk, struct store *store, struct packs *packs, const struct progress *progress,
                  struct pull_result *result_out, struct error *error)
{
    struct pull pull = {.cache = store_cache(store), .result = result_out};
    struct sweep_settings settings = {
        .disk = disk, .store = store, .progress = progress, .wanted = count_block, .user = &pull,
    };
    int result;

    *result_out = (struct pull_result){0};
    if (!pull.cache)
        return error_set(error, ERROR_INVALID, "there is no cache to pull into");
    settings.pack_count = packs ? packs_wait(packs, &settings.packs) : 0;
    result = sweep_and_count(&settings, &pull, error);
    if (result)
        return result;
    result_out->present_blocks = result_out->blocks - min_u64(result_out->blocks, result_out->fetched_blocks);
    /* The cache does not complain when it cannot keep a block; here that is what was asked for. */
    cache_settle(pull.cache);
    settings.wanted = check_kept;
    settings.progress = NULL;
    settings.pack_count = 0;
    result = sweep_run(&settings, error);
    if (!result && pull.lost_blocks)
        return error_set(error, ERROR_NO_SPACE, "%llu of %llu blocks are not in the cache %s: it is full, or larger "
                         "than its maximum", (unsigned long long)pull.lost_blocks,
                         (unsigned long long)result_out->blocks, cache_path(pull.cache));
    return result;
}

static int write_zeros(const struct pull *pull, uint64_t from, uint64_t to, struct error *error)
{
    auto_free uint8_t *zeros = calloc(1, ZEROS_SIZE);
    int result = zeros ? 0 : error_set(error, ERROR_SYSTEM, "no memory");

    while (!result && from < to) {
        size_t size = min_u64(ZEROS_SIZE, to - from);

        result = file_pwrite_full(pull->fd, zeros, size, from, error);
        from += size;
    }
    return result ? error_prefix(error, "%s", pull->path) : 0;
}

static int punch(const struct pull *pull, uint64_t from, uint64_t to, struct error *error)
{
    while (fallocate(pull->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from))) {
        if (errno == EINTR)
            continue;
        /* Not every file system can, and a device wants whole sectors. */
        if (errno == EOPNOTSUPP || errno == EINVAL || errno == ENODEV)
            return write_zeros(pull, from, to, error);
        return error_set_errno(error, errno, "cannot clear %llu bytes at %llu of %s", (unsigned long long)(to - from),
                               (unsigned long long)from, pull->path);
    }
    return 0;
}

/* Make zeros of what lies before TO and is not known to be right. */
static int clear_until(struct pull *pull, uint64_t to, struct error *error)
{
    uint64_t at = pull->cleared;
    int result = 0;

    pull->cleared = max_u64(at, to);
    to = min_u64(to, pull->old_size);
    if (pull->device)
        return at < to ? punch(pull, at, to, error) : 0;
    while (!result && at < to) {
        off_t data = lseek(pull->fd, (off_t)at, SEEK_DATA), hole;

        if (data < 0 && errno == ENXIO)
            return 0;
        at = data < 0 ? at : (uint64_t)data;
        if (at >= to)
            return 0;
        hole = data < 0 ? -1 : lseek(pull->fd, data, SEEK_HOLE);
        uint64_t end = hole > data ? min_u64((uint64_t)hole, to) : to;

        result = punch(pull, at, end, error);
        at = end;
    }
    return result;
}

static int want_in_file(void *user, uint64_t block, const struct digest *digest, uint32_t length, struct error *error)
{
    struct pull *pull = user;
    uint64_t offset = block * pull->block_size;
    struct digest actual;
    ssize_t got;
    int result = clear_until(pull, offset, error);

    if (result)
        return result;
    pull->cleared = offset + length;
    pull->result->blocks++;
    pull->result->bytes += length;
    if (offset >= pull->old_size)
        return 1;
    got = file_pread_full(pull->fd, pull->existing, length, offset, error);
    if (got < 0)
        return error_prefix(error, "%s", pull->path);
    if (got < (ssize_t)length || bytes_are_zero(pull->existing, length))
        return 1;
    digest_of(pull->existing, length, &actual);
    if (!digest_equal(&actual, digest))
        return 1;
    pull->result->present_blocks++;
    return 0;
}

static int write_block(void *user, uint64_t block, const struct block *bytes, struct error *error)
{
    struct pull *pull = user;
    uint64_t written;

    if (file_pwrite_full(pull->fd, bytes->bytes, bytes->length, block * pull->block_size, error))
        return error_prefix(error, "%s", pull->path);
    written = atomic_fetch_add(&pull->written, bytes->length) + bytes->length;
    /* So that the flush at the end, without which nothing is acknowledged, has little left to do. */
    if (written % WRITEBACK_SIZE < bytes->length)
        sync_file_range(pull->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return 0;
}

/* Find out what is there, and bring a file to its size. */
static int prepare_file(struct pull *pull, struct error *error)
{
    struct stat status;
    off_t size;

    if (fstat(pull->fd, &status))
        return error_set_errno(error, errno, "cannot look at %s", pull->path);
    pull->device = S_ISBLK(status.st_mode);
    if (!pull->device && !S_ISREG(status.st_mode))
        return error_set(error, ERROR_INVALID, "%s is neither a regular file nor a block device", pull->path);
    size = pull->device ? lseek(pull->fd, 0, SEEK_END) : status.st_size;
    if (size < 0)
        return error_set_errno(error, errno, "cannot find the size of %s", pull->path);
    pull->old_size = min_u64((uint64_t)size, pull->disk_size);
    if (pull->device && (uint64_t)size < pull->disk_size)
        return error_set(error, ERROR_NO_SPACE, "%s has %llu bytes, the disk needs %llu", pull->path,
                         (unsigned long long)size, (unsigned long long)pull->disk_size);
    if (!pull->device && (uint64_t)size != pull->disk_size && ftruncate(pull->fd, (off_t)pull->disk_size))
        return error_set_errno(error, errno, "cannot set the size of %s", pull->path);
    return 0;
}

int pull_to_file(struct disk *disk, struct store *store, struct packs *packs, int fd, const char *path,
                 const struct progress *progress, struct pull_result *result_out, struct error *error)
{
    auto_free uint8_t *existing = malloc(disk_block_size(disk));
    struct pull pull = {
        .fd = fd,
        .path = path,
        .block_size = disk_block_size(disk),
        .disk_size = disk_size(disk),
        .existing = existing,
        .result = result_out,
    };
    struct sweep_settings settings = {
        .disk = disk, .store = store, .progress = progress, .wanted = want_in_file, .arrived = write_block,
        .user = &pull,
    };
    int result = existing ? prepare_file(&pull, error) : error_set(error, ERROR_SYSTEM, "no memory for a block");

    *result_out = (struct pull_result){0};
    settings.pack_count = packs ? packs_wait(packs, &settings.packs) : 0;
    if (!result)
        result = sweep_and_count(&settings, &pull, error);
    if (!result)
        result = clear_until(&pull, pull.disk_size, error);
    if (!result && fsync(fd))
        result = error_set_errno(error, errno, "cannot flush %s", path);
    return result;
}
