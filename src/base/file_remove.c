/* Removing a folder with all that is in it: see file.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"

#define DEPTH_MAX 32 /* a descriptor each */

static int remove_at(int parent, const char *name, unsigned depth, struct error *error);

/* All that is in the folder NAME, which FD is of. Takes FD. */
static int empty(int fd, const char *name, unsigned depth, struct error *error)
{
    DIR *stream = fdopendir(fd);
    const struct dirent *entry;
    int one, result = 0;

    if (!stream) {
        result = error_set_errno(error, errno, "cannot list %s", name);
        close(fd);
        return result;
    }
    while ((entry = readdir(stream))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        one = remove_at(fd, entry->d_name, depth + 1, result ? NULL : error);
        result = result ? result : one;
    }
    closedir(stream);
    return result;
}

/* Below the first folder, not what is mounted there. */
static int open_folder(int parent, const char *name, bool first)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
        .resolve = first ? 0 : RESOLVE_NO_XDEV,
    };

    return (int)syscall(SYS_openat2, parent, name, &how, sizeof(how));
}

static int remove_at(int parent, const char *name, unsigned depth, struct error *error)
{
    int fd, result;

    if (!unlinkat(parent, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return error_set_errno(error, errno, "cannot remove %s", name);
    if (depth >= DEPTH_MAX)
        return error_set(error, ERROR_INVALID, "cannot remove %s: it lies over %u folders deep", name, DEPTH_MAX);
    fd = open_folder(parent, name, depth == 0);
    if (fd < 0)
        return error_set_errno(error, errno, "cannot remove %s", name);
    result = empty(fd, name, depth, error);
    if (!result && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
        result = error_set_errno(error, errno, "cannot remove %s", name);
    return result;
}

int file_remove(int directory_fd, const char *path, struct error *error)
{
    return remove_at(directory_fd, path, 0, error);
}

int file_empty_folder(int directory_fd, const char *path, struct error *error)
{
    int fd = open_folder(directory_fd, path, true);

    if (fd >= 0)
        return empty(fd, path, 0, error);
    return errno == ENOENT ? 0 : error_set_errno(error, errno, "cannot open %s", path);
}
