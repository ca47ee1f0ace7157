/* Private folders: "PURPOSE-XXXXXX", locked as long as their command lives. */
#include "cmd/private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "serve/mountpoint.h"

#define YOUNG_S 60 /* one that is just being made may not be locked yet */

/* An absolute path from the environment, or FALLBACK. */
static const char *folder_from(const char *variable, const char *fallback)
{
    const char *value = getenv(variable);

    return value && *value == '/' ? value : fallback;
}

/* The folder that holds them; made if need be. NULL: no memory. */
static char *place_path(enum private_place place)
{
    if (place == PRIVATE_SCRATCH)
        return text_format("%s/circular-%u", folder_from("TMPDIR", "/var/tmp"), (unsigned)geteuid());
    if (folder_from("XDG_RUNTIME_DIR", NULL))
        return text_format("%s/circular", folder_from("XDG_RUNTIME_DIR", NULL));
    if (geteuid() == 0)
        return strdup("/run/circular");
    return text_format("%s/circular-%u", folder_from("TMPDIR", "/tmp"), (unsigned)geteuid());
}

/* In folders like /tmp somebody else may have made it before. */
static int check_owner(const char *path, struct error *error)
{
    struct stat status;

    if (lstat(path, &status))
        return error_set_errno(error, errno, "cannot use the folder %s", path);
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || status.st_mode & 022)
        return error_set(error, ERROR_SYSTEM, "%s is not a folder of this user alone", path);
    return 0;
}

/* Make PARENT, this user's alone. */
static int make_parent(const char *parent, struct error *error)
{
    if (mkdir(parent, 0700) && errno != EEXIST)
        return error_set_errno(error, errno, "cannot make the folder %s", parent);
    return check_owner(parent, error);
}

char *private_file_path(enum private_place place, const char *name)
{
    auto_free char *parent = place_path(place);

    return parent && !make_parent(parent, NULL) ? path_join(parent, name) : NULL;
}

int private_runtime_folder(char path[PATH_MAX], struct error *error)
{
    auto_free char *place = place_path(PRIVATE_RUNTIME);

    if (!place || snprintf(path, PATH_MAX, "%s", place) >= PATH_MAX)
        return error_set(error, ERROR_SYSTEM, "no memory for the runtime folder");
    return make_parent(path, error);
}

int private_folder_make(enum private_place place, const char *purpose, struct private_folder *folder_out,
                        struct error *error)
{
    auto_free char *parent = place_path(place);
    char path[PATH_MAX];
    int result;

    if (!parent || snprintf(path, sizeof(path), "%s/%s-XXXXXX", parent, purpose) >= PATH_MAX)
        return error_set(error, ERROR_SYSTEM, "no memory for a private folder");
    result = make_parent(parent, error);
    if (result)
        return result;
    if (!mkdtemp(path))
        return error_set_errno(error, errno, "cannot make a folder in %s", parent);
    folder_out->lock_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_out->lock_fd < 0 || file_lock(folder_out->lock_fd, false, true, error)) {
        rmdir(path);
        return error_set(error, ERROR_SYSTEM, "cannot lock %s", path);
    }
    strcpy(folder_out->path, path);
    return 0;
}

void private_folder_remove(struct private_folder *folder)
{
    if (!*folder->path)
        return;
    rmdir(folder->path);
    close(folder->lock_fd);
    *folder->path = '\0';
}

/* True if the command that made PATH has ended: its mount is dead, or there is none and nobody holds its lock. */
static bool is_abandoned(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct mount_entry mounted;
    struct stat status;

    if (fd < 0)
        return errno == ENOTCONN || errno == ECONNABORTED;
    if (!mount_find(path, &mounted, NULL)) { /* a live one; FD is of what is mounted, whose lock says nothing */
        mount_entry_finish(&mounted);
        return false;
    }
    return !fstat(fd, &status) && status.st_mtime + YOUNG_S < clock_wall() && !file_lock(fd, false, true, NULL);
}

static void clean_place(enum private_place place, const char *purpose)
{
    auto_free char *parent = place_path(place);
    DIR *stream = parent && !check_owner(parent, NULL) ? opendir(parent) : NULL;
    size_t length = strlen(purpose);
    const struct dirent *entry;

    while (stream && (entry = readdir(stream))) {
        auto_free char *path = path_join(parent, entry->d_name);
        struct mount_entry mounted;

        if (!path || strncmp(entry->d_name, purpose, length) || entry->d_name[length] != '-' || !is_abandoned(path))
            continue;
        if (!mount_find(path, &mounted, NULL))
            mountpoint_release(path, true, NULL);
        mount_entry_finish(&mounted);
        file_remove(AT_FDCWD, path, NULL); /* what is in a private folder is ours */
    }
    if (stream)
        closedir(stream);
}

void private_folders_clean(const char *purpose)
{
    clean_place(PRIVATE_RUNTIME, purpose);
    clean_place(PRIVATE_SCRATCH, purpose);
}
