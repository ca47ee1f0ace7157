/*
 * QEMU: find its programs, make a throw-away disk on top of a read-only one,
 * build the command line. Arguments are lists; no shell is involved.
 */
#ifndef VM_QEMU_H
#define VM_QEMU_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct qemu_programs {
    char system[PATH_MAX]; /* qemu-system-x86_64 */
    char image[PATH_MAX];  /* qemu-img */
};

/* Look in the folders of SEARCH_PATH ("/usr/bin:/bin"). UNSUPPORTED names the Debian package that is missing. */
int qemu_find(const char *search_path, struct qemu_programs *programs_out, struct error *error);

/* Make OVERLAY, a qcow2 file that takes what is written to DISK, a raw file (absolute path) that stays as it is. */
int qemu_make_overlay(const struct qemu_programs *programs, const char *disk, const char *overlay,
                      struct error *error);

struct qemu_settings {
    const char *name;          /* of the machine */
    const char *overlay;       /* its disk, qcow2 */
    const char *accelerator;   /* "tcg" or "kvm" */
    uint64_t memory_bytes;
    unsigned cpu_count;
    char *const *extra;        /* further arguments, last */
    size_t extra_count;
};

/* The NULL-terminated argument list, on the heap with all its texts: release with qemu_free_arguments. NULL: no memory. */
char **qemu_arguments(const struct qemu_programs *programs, const struct qemu_settings *settings);
void qemu_free_arguments(char **arguments); /* takes NULL */

#endif
