/*
 * LVM without device-mapper: where on a disk its logical volumes lie, as the
 * lvm2 tools report it.
 */
#ifndef SERVE_LVM_H
#define SERVE_LVM_H

#include "format/lvm_report.h"
#include "serve/partition.h"

#define LVM_PARTITION_TYPE "LVM2_member" /* of a physical volume, as libblkid calls it */

/*
 * Add the logical volumes on those of the disk's COUNT partitions that are physical volumes to VOLUMES. FD is the disk;
 * NAME is for the loop devices that the tools look through, which are gone again afterwards. UNSUPPORTED: no lvm2
 * tools, no loop devices; CORRUPT: what the tools say is not understood; SYSTEM: they fail.
 */
int lvm_list(int fd, const char *name, const struct partition *partitions, size_t count, struct lvm_volumes *volumes,
             struct error *error);

#endif
