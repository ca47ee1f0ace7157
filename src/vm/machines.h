/*
 * Machines that keep their state: a folder each, STATE/machines/NAME, of this
 * user alone.
 *
 *   machine.json     what it is made from (format/machine.h)
 *   overlay.qcow2    what it has written to its disk; overlay.cow under User-mode Linux
 *   variables.fd     UEFI's variables
 *   tpm/             state of its TPM
 *   serial.log       what it has said on its serial port
 *   qemu.log         what QEMU has said; uml.log
 *   lock             locked (flock) by QEMU through an inherited descriptor: the proof that it runs
 *   pid              QEMU's process; counts only if that process holds the lock
 *   control, serial  QEMU's sockets: QMP, and the serial port
 *
 * Under User-mode Linux the process is that of uml_keeper.h, and holds the lock together with UML.
 */
#ifndef VM_MACHINES_H
#define VM_MACHINES_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/arguments.h"
#include "format/machine.h"

#define MACHINE_FILE_OVERLAY   "overlay.qcow2" /* of QEMU */
#define MACHINE_FILE_SNAPSHOT  "snapshot.qcow2"
#define MACHINE_FILE_VARIABLES "variables.fd"
#define MACHINE_FILE_TPM       "tpm"
#define MACHINE_FILE_SERIAL    "serial.log"
#define MACHINE_FILE_PID       "pid"
#define MACHINE_SOCKET_CONTROL "control"
#define MACHINE_SOCKET_SERIAL  "serial"

struct machine_folder {
    char *path; /* heap */
    int fd;
    int lock_fd; /* -1: not locked by this process */
};
#define MACHINE_FOLDER_INIT {.fd = -1, .lock_fd = -1}

/* Open the folder of machine NAME. INVALID: no name for a machine; NOT_FOUND: none is called so. */
int machine_open(const char *state, const char *name, struct machine_folder *folder_out, struct error *error);
/* Make it, and lock it. It is a machine when machine_write has been called. EXISTS. */
int machine_create(const char *state, const char *name, struct machine_folder *folder_out, struct error *error);
void machine_close(struct machine_folder *folder); /* takes a folder in any state */

/* Keep everybody else from starting or changing it. BUSY: it runs, or is being changed. */
int machine_lock(struct machine_folder *folder, struct error *error);
bool machine_is_running(const struct machine_folder *folder);

/*
 * QEMU's process as a descriptor (poll: readable when it has ended), for process_signal; a number that has gone to
 * another process is not taken. NOT_FOUND: it does not run.
 */
int machine_process(const struct machine_folder *folder, pid_t *pid_out, struct error *error);

int machine_read(const struct machine_folder *folder, struct machine_record *record_out, struct error *error);
int machine_write(const struct machine_folder *folder, const struct machine_record *record, struct error *error);

/* Path of a file in it, heap; NULL: no memory. */
char *machine_path(const struct machine_folder *folder, const char *file);

/* Remove file or folder NAME in it, if there is one. */
int machine_remove(const struct machine_folder *folder, const char *name, struct error *error);
/* Remove it with all that it holds; it is locked. */
int machine_delete(struct machine_folder *folder, struct error *error);

/* All names, sorted. */
int machine_list(const char *state, struct arguments *names_out, struct error *error);

#endif
