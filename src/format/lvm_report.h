/*
 * What the lvm2 tools report of the physical volumes that a disk holds: where
 * the extents of each begin, and where the logical volumes lie on them.
 *
 *   pvs -o LVM_PHYSICAL_COLUMNS   a line for each physical volume
 *   lvs --segments -o LVM_COLUMNS a line for each segment of a volume, sorted by group, name and start:
 *
 *   group|first|-wi-XX----|12582912|linear|1|0|0|8388608|/dev/loop0:0-1|4194304
 *   group|first|-wi-XX----|12582912|linear|1|0|8388608|4194304|/dev/loop1:4-4|4194304
 *   group|fast|-wi-XX----|16777216|striped|2|65536|0|16777216|/dev/loop0:5-6 /dev/loop1:0-1|4194304
 *   group|thin|Vwi-XXtz--|104857600|thin|0|0|0|104857600||4194304
 *
 * Both with --noheadings --nosuffix --units b --separator LVM_SEPARATOR.
 */
#ifndef FORMAT_LVM_REPORT_H
#define FORMAT_LVM_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/extents.h"

#define LVM_NAME_TEXT        129
#define LVM_SEPARATOR        "|"
#define LVM_PHYSICAL_COLUMNS "pv_name,pe_start"
#define LVM_COLUMNS                                                                                                   \
    "vg_name,lv_name,lv_attr,lv_size,segtype,stripes,stripe_size,seg_start,seg_size,seg_pe_ranges,vg_extent_size"

/* A partition of the disk that is a physical volume. */
struct lvm_physical {
    char device[32]; /* as the tools call it, "/dev/loop1" */
    uint64_t offset; /* on the disk, bytes */
    uint64_t size;
    uint64_t area;   /* where its first extent begins, from OFFSET; set by lvm_areas_parse */
};

struct lvm_volume {
    char group[LVM_NAME_TEXT];
    char name[LVM_NAME_TEXT];
    uint64_t size;          /* bytes */
    char obstacle[160];     /* why it cannot be read from the disk alone: "is of type thin"; "": it can, */
    struct extents extents; /* here on the disk */
};

/* Zero-initialised is none; lvm_volumes_finish releases. */
struct lvm_volumes {
    struct lvm_volume *list;
    size_t count, capacity;
};

/* Set the AREA of each of the COUNT physical volumes in LIST. CORRUPT: not understood. */
int lvm_areas_parse(const void *bytes, size_t size, struct lvm_physical *list, size_t count, struct error *error);

/* Add the volumes to VOLUMES. CORRUPT: not understood; SYSTEM: no memory. */
int lvm_volumes_parse(const void *bytes, size_t size, const struct lvm_physical *list, size_t count,
                      struct lvm_volumes *volumes, struct error *error);

void lvm_volumes_finish(struct lvm_volumes *volumes);

#endif
