/*
 * Private folders: for a mount point that nobody else need see, and for files
 * that die with the command. A killed command leaves them; the next one cleans.
 */
#ifndef CMD_PRIVATE_H
#define CMD_PRIVATE_H

#include <limits.h>

#include "base/error.h"

enum private_place {
    PRIVATE_RUNTIME, /* $XDG_RUNTIME_DIR/circular, /run/circular for root, else below $TMPDIR or /tmp */
    PRIVATE_SCRATCH, /* below $TMPDIR or /var/tmp: for large files */
};

struct private_folder {
    char path[PATH_MAX]; /* "": none */
    int lock_fd;
};

/* Path of this user's runtime folder (PRIVATE_RUNTIME), made if need be. */
int private_runtime_folder(char path[PATH_MAX], struct error *error);

/* Make an empty folder for PURPOSE (a word), mode 0700. */
int private_folder_make(enum private_place place, const char *purpose, struct private_folder *folder_out,
                        struct error *error);

/* The path of a file of this user there, whose folder is made. Heap; NULL: there is no such place. */
char *private_file_path(enum private_place place, const char *name);

/* Remove it if it is empty. Does nothing with a zero-initialised one. */
void private_folder_remove(struct private_folder *folder);

/* Remove what killed commands have left for PURPOSE, dead mounts included. */
void private_folders_clean(const char *purpose);

#endif
