/*
 * Mount points: what is mounted where, whether a folder will do, and
 * unmounting. State is the kernel's alone (/proc/self/mountinfo), so that it
 * works after any crash and without /etc/mtab.
 */
#ifndef SERVE_MOUNTPOINT_H
#define SERVE_MOUNTPOINT_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

#define MOUNT_TYPE "fuse.circular" /* of a mount of this program */

/* One line of /proc/self/mountinfo. Strings are on the heap. */
struct mount_entry {
    unsigned major, minor;
    char *folder;
    char *type;
    char *source;
};

/* The topmost mount at exactly FOLDER (absolute). NOT_FOUND: none. Release with mount_entry_finish. */
int mount_find(const char *folder, struct mount_entry *entry_out, struct error *error);
void mount_entry_finish(struct mount_entry *entry);

/* Absolute form of FOLDER on the heap; works when a dead mount lies on it. NULL with errno. */
char *mountpoint_absolute(const char *folder);

/*
 * Make sure that FOLDER can be mounted on: it exists, is a folder, is empty, and none of our mounts is there. A mount
 * whose process has died is removed first. *ABSOLUTE_OUT: its absolute path, on the heap. NOT_FOUND, INVALID (not
 * a folder), BUSY (not empty; mounted already).
 */
int mountpoint_prepare(const char *folder, char **absolute_out, struct error *error);

/*
 * Unmount what is at FOLDER, as root directly, otherwise through fusermount3. LAZY: also when files are open there.
 * BUSY, SYSTEM, UNSUPPORTED (no fusermount3).
 */
int mountpoint_release(const char *folder, bool lazy, struct error *error);

/* ERROR_UNSUPPORTED if this process cannot make FUSE mounts: no device, or no fusermount3 for an ordinary user. */
int mountpoint_check_host(struct error *error);

#endif
