/*
 * The FUSE server: an open disk or archive as a read-only mount. An adapter
 * over the public library and nothing else; fuse.c is the only file that knows
 * libfuse.
 *
 * Life: fuse_server_open mounts and starts threads; the kernel is served from
 * then on. When somebody unmounts, the descriptor of fuse_server_ended becomes
 * readable. fuse_server_close ends the server in any case.
 */
#ifndef SERVE_FUSE_H
#define SERVE_FUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/extents.h"
#include "circular.h"

struct fuse_server;

#define FUSE_ATTRIBUTE_PREFIX "user.circular."

struct fuse_settings {
    const char *folder;               /* mount point: exists, is empty (see mountpoint.h); absolute */
    const char *source;               /* what /proc/mounts shows as its source; no secrets */
    bool allow_other;                 /* other users than the caller's may read */
    struct circular_disk *disk;       /* show this disk as FOLDER/NAME, or */
    struct circular_archive *archive; /* show this catalog as FOLDER/NAME/VERSION; both borrowed */
    /*
     * Optional: the value of the extended attribute FUSE_ATTRIBUTE_PREFIX WORD of a file whose disk is DISK (NULL: it
     * is not open, or a folder). Nonzero: there is none. On any thread; must not wait.
     */
    int (*attribute)(void *user, struct circular_disk *disk, const char *word, struct buffer *value_out);
    void *attribute_user;
};

/*
 * Mount and serve. UNSUPPORTED: no /dev/fuse, or no fusermount3 for an ordinary user; SYSTEM: the kernel or
 * fusermount3 refused.
 */
int fuse_server_open(const struct fuse_settings *settings, struct fuse_server **server_out, struct error *error);

/*
 * Beside the one disk show a file NAME, which is EXTENTS of it (taken over). One caller at a time, before anybody has
 * looked for that name. INVALID: the name is taken; UNSUPPORTED: too many; SYSTEM.
 */
int fuse_server_add(struct fuse_server *server, const char *name, struct extents *extents, struct error *error);

/*
 * From now on the server also ends when no file is open any more (one is now): for a mount that is out of sight, but
 * that somebody still holds.
 */
void fuse_server_end_unused(struct fuse_server *server);

/* Becomes readable (poll) when the file system has been unmounted by somebody else. Borrowed. */
int fuse_server_ended(const struct fuse_server *server);

/*
 * Stop serving and unmount, also when files are open there: their readers get errors from now on. Returns true if
 * nothing of the disk or archive is in use any more and the server is freed; false if reads are still waiting for the
 * network after TIMEOUT_MS: then disk and archive must not be closed, and the process should exit. NULL: true.
 */
bool fuse_server_close(struct fuse_server *server, uint64_t timeout_ms);

#endif
