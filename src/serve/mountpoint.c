/* Mount points: see mountpoint.h. */
#include "serve/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"

#define MOUNTINFO "/proc/self/mountinfo"

void mount_entry_finish(struct mount_entry *entry)
{
    free(entry->folder);
    free(entry->type);
    free(entry->source);
    *entry = (struct mount_entry){0};
}

/* In place: \040 and the like, as the kernel escapes blanks and backslashes. */
static void unescape(char *text)
{
    char *to = text;

    for (; *text; to++) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
            text[3] >= '0' && text[3] <= '7') {
            *to = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 4;
        } else {
            *to = *text++;
        }
    }
    *to = '\0';
}

/*
 * "36 35 98:0 /root /folder options [tags...] - type source super-options" (proc(5)). False if LINE, which is cut up,
 * is not like that.
 */
static bool parse_line(char *line, unsigned *major, unsigned *minor, char **folder, char **type, char **source)
{
    char *save = NULL, *word = strtok_r(line, " \n", &save);

    for (int i = 0; word && i < 4; i++, word = strtok_r(NULL, " \n", &save))
        if (i == 2 && sscanf(word, "%u:%u", major, minor) != 2)
            return false;
    *folder = word;
    while (word && strcmp(word, "-"))
        word = strtok_r(NULL, " \n", &save);
    *type = word ? strtok_r(NULL, " \n", &save) : NULL;
    *source = *type ? strtok_r(NULL, " \n", &save) : NULL;
    if (!*source)
        return false;
    unescape(*folder);
    unescape(*source);
    return true;
}

int mount_find(const char *folder, struct mount_entry *entry_out, struct error *error)
{
    auto_fclose FILE *file = fopen(MOUNTINFO, "re");
    auto_free char *line = NULL;
    size_t size = 0;

    *entry_out = (struct mount_entry){0};
    if (!file)
        return error_set_errno(error, errno, "cannot read " MOUNTINFO);
    while (getline(&line, &size, file) > 0) {
        unsigned major, minor;
        char *at, *type, *source;

        if (!parse_line(line, &major, &minor, &at, &type, &source) || strcmp(at, folder))
            continue;
        mount_entry_finish(entry_out); /* the later one lies on top */
        *entry_out = (struct mount_entry){major, minor, strdup(at), strdup(type), strdup(source)};
        if (!entry_out->folder || !entry_out->type || !entry_out->source) {
            mount_entry_finish(entry_out);
            return error_set(error, ERROR_SYSTEM, "no memory to read " MOUNTINFO);
        }
    }
    return entry_out->folder ? 0 : error_set(error, ERROR_NOT_FOUND, "nothing is mounted at %s", folder);
}

char *mountpoint_absolute(const char *folder)
{
    auto_free char *copy = strdup(folder);
    auto_free char *parent = NULL;
    char *slash, byte;

    if (!copy)
        return NULL;
    while ((slash = strrchr(copy, '/')) && slash != copy && !slash[1])
        *slash = '\0';
    /* Only what is no link itself can be a mount point; its parent is resolved, it is not touched: to ask for its
     * attributes would wait for a server that hangs, perhaps for good. */
    if (!*copy || !strcmp(copy, "/") || !strcmp(copy, ".") || !strcmp(copy, "..") || (slash && slash[1] == '.') ||
        readlink(copy, &byte, 1) >= 0)
        return realpath(copy, NULL);
    if (slash)
        *slash = '\0';
    parent = realpath(slash ? *copy ? copy : "/" : ".", NULL);
    return parent ? path_join(parent, slash ? slash + 1 : copy) : NULL;
}

static int need_fusermount(char path[PATH_MAX], struct error *error)
{
    if (process_find(PROCESS_SYSTEM_PATH, "fusermount3", path))
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "fusermount3 is missing: install the Debian package fuse3 (apt install fuse3)");
}

int mountpoint_check_host(struct error *error)
{
    char path[PATH_MAX];

    if (access("/dev/fuse", F_OK))
        return error_set(error, ERROR_UNSUPPORTED,
                         "/dev/fuse does not exist: load the kernel module (modprobe fuse), or give the container "
                         "that device");
    if (access("/dev/fuse", R_OK | W_OK))
        return error_set(error, ERROR_UNSUPPORTED, "this user may not use /dev/fuse: %s", strerror(errno));
    return geteuid() == 0 ? 0 : need_fusermount(path, error);
}

static bool tells_death(int cause)
{
    return cause == ENOTCONN || cause == ECONNABORTED || cause == ESHUTDOWN;
}

/* True if one of our mounts whose process has died is at FOLDER. Attributes may still be remembered by the kernel. */
static bool is_dead(const char *folder)
{
    struct statvfs status;
    struct mount_entry entry;
    bool ours = !mount_find(folder, &entry, NULL) && !strcmp(entry.type, MOUNT_TYPE);

    mount_entry_finish(&entry);
    return ours && statvfs(folder, &status) && tells_death(errno);
}

/* Several dead mounts may lie on each other. */
static int remove_dead(const char *folder, struct error *error)
{
    for (int i = 0; i < 8 && is_dead(folder); i++) {
        log_warning("%s: removing a mount whose process has died", folder);
        if (mountpoint_release(folder, true, error))
            return error_prefix(error, "a dead mount is in the way");
    }
    return 0;
}

static int check_folder(const char *folder, struct error *error)
{
    struct stat status;

    if (!stat(folder, &status))
        return S_ISDIR(status.st_mode) ? 0 : error_set(error, ERROR_INVALID, "%s is not a folder", folder);
    if (errno == ENOENT)
        return error_set(error, ERROR_NOT_FOUND, "the mount point %s does not exist", folder);
    return error_set_errno(error, errno, "cannot use the mount point %s", folder);
}

static int check_empty(const char *folder, struct error *error)
{
    DIR *stream = opendir(folder);
    const struct dirent *entry;
    bool empty = true;

    if (!stream)
        return error_set_errno(error, errno, "cannot look into the mount point %s", folder);
    while (empty && (entry = readdir(stream)))
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    closedir(stream);
    return empty ? 0 : error_set(error, ERROR_BUSY, "the mount point %s is not empty", folder);
}

static int check_unused(const char *folder, struct error *error)
{
    struct mount_entry entry;
    int result = mount_find(folder, &entry, NULL);

    if (!result && !strcmp(entry.type, MOUNT_TYPE))
        result = error_set(error, ERROR_BUSY, "%s is mounted at %s already (circular umount %s ends that)",
                           entry.source, folder, folder);
    else
        result = 0;
    mount_entry_finish(&entry);
    return result;
}

int mountpoint_prepare(const char *folder, char **absolute_out, struct error *error)
{
    auto_free char *absolute = mountpoint_absolute(folder);
    int result;

    if (!absolute && errno == ENOENT)
        return error_set(error, ERROR_NOT_FOUND, "the mount point %s does not exist", folder);
    if (!absolute)
        return error_set_errno(error, errno, "cannot use the mount point %s", folder);
    result = remove_dead(absolute, error);
    if (!result)
        result = check_folder(absolute, error);
    if (!result)
        result = check_unused(absolute, error);
    if (!result)
        result = check_empty(absolute, error);
    if (!result && geteuid() != 0 && access(absolute, W_OK))
        result = error_set(error, ERROR_SYSTEM, "the mount point %s is not yours to write to", absolute);
    if (!result)
        *absolute_out = steal_pointer(&absolute);
    return result;
}

static int run_fusermount(const char *folder, bool lazy, struct error *error)
{
    const char *arguments[] = {"fusermount3", lazy ? "-uz" : "-u", "--", folder, NULL};
    char path[PATH_MAX];
    int result = need_fusermount(path, error);

    if (!result && process_run(path, arguments, NULL, error)) {
        error_prefix(error, "%s cannot be unmounted", folder);
        result = ERROR_BUSY;
    }
    return result;
}

int mountpoint_release(const char *folder, bool lazy, struct error *error)
{
    if (geteuid() != 0)
        return run_fusermount(folder, lazy, error);
    if (!umount2(folder, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
        return 0;
    if (errno == EBUSY)
        return error_set(error, ERROR_BUSY, "%s is in use: a file or folder is open there", folder);
    return error_set_errno(error, errno, "cannot unmount %s", folder);
}
