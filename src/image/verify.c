/*
 * Verifying a disk: as its mirrors deliver it, or as it was written out. See
 * verify_archive.c for folders.
 */
#include "image/verify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "format/name.h"
#include "image/sweep.h"
#include "image/verify_internal.h"

#define PIECE_SIZE MIB

void verify_fault(const struct verify_report *report, struct verify_result *result, const char *where,
                  const char *what)
{
    result->bad++;
    if (report->fault)
        report->fault(report->user, where, what);
}

struct check {
    const struct verify_report *report;
    struct verify_result *result;
    int fd;
    const char *path;
    uint32_t block_size;
    uint64_t size; /* of the disk */
    uint64_t checked; /* up to here */
    uint64_t lost, lost_offset; /* data blocks past the end of the file, and where the first one belongs */
    uint8_t *bytes; /* PIECE_SIZE */
};

static int count_wanted(void *user, uint64_t block, const struct digest *digest, uint32_t length,
                        struct error *error)
{
    struct check *check = user;

    (void)block;
    (void)digest;
    (void)error;
    check->result->checked_files++;
    check->result->checked_bytes += length;
    return 1;
}

static int tell_failed(void *user, uint64_t block, const struct digest *digest, const struct error *reason)
{
    struct check *check = user;
    char where[ARCHIVE_PATH_MAX + 64], path[ARCHIVE_PATH_MAX];

    if (reason->code != ERROR_CORRUPT && reason->code != ERROR_NOT_FOUND)
        return reason->code;
    check->result->missing += reason->code == ERROR_NOT_FOUND;
    snprintf(where, sizeof(where), "block %llu (%s)", (unsigned long long)block, archive_path_block(digest, path));
    verify_fault(check->report, check->result, where, reason->message);
    return 0;
}

int verify_disk(struct disk *disk, struct store *store, const struct verify_report *report,
                struct verify_result *result_out, struct error *error)
{
    struct check check = {.report = report, .result = result_out};
    const struct sweep_settings settings = {
        .disk = disk, .store = store, .progress = report->progress, .wanted = count_wanted, .failed = tell_failed,
        .user = &check,
    };

    *result_out = (struct verify_result){0};
    return sweep_run(&settings, error);
}

static void tell_block(struct check *check, uint64_t offset, const char *what)
{
    char where[1200];

    snprintf(where, sizeof(where), "block %llu at offset %llu of %.1000s",
             (unsigned long long)(offset / check->block_size),
             (unsigned long long)(offset - offset % check->block_size), check->path);
    verify_fault(check->report, check->result, where, what);
}

/* They are told in one line: of a file that was cut off there may be a million. */
static void tell_lost(struct check *check)
{
    char where[1200];

    if (!check->lost)
        return;
    snprintf(where, sizeof(where), "%llu blocks from block %llu at offset %llu of %.1000s on",
             (unsigned long long)check->lost, (unsigned long long)(check->lost_offset / check->block_size),
             (unsigned long long)check->lost_offset, check->path);
    verify_fault(check->report, check->result, where, "the file ends before them");
}

/* Whether the bytes from AT on, at most to the end of their block, are zero, and how many they are. */
static int check_zero_block(struct check *check, uint64_t *at, uint64_t end, struct error *error)
{
    uint64_t block_end = *at - *at % check->block_size + check->block_size;
    size_t size = min_u64(end, block_end) - *at;
    ssize_t got = file_pread_full(check->fd, check->bytes, size, *at, error);

    if (got < 0)
        return error_prefix(error, "%s", check->path);
    if (!bytes_are_zero(check->bytes, (size_t)got))
        tell_block(check, *at, "it should be all zero");
    *at += size;
    return 0;
}

/* What lies before END and is not in a data block must be zero; holes are, without being read. */
static int check_zeros_until(struct check *check, uint64_t end, struct error *error)
{
    uint64_t at = check->checked;
    int result = 0;

    while (!result && at < end) {
        off_t data = lseek(check->fd, (off_t)at, SEEK_DATA);

        if (data < 0 && errno == ENXIO)
            break;
        if (data > 0)
            at = max_u64(at, (uint64_t)data);
        if (at < end)
            result = check_zero_block(check, &at, end, error);
    }
    check->checked = max_u64(check->checked, end);
    return result;
}

static int check_data_block(void *user, uint64_t block, const struct digest *digest, uint32_t length,
                            struct error *error)
{
    struct check *check = user;
    uint64_t offset = block * check->block_size;
    int result = check_zeros_until(check, offset, error);
    struct digest actual;
    ssize_t got;

    if (result)
        return result;
    check->checked = offset + length;
    got = file_pread_full(check->fd, check->bytes, length, offset, error);
    if (got < 0) {
        tell_block(check, offset, error->message);
        return 0;
    }
    check->result->checked_files++;
    check->result->checked_bytes += (uint64_t)got;
    if (got == 0) {
        check->result->missing++;
        if (!check->lost++)
            check->lost_offset = offset;
        return 0;
    }
    if (got < (ssize_t)length) {
        check->result->missing++;
        tell_block(check, offset, "the file ends in it");
        return 0;
    }
    digest_of(check->bytes, length, &actual);
    if (!digest_equal(&actual, digest))
        tell_block(check, offset, bytes_are_zero(check->bytes, length) ? "it is all zero and should not be"
                                                                       : "its digest is wrong");
    return 0;
}

static int check_size(struct check *check, struct error *error)
{
    struct stat status;
    char what[128];
    off_t size;

    if (fstat(check->fd, &status))
        return error_set_errno(error, errno, "cannot look at %s", check->path);
    size = S_ISBLK(status.st_mode) ? lseek(check->fd, 0, SEEK_END) : status.st_size;
    if (size < 0)
        return error_set_errno(error, errno, "cannot find the size of %s", check->path);
    /* A device may well be larger than what was written to it. */
    if ((uint64_t)size == check->size || (S_ISBLK(status.st_mode) && (uint64_t)size > check->size))
        return 0;
    snprintf(what, sizeof(what), "it has %llu bytes, the disk has %llu", (unsigned long long)size,
             (unsigned long long)check->size);
    verify_fault(check->report, check->result, check->path, what);
    return 0;
}

int verify_file(struct disk *disk, int fd, const char *path, const struct verify_report *report,
                struct verify_result *result_out, struct error *error)
{
    auto_free uint8_t *bytes = malloc(PIECE_SIZE);
    struct check check = {
        .report = report, .result = result_out, .fd = fd, .path = path, .block_size = disk_block_size(disk),
        .size = disk_size(disk), .bytes = bytes,
    };
    const struct sweep_settings settings = {
        .disk = disk, .progress = report->progress, .wanted = check_data_block, .user = &check,
    };
    int result;

    *result_out = (struct verify_result){0};
    if (!bytes)
        return error_set(error, ERROR_SYSTEM, "no memory for a block");
    result = check_size(&check, error);
    if (!result)
        result = sweep_run(&settings, error);
    if (!result)
        result = check_zeros_until(&check, check.size, error);
    tell_lost(&check);
    return result;
}
