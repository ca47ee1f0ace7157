/*
 * LVM without device-mapper: where on its physical volume a logical volume
 * lies, as the lvm2 tools report it.
 */
#ifndef SERVE_LVM_H
#define SERVE_LVM_H

#include "format/lvm_report.h"

/*
 * The logical volumes on the physical volume DEVICE ("/dev/loopN") into LIST (LVM_VOLUMES_MAX). UNSUPPORTED: no lvm2
 * tools; CORRUPT: what they say is not understood; SYSTEM: they fail.
 */
int lvm_list(const char *device, struct lvm_volume *list, size_t *count_out, struct error *error);

#endif
