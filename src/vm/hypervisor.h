/*
 * Hypervisors: what can run a machine, as one small table. Each has a file of
 * its own; to add one, write it and add a line to hypervisor.c. The way of a
 * machine is find, check, prepare, arguments, run (by the caller), finish.
 */
#ifndef VM_HYPERVISOR_H
#define VM_HYPERVISOR_H

#include <sys/types.h>

#include "base/arguments.h"
#include "vm/machine.h"

/* The command that runs a machine. */
struct hypervisor_command {
    struct arguments arguments;   /* the first is the program's path */
    struct arguments environment; /* "NAME=VALUE", besides what is inherited */
};

/* How a running machine gets a disk back whose server was killed, once it is mounted again at the same place. */
enum hypervisor_mending {
    MENDING_NEVER,
    MENDING_BY_QMP,    /* it is told at the plan's control_fd: qemu_replace_base */
    MENDING_BY_ITSELF, /* it waits and looks */
};

struct hypervisor {
    const char *name;  /* "qemu", as --vm has it */
    const char *title; /* "QEMU", for people */
    const char *overlay; /* the file that takes what a machine writes which keeps its state; NULL: none does */
    const char *words;   /* and the file that takes what the hypervisor itself says */
    enum hypervisor_mending mending;
    bool needs_root;   /* has no firmware: whoever makes the plan fills its root_partition, by looking into the disk */

    /* All programs and files that PLAN needs are there. UNSUPPORTED names the Debian package that is missing. */
    int (*find)(const struct machine_plan *plan, struct error *error);
    /* UNSUPPORTED, INVALID: what of PLAN this one cannot do, before anything is started. */
    int (*check)(const struct machine_plan *plan, struct error *error);
    /* Make what must be there before the start: overlay, variables, configuration. NULL: nothing. */
    int (*prepare)(const struct machine_plan *plan, struct error *error);
    /*
     * The command, in the foreground until the machine has ended. Release with hypervisor_command_finish in any case.
     */
    int (*command)(const struct machine_plan *plan, struct hypervisor_command *command_out, struct error *error);
    /*
     * Run a machine that keeps its state to its end, in this process, which holds PLAN's sockets; the FD_COUNT
     * descriptors FDS are for whatever is part of the machine. NULL: the program of the command does all that itself.
     */
    int (*keep)(const struct machine_plan *plan, const int *fds, size_t fd_count, struct error *error);
    /* The process that is the network of the prepared machine; 0: none. NULL: never any. */
    pid_t (*network)(void);
    /* Take back what prepare did outside PLAN's folder. After prepare, also if that failed. NULL: nothing. */
    void (*finish)(const struct machine_plan *plan);
};

/* By name; NULL: the first. INVALID lists what there is. */
int hypervisor_choose(const char *name, const struct hypervisor **hypervisor_out, struct error *error);

/* The table; NULL-terminated. */
extern const struct hypervisor *const hypervisor_table[];

void hypervisor_command_finish(struct hypervisor_command *command);

#endif
