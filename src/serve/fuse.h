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

#include "base/error.h"
#include "circular.h"

struct fuse_server;

struct fuse_settings {
    const char *folder;               /* mount point: exists, is empty (see mountpoint.h); absolute */
    const char *source;               /* what /proc/mounts shows as its source; no secrets */
    bool allow_other;                 /* other users than the caller's may read */
    struct circular_disk *disk;       /* show this disk as FOLDER/NAME, or */
    struct circular_archive *archive; /* show this catalog as FOLDER/NAME/VERSION; both borrowed */
};

/*
 * Mount and serve. UNSUPPORTED: no /dev/fuse, or no fusermount3 for an ordinary user; SYSTEM: the kernel or
 * fusermount3 refused.
 */
int fuse_server_open(const struct fuse_settings *settings, struct fuse_server **server_out, struct error *error);

/* Becomes readable (poll) when the file system has been unmounted by somebody else. Borrowed. */
int fuse_server_ended(const struct fuse_server *server);

/*
 * Stop serving and unmount, also when files are open there: their readers get errors from now on. Returns true if
 * nothing of the disk or archive is in use any more and the server is freed; false if reads are still waiting for the
 * network after TIMEOUT_MS: then disk and archive must not be closed, and the process should exit. NULL: true.
 */
bool fuse_server_close(struct fuse_server *server, uint64_t timeout_ms);

#endif
