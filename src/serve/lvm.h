/*
 * LVM without device-mapper: where on its physical volume a logical volume
 * lies, as the lvm2 tools report it.
 */
#ifndef SERVE_LVM_H
#define SERVE_LVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define LVM_VOLUMES_MAX 64
#define LVM_NAME_TEXT   129

struct lvm_volume {
    char group[LVM_NAME_TEXT];
    char name[LVM_NAME_TEXT];
    uint64_t size;     /* bytes */
    bool contiguous;   /* all of it lies in one piece on this physical volume, */
    uint64_t offset;   /* here */
};

/*
 * The logical volumes on the physical volume DEVICE ("/dev/loopN") into LIST (LVM_VOLUMES_MAX). UNSUPPORTED: no lvm2
 * tools; CORRUPT: what they say is not understood; SYSTEM: they fail.
 */
int lvm_list(const char *device, struct lvm_volume *list, size_t *count_out, struct error *error);

#endif
