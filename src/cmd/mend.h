/* A machine in QEMU whose published disk was mounted anew, because the process that served it has ended. */
#ifndef CMD_MEND_H
#define CMD_MEND_H

#include <sys/types.h>

#include "cmd/shared_disk.h"
#include "vm/qmp.h"

/*
 * Give DISK to the machine, unless its process has that open, and let it go on with what failed meanwhile; one that was
 * paused by somebody stays so. *MENDED_OUT: something of that was needed.
 */
int mend_disk(struct qmp *qmp, pid_t process, const struct shared_disk *disk, bool *mended_out, struct error *error);

/* Let a machine that has stopped at an error try again. *MENDED is set if it had. */
int mend_go_on(struct qmp *qmp, bool *mended, struct error *error);

#endif
