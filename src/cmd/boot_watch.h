/*
 * A machine in the foreground, until it has ended: signals are passed on to it,
 * and where the process that serves its disk has ended, because it was killed,
 * the machine is given its disk again.
 */
#ifndef CMD_BOOT_WATCH_H
#define CMD_BOOT_WATCH_H

#include "cmd/machine_options.h"

/* The machine's socket for QMP, in its folder. */
#define BOOT_CONTROL "control"

struct boot_watch {
    struct machine_request *request;
    struct shared_disk *disk;     /* each time that it is mounted it is another one */
    struct shared_disk_wish wish; /* what that was the answer to */
    bool disk_lost;               /* the process that served it at first has ended */
    pid_t machine;
};

/* Wait for the machine. Returns its exit status. */
int boot_watch(const struct context *context, struct boot_watch *watch, int signals);

#endif
