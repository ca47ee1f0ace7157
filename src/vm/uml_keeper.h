/*
 * The process behind a User-mode Linux machine that keeps its state: UML has
 * neither sockets nor a log. It runs UML and its network, holds the machine's
 * console and writes its log, and answers at the control socket as QEMU does,
 * in a small part of QMP: query-status, query-blockstats, system_powerdown,
 * quit. It and UML end together.
 */
#ifndef VM_UML_KEEPER_H
#define VM_UML_KEEPER_H

#include <sys/types.h>

#include "vm/hypervisor.h"

/* The file in the machine's folder that makes the guest's reboot its end for some minutes; see uml_preload.c. */
#define UML_FILE_ENDS "uml.ends"
/* The name of the machine for UML: also a folder in the machine's, with UML's own control socket. */
#define UML_UMID "uml"

/*
 * Run COMMAND, the machine of PLAN, to its end, in this process, with PLAN's sockets, log and file for the process id.
 * UML inherits the FD_COUNT descriptors FDS. NETWORK: the process of its network, whose end is told on standard error;
 * 0: none.
 */
int uml_keep(const struct machine_plan *plan, const struct hypervisor_command *command, pid_t network, const int *fds,
             size_t fd_count, struct error *error);

#endif
