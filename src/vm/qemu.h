/*
 * QEMU: find its programs and firmware, make a disk that takes what is written
 * to a read-only one, build the command line. Arguments are lists; no shell is
 * involved.
 */
#ifndef VM_QEMU_H
#define VM_QEMU_H

#include <limits.h>

#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_qemu;

/* Where qemu-img is. UNSUPPORTED names the Debian package. */
int qemu_find_image_program(const char *search_path, char path[PATH_MAX], struct error *error);

/* Make OVERLAY, a qcow2 file that takes what is written to DISK, a raw file (absolute path) that stays as it is. */
int qemu_make_overlay(const char *image_program, const char *disk, const char *overlay, struct error *error);

/* Has nothing been written to OVERLAY? Looks at the overlay alone. */
int qemu_overlay_is_empty(const char *search_path, const char *overlay, bool *empty_out, struct error *error);

/*
 * Make OVERLAY, which lies on the raw disk BEFORE, hold the same on AFTER: clusters in which the two differ are copied
 * into it. Until that is done, and afterwards, it holds the same on BEFORE too. Reads both disks.
 */
int qemu_rebase(const char *search_path, const char *overlay, const char *before, const char *after,
                struct error *error);

/* Block nodes of a machine that is started by this: for QMP. */
#define QEMU_NODE_DISK "disk"        /* the guest's: the overlay, or the disk itself */
#define QEMU_NODE_KEPT        "kept"        /* with a snapshot: the overlay below it */
#define QEMU_NODE_BASE "base"        /* the published disk */

#define QEMU_NODE_CDROM       "cdrom"       /* an additional CD-ROM */
#define QEMU_NODE_FILE       "-file"       /* behind the name of a qcow2 node: the file that it is in; so of a
                                                CD-ROM's that was replaced, where it is "-again" every other time */

struct qmp;

/* Give a running machine the published disk at PATH in the place of the one that has gone. */
int qemu_replace_base(struct qmp *qmp, const char *path, struct error *error);
/* The same for the CD-ROM that is NODE, of whose errors the guest was told. It sees no change of the disc. */
int qemu_replace_cdrom(struct qmp *qmp, const char *node, const char *path, struct error *error);

#endif
