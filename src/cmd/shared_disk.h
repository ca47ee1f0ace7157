/*
 * A published disk that all machines of this user share: one mount a version,
 * made by a background process when the first wants it, which goes on when
 * whoever asked for it has ended, and ends when nobody uses it any more.
 *
 * Each mount has a folder $XDG_RUNTIME_DIR/circular/disks/KEY:
 *   mnt/NAME      the disk
 *   users         whoever uses it holds this locked, shared; the server ends when it can lock it alone
 *   start         locked while somebody looks whether it is there, and mounts it
 *   statistics    what the server has fetched so far, one line
 */
#ifndef CMD_SHARED_DISK_H
#define CMD_SHARED_DISK_H

#include <limits.h>

#include "base/hash.h"
#include "cmd/cmd.h"
#include "format/name.h"

struct shared_disk {
    char path[PATH_MAX];   /* the disk, a file */
    char folder[PATH_MAX]; /* its folder KEY */
    char archive[4096];    /* as it was named */
    char name[NAME_MAX_LENGTH + 1], version[NAME_MAX_LENGTH + 1], architecture[64];
    struct digest image_id;
    uint64_t size_bytes;
    bool fresh; /* it was mounted just now */
    int use_fd; /* the lock; a program that inherits it uses the disk too; -1: none */
};

/*
 * Have what TEXT names, URL/NAME[@VERSION], mounted. EXPECTED: its image id, where it is known: another one is refused
 * (NULL: any). No thread may run yet. EXIT_OK, or an exit status after having printed what is wrong. Release with
 * shared_disk_close in any case.
 */
int shared_disk_open(const struct context *context, const char *text, const struct digest *expected,
                     struct shared_disk *disk_out);
void shared_disk_close(struct shared_disk *disk);
#define SHARED_DISK_INIT {.use_fd = -1}

/* Is the disk below mounted and alive? */
bool shared_disk_is_alive(const struct shared_disk *disk);

/* What its server has fetched so far. False: it does not say. */
bool shared_disk_fetched(const struct shared_disk *disk, uint64_t *bytes_out, uint64_t *requests_out);

#endif
