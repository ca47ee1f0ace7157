/* What the commands `circular vm ...` have in common. */
#ifndef CMD_VM_H
#define CMD_VM_H

#include "cmd/cmd.h"
#include "cmd/shared_disk.h"
#include "vm/hypervisor.h"
#include "vm/machines.h"
#include "vm/qmp.h"

/* An open machine. */
struct vm {
    struct machine_folder folder;
    struct machine_record record;
};
#define VM_INIT {.folder = MACHINE_FOLDER_INIT}

/*
 * Open machine NAME; LOCKED: and keep everybody else from starting or changing it. Exit status; prints what is wrong.
 */
int vm_open(const struct context *context, const char *name, bool locked, struct vm *vm_out);
void vm_close(struct vm *vm);

/* Ask its QEMU. Every answer comes within a second or two. Release with qmp_close. */
int vm_control(const struct vm *vm, struct qmp **qmp_out, struct error *error);

/* Have the disk mounted that its overlay lies on: as shared_disk_open. */
int vm_open_disk(const struct context *context, const struct machine_record *record, struct shared_disk *disk_out);

/* What it runs in; one that this program does not know is QEMU. */
const struct hypervisor *vm_hypervisor(const struct machine_record *record);

/* Bytes that what it has written takes on the host's disk. */
uint64_t vm_used_bytes(const struct vm *vm);

/* EXIT_OK if the person says that WHAT shall be done to it, by --yes or on the terminal. Else prints what is wrong. */
int vm_confirm(const struct context *context, bool yes, const struct vm *vm, const char *what);

/*
 * Start a machine that runs: if a disk of it has gone, because the process that served it was killed, it is given that
 * again; if it stopped at an error, it goes on. Else it needs no start: BUSY. Exit status; prints what is wrong.
 */
int vm_mend(const struct context *context, const struct vm *vm);

/* The port of 127.0.0.1 that leads to the guest's port 22; 0: none. */
uint16_t vm_ssh_port(const struct machine_record *record);

#endif
