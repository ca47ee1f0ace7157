/*
 * A disk that all machines of this user share: one mount a version, or a plain
 * file, made by a background process when the first wants it, which goes on
 * when whoever asked for it has ended, and ends when nobody uses it any more.
 *
 * Each mount has a folder $XDG_RUNTIME_DIR/circular/disks/KEY, which goes with it:
 *   mnt/NAME      the disk
 *   users         whoever uses it holds this locked, shared; the server ends when it can lock it alone
 *   start         locked while somebody looks whether it is there, and mounts it
 */
#ifndef CMD_SHARED_DISK_H
#define CMD_SHARED_DISK_H

#define SHARED_DISK_USERS "users"

#include <limits.h>

#include "base/hash.h"
#include "cmd/cmd.h"
#include "format/name.h"
#include "format/plain.h"

struct shared_disk {
    char path[PATH_MAX];   /* the disk, a file */
    char folder[PATH_MAX]; /* its folder KEY; "": it is a local file, which needs no mount */
    char archive[4096];    /* as it was named; of a plain file its location, without passwords */
    char name[PLAIN_NAME_SIZE], version[NAME_MAX_LENGTH + 1], architecture[64];
    struct digest image_id; /* of a plain file: of what tells it apart */
    uint64_t size_bytes;
    uint64_t stored_bytes; /* what there is to fetch */
    bool plain;            /* it is a plain file */
    bool iso;              /* and that is an ISO 9660 image */
    bool fresh; /* it was mounted just now */
    struct digest variant; /* by which it is told apart from the same disk, mounted in another way */
    int use_fd; /* the lock; a program that inherits it uses the disk too; -1: none */
    int server_fd; /* readable when the process that serves it has ended; -1: it is not known */
};

/* What is wanted. Zero and NULL: not so. */
struct shared_disk_wish {
    const char *text;              /* URL/NAME[@VERSION], or a plain file's location */
    const struct digest *expected; /* the image id, where it is known: another one is refused */
    const char *sha256;            /* of a plain file: see volume.h */
    bool file;                     /* it is a plain file, whatever it looks like */
    bool published;                /* it is none */
    bool or_archive;               /* where TEXT is no image but an archive: SHARED_DISK_ARCHIVE, nothing is printed */
    bool as_told;                  /* those who give other client options do not share it */
    bool alone;                    /* nobody shares it */
    const struct shared_disk *again; /* the very same as this one, at the same place */
};

#define SHARED_DISK_ARCHIVE 100 /* no exit status */

/*
 * Have a disk mounted. No thread may run yet. EXIT_OK, or an exit status after having printed what is wrong. Release
 * with shared_disk_close in any case.
 */
int shared_disk_open(const struct context *context, const struct shared_disk_wish *wish,
                     struct shared_disk *disk_out);
void shared_disk_close(struct shared_disk *disk);
#define SHARED_DISK_INIT {.use_fd = -1, .server_fd = -1}

/*
 * DISK, which WISH was answered with, once more, because the process that served it has ended. CHANGED is printed where
 * there is another one now. All else as above.
 */
int shared_disk_open_again(const struct context *context, const struct shared_disk *disk,
                           const struct shared_disk_wish *wish, struct shared_disk *disk_out);

/* Is the disk below mounted and alive? */
bool shared_disk_is_alive(const struct shared_disk *disk);

/*
 * What its server has fetched so far. NOT_FOUND: it does not say, or nobody serves the disk; UNAVAILABLE: it gives no
 * answer within seconds, and nothing else should be asked of the mount.
 */
int shared_disk_fetched(const struct shared_disk *disk, uint64_t *bytes_out, uint64_t *requests_out);

#endif
