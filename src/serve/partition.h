/*
 * What lies on a disk: partitions, and which file system is in each.
 * partition.c is the only file that knows libblkid.
 */
#ifndef SERVE_PARTITION_H
#define SERVE_PARTITION_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PARTITIONS_MAX      128
#define PARTITION_TYPE_TEXT 32

struct partition {
    unsigned number; /* as in sda1; 0: the whole disk */
    uint64_t offset; /* bytes */
    uint64_t size;
    char type[PARTITION_TYPE_TEXT]; /* "ext4", "LVM2_member", as libblkid calls it; "": unknown */
    char label[64];                 /* of the file system */
};

/*
 * The partitions of the disk in FD, or the whole disk if it has no partition table, into LIST (PARTITIONS_MAX), with
 * what is in them. CORRUPT: contradicting or no content; SYSTEM.
 */
int partition_list(int fd, uint64_t size, struct partition *list, size_t *count_out, struct error *error);

/* What is in SIZE bytes at OFFSET. PARTITION's type and label are filled; "" if it is not known. */
int partition_probe(int fd, uint64_t offset, uint64_t size, struct partition *partition, struct error *error);

#endif
