/* Files: see file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/text.h"

#define TEMPORARY_PREFIX ".tmp-"
#define BENEATH_ATTEMPTS 1000

int file_read(int directory_fd, const char *path, size_t limit, struct buffer *buffer, struct error *error)
{
    auto_close int fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC);

    buffer->size = 0;
    if (fd < 0)
        return error_set_errno(error, errno, "cannot open %s", path);
    /* Files of securityfs and the like have no size and give short reads: read to the end. */
    for (;;) {
        ssize_t got;

        if (!buffer_reserve(buffer, 16384))
            return error_set(error, ERROR_SYSTEM, "no memory to read %s", path);
        got = read(fd, buffer->bytes + buffer->size, buffer->capacity - buffer->size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(error, errno, "cannot read %s", path);
        if (got == 0)
            return 0;
        buffer->size += (size_t)got;
        if (buffer->size > limit)
            return error_set(error, ERROR_CORRUPT, "%s is larger than %zu bytes", path, limit);
    }
}

ssize_t file_pread_full(int fd, void *bytes, size_t size, uint64_t offset, struct error *error)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = pread(fd, (char *)bytes + done, size - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(error, errno, "cannot read %zu bytes at %llu", size,
                                   (unsigned long long)offset);
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int file_pwrite_full(int fd, const void *bytes, size_t size, uint64_t offset, struct error *error)
{
    size_t done = 0;

    while (done < size) {
        ssize_t put = pwrite(fd, (const char *)bytes + done, size - done, (off_t)(offset + done));

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return error_set_errno(error, errno, "cannot write %zu bytes at %llu", size,
                                   (unsigned long long)offset);
        done += (size_t)put;
    }
    return 0;
}

bool file_is_temporary(const char *name)
{
    return !strncmp(name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX));
}

/* "FOLDER/.tmp-<random>" beside PATH, on the heap. */
static char *temporary_beside(const char *path)
{
    const char *slash = strrchr(path, '/');
    int folder_length = slash ? (int)(slash - path) + 1 : 0;
    uint64_t random = 0;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        random = (uint64_t)getpid() << 32 ^ (uint64_t)(uintptr_t)&random;
    return text_format("%.*s" TEMPORARY_PREFIX "%016llx", folder_length, path, (unsigned long long)random);
}

static int write_and_name(int directory_fd, int fd, const char *temporary, const char *path, const void *bytes,
                          size_t size, unsigned flags, struct error *error)
{
    int result = file_pwrite_full(fd, bytes, size, 0, error);

    if (result)
        return error_prefix(error, "%s", path);
    if (flags & FILE_DURABLE && fsync(fd))
        return error_set_errno(error, errno, "cannot flush %s", path);
    if (flags & FILE_NEW_ONLY) {
        if (linkat(directory_fd, temporary, directory_fd, path, 0)) {
            if (errno == EEXIST)
                return error_set(error, ERROR_EXISTS, "%s exists already", path);
            return error_set_errno(error, errno, "cannot create %s", path);
        }
        unlinkat(directory_fd, temporary, 0);
        return 0;
    }
    if (renameat(directory_fd, temporary, directory_fd, path))
        return error_set_errno(error, errno, "cannot rename to %s", path);
    return 0;
}

int file_sync_parent(int directory_fd, const char *path, struct error *error)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    auto_close int fd = folder ? openat(directory_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd < 0 || fsync(fd))
        return error_set_errno(error, errno, "cannot flush the folder of %s", path);
    return 0;
}

int file_write_atomic(int directory_fd, const char *path, const void *bytes, size_t size, unsigned flags,
                      struct error *error)
{
    mode_t mode = flags & FILE_PRIVATE ? 0600 : 0644;
    auto_free char *temporary = temporary_beside(path);
    auto_close int fd = -1;
    int result;

    if (!temporary)
        return error_set(error, ERROR_SYSTEM, "no memory to write %s", path);
    fd = openat(directory_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 && errno == ENOENT && flags & FILE_MAKE_FOLDERS) {
        result = file_make_parent(directory_fd, path, error);
        if (result)
            return result;
        fd = openat(directory_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    }
    if (fd < 0)
        return error_set_errno(error, errno, "cannot create a file beside %s", path);
    result = write_and_name(directory_fd, fd, temporary, path, bytes, size, flags, error);
    if (result) {
        unlinkat(directory_fd, temporary, 0);
        return result;
    }
    return flags & FILE_DURABLE ? file_sync_parent(directory_fd, path, error) : 0;
}

int file_make_folders(int directory_fd, const char *path, mode_t mode, struct error *error)
{
    auto_free char *partial = strdup(path);

    if (!partial)
        return error_set(error, ERROR_SYSTEM, "no memory to make %s", path);
    for (char *at = partial + 1; *partial; at++) {
        char saved = *at;

        if (saved != '/' && saved != '\0')
            continue;
        *at = '\0';
        if (mkdirat(directory_fd, partial, mode) && errno != EEXIST)
            return error_set_errno(error, errno, "cannot make the folder %s", partial);
        if (saved == '\0')
            return 0;
        *at = saved;
    }
    return 0;
}

int file_make_parent(int directory_fd, const char *path, struct error *error)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder = NULL;

    if (!slash || slash == path)
        return 0;
    folder = strndup(path, (size_t)(slash - path));
    if (!folder)
        return error_set(error, ERROR_SYSTEM, "no memory to make the folder of %s", path);
    return file_make_folders(directory_fd, folder, 0755, error);
}

int file_open_folder(const char *path, bool make, struct error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && make) {
        int result = file_make_folders(AT_FDCWD, path, 0755, error);

        if (result)
            return result;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd >= 0 ? fd : error_set_errno(error, errno, "cannot open the folder %s", path);
}

int file_open_beneath(int directory_fd, const char *path, int flags, struct error *error)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    int cause, result, attempts = 0;
    long fd;

    /* EAGAIN: something was renamed while the kernel followed a "..", as in a symlink; so it cannot be sure. */
    do {
        fd = syscall(SYS_openat2, directory_fd, path, &how, sizeof(how));
    } while (fd < 0 && (errno == EAGAIN || errno == EINTR) && attempts++ < BENEATH_ATTEMPTS);
    if (fd < 0) {
        cause = errno;
        result = error_set_errno(error, cause, "cannot open %s", path);
        errno = cause;
        return result;
    }
    return (int)fd;
}

int file_lock(int fd, bool shared, bool try, struct error *error)
{
    int operation = (shared ? LOCK_SH : LOCK_EX) | (try ? LOCK_NB : 0);

    while (flock(fd, operation)) {
        if (errno == EINTR)
            continue;
        if (errno == EWOULDBLOCK)
            return error_set(error, ERROR_BUSY, "in use by another process");
        return error_set_errno(error, errno, "cannot lock");
    }
    return 0;
}

char *path_join(const char *directory, const char *name)
{
    size_t length = strlen(directory);

    return text_format("%s%s%s", directory, length && directory[length - 1] == '/' ? "" : "/", name);
}

#define FREE_KEPT (256 * MIB)

bool file_space(int fd, uint64_t *free_out, uint64_t *keep_out)
{
    struct statvfs fs;
    uint64_t total;

    if (fstatvfs(fd, &fs) || fs.f_blocks == 0)
        return false;
    *free_out = (uint64_t)fs.f_bavail * fs.f_frsize;
    total = (uint64_t)fs.f_blocks * fs.f_frsize;
    *keep_out = max_u64(min_u64(FREE_KEPT, total / 8), total / 50);
    return true;
}
