/* Which partition of a disk holds the root file system, for machines without firmware, whose kernel must be told. */
#ifndef CMD_ROOT_PARTITION_H
#define CMD_ROOT_PARTITION_H

#include "base/error.h"

/*
 * The partition of DISK (a path) whose file system has the label "root", else the largest with a file system that Linux
 * can have its root on; 0: DISK is one file system. UNSUPPORTED: there is none.
 */
int root_partition_find(const char *disk, unsigned *number_out, struct error *error);

#endif
