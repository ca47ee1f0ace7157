/* A running mount: see running.h. */
#include "cmd/running.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cmd/inquiry.h"
#include "cmd/volume.h"
#include "serve/filesystem.h"
#include "serve/loop.h"

#define NO_MOUNT "%s is not at, or below, a mount of circular"

/* What lies below a file system on one of our loop devices: the mount that nobody sees. See volume_hide. */
static int open_below(const char *path, unsigned minor, struct error *error)
{
    int process, number, fd, result;
    uint64_t device;
    char name[64], folder[64];
    struct stat status;

    if (!loop_find(minor, name, &device) || sscanf(name, FILESYSTEM_LOOP_NAME "%d.%d:", &process, &number) != 2)
        return error_set(error, ERROR_NOT_FOUND, NO_MOUNT, path);
    snprintf(folder, sizeof(folder), "/proc/%d/fd/%d", process, number);
    /* O_PATH asks nobody, so that even a wrong descriptor does no harm. */
    fd = open(folder, O_PATH | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &status) || status.st_dev != device)) {
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        return error_set(error, ERROR_UNAVAILABLE, "the process that served %s has died", path);
    close(fd);
    result = inquiry_check(folder, path, error);
    if (result)
        return result;
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : error_set_errno(error, errno, "cannot ask the process of %s", path);
}

/* PATH cannot be used, for the reason in errno. */
static int refuse(const char *path, struct error *error)
{
    if (errno == ENOTCONN || errno == ECONNABORTED)
        return error_set(error, ERROR_UNAVAILABLE, "the process that served %s has died; 'circular umount' removes "
                         "what it left", path);
    return error_set_errno(error, errno, "cannot look at %s", path);
}

static int open_at(const char *path, struct error *error)
{
    struct stat status;
    int fd, result = inquiry_check(path, path, error);

    if (result)
        return result;
    if (stat(path, &status))
        return refuse(path, error);
    if (major(status.st_dev) == LOOP_MAJOR)
        return open_below(path, minor(status.st_dev), error);
    if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode))
        return error_set(error, ERROR_NOT_FOUND, NO_MOUNT, path);
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 ? fd : refuse(path, error);
}

int running_open(const char *path, struct running *running, struct error *error)
{
    int fd;

    running->fd = -1;
    running->path = strdup(path);
    if (!running->path)
        return error_set(error, ERROR_SYSTEM, "no memory for a path");
    fd = open_at(path, error);
    if (fd < 0)
        return fd;
    running->fd = fd;
    return 0;
}

void running_close(struct running *running)
{
    if (running->path && running->fd >= 0)
        close(running->fd);
    free(running->path);
    *running = (struct running){.fd = -1};
}

/* The value of WORD appended to VALUE. */
static int ask(const struct running *running, const char *word, struct buffer *value, struct error *error)
{
    char name[64];
    ssize_t got;

    snprintf(name, sizeof(name), FUSE_ATTRIBUTE_PREFIX "%s", word);
    if (!buffer_reserve(value, STATISTICS_SIZE_MAX))
        return error_set(error, ERROR_SYSTEM, "no memory to ask the process of %s", running->path);
    got = fgetxattr(running->fd, name, value->bytes + value->size, STATISTICS_SIZE_MAX);
    if (got >= 0) {
        value->size += (size_t)got;
        return 0;
    }
    switch (errno) {
    case ENODATA:
    case ENOTSUP:
        return error_set(error, ERROR_NOT_FOUND, NO_MOUNT, running->path);
    case EACCES:
    case EPERM:
        return error_set(error, ERROR_SYSTEM, "%s was mounted by another user: only that user and root may ask",
                         running->path);
    default:
        return refuse(running->path, error);
    }
}

int running_statistics(const struct running *running, struct statistics *statistics_out, struct buffer *text_out,
                       struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    int result = ask(running, VOLUME_STATISTICS, &text, error);

    if (!result)
        result = statistics_parse(text.bytes, text.size, statistics_out, error);
    if (!result && text_out) {
        text_out->size = 0;
        if (!buffer_append(text_out, text.bytes, text.size))
            result = error_set(error, ERROR_SYSTEM, "no memory for statistics");
    }
    return result;
}

/* The bytes that the header in BYTES speaks of; later pages may be of a longer profile. 0: not even a header. */
static uint64_t profile_size(const struct buffer *bytes)
{
    if (bytes->size < PROFILE_HEADER_SIZE)
        return 0;
    return PROFILE_HEADER_SIZE + (uint64_t)load_le32(bytes->bytes + 12) * PROFILE_RUN_SIZE;
}

int running_profile(const struct running *running, struct profile *profile_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    char word[32];
    int result;
    unsigned page = 0;

    do {
        size_t before = bytes.size;

        snprintf(word, sizeof(word), VOLUME_PROFILE "%u", page++);
        result = ask(running, word, &bytes, error);
        if (result == ERROR_NOT_FOUND)
            return error_set(error, result, "nothing was read through %s, or it is no disk of a running mount",
                             running->path);
        if (!result && bytes.size == before)
            result = error_set(error, ERROR_CORRUPT, "the profile of %s ends too soon", running->path);
    } while (!result && bytes.size < profile_size(&bytes) && bytes.size < PROFILE_SIZE_MAX);
    if (result)
        return result;
    return profile_parse(bytes.bytes, min_u64(bytes.size, profile_size(&bytes)), profile_out, error);
}
