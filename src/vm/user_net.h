/*
 * A network for a guest that QEMU does not give one: as QEMU's "user", the
 * guest is 10.0.2.15 (by DHCP), reaches out through this host's own
 * connections, and is reached through forwarded ports only. libslirp does it,
 * which is loaded when it is needed. The guest's card is plugged into a socket
 * as that of a switch: User-mode Linux's transport "daemon".
 */
#ifndef VM_USER_NET_H
#define VM_USER_NET_H

#include <sys/types.h>

#include "vm/machine.h"

/* In the machine's folder: where the guest asks, and where its frames go. */
#define USER_NET_SOCKET "switch"
#define USER_NET_FRAMES "frames"

/* libslirp can be loaded. UNSUPPORTED names the Debian package. */
int user_net_find(struct error *error);

/*
 * Start the network of PLAN, with its forwarded ports, in a process of its own, which has none of this one's
 * descriptors but standard error, and ends with this one at the latest. Its sockets are there when this returns. No
 * thread may run yet. Returns the process's id, for user_net_end, or an error code.
 */
int user_net_start(const struct machine_plan *plan, struct error *error);
void user_net_end(pid_t network); /* takes 0 and error codes */

#endif
