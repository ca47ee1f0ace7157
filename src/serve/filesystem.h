/*
 * The file system inside a disk, mounted: the largest Linux one, or that of a
 * chosen partition, through a loop device, read-only, without touching its
 * journal. For root.
 */
#ifndef SERVE_FILESYSTEM_H
#define SERVE_FILESYSTEM_H

#include "base/error.h"
#include "serve/fuse.h"
#include "serve/partition.h"

/* Begins the name of our loop devices, so that unmounting knows them. */
#define FILESYSTEM_LOOP_NAME "circular:"

struct filesystem_settings {
    const char *disk;   /* the disk's bytes, a file of SERVER's mount */
    struct fuse_server *server; /* shows beside it the logical volumes that lie in several pieces */
    const char *name;   /* for the loop device: which image this is */
    unsigned partition; /* 0: choose */
    const char *volume; /* logical volume "NAME" or "GROUP/NAME"; NULL: choose */
    const char *folder; /* where to mount */
};

struct filesystem {
    struct partition partition; /* what is mounted; with LVM the number is of where the volume begins */
    char volume[280];           /* "group/name", or "" */
};

/*
 * Find and mount. When it fails, nothing is left behind. Afterwards the mount holds the loop device, and that the
 * disk: unmounting FOLDER releases all of it. NOT_FOUND (no such partition, no file system), UNSUPPORTED (no loop
 * devices, a logical volume that is not linear or striped, a file system this kernel does not know), CORRUPT, SYSTEM.
 */
int filesystem_mount(const struct filesystem_settings *settings, struct filesystem *filesystem_out,
                     struct error *error);

#endif
