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

/* Block nodes of a machine that is started by this: for QMP. */
#define QEMU_NODE_DISK "disk"        /* the guest's: the overlay, or the disk itself */
#define QEMU_NODE_BASE "base"        /* the published disk */

#endif
