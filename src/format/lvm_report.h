/*
 * What the lvm2 tools report of the one physical volume that a disk holds: where
 * its extents begin, and where the logical volumes lie on it.
 *
 *   pvs -o pe_start                a number: the first extent's offset in bytes
 *   lvs --segments -o LVM_COLUMNS  a line for each segment of a volume, sorted by group, name and start
 *
 * Both with --noheadings --nosuffix --units b --separator " ".
 */
#ifndef FORMAT_LVM_REPORT_H
#define FORMAT_LVM_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define LVM_VOLUMES_MAX 64
#define LVM_NAME_TEXT   129
#define LVM_COLUMNS "vg_name,lv_name,lv_size,segtype,seg_start,seg_size,seg_pe_ranges,vg_extent_size"

struct lvm_volume {
    char group[LVM_NAME_TEXT];
    char name[LVM_NAME_TEXT];
    uint64_t size;     /* bytes */
    bool contiguous;   /* all of it lies in one piece on this physical volume, */
    uint64_t offset;   /* here */
};

/* CORRUPT: the tools say something else. */
int lvm_area_parse(const void *bytes, size_t size, uint64_t *area_out, struct error *error);

/* Into LIST (LVM_VOLUMES_MAX). AREA: where extents begin. CORRUPT: not understood, or too many volumes. */
int lvm_volumes_parse(const void *bytes, size_t size, uint64_t area, struct lvm_volume *list, size_t *count_out,
                      struct error *error);

#endif
