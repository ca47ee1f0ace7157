/* Waiting for the signals that end a command, and for something else at the same time. */
#ifndef CMD_SIGNALS_H
#define CMD_SIGNALS_H

#include <poll.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * From now on SIGINT, SIGTERM and SIGHUP do not end the process but make a descriptor readable. Returns that, or an
 * error code. Once a process. Programs that are started later have the signals as usual.
 */
int signals_open(struct error *error);

/* Fork; the signals end the child again, and until they do none of the child's goes into the parent's descriptor. */
pid_t signals_fork(void);

/* NUMBER too, after signals_open. Nonzero: it cannot be. */
int signals_add(int number);

/* Wait for a signal (returns its number) or for OTHER_FD to become readable (returns 0). OTHER_FD may be -1. */
int signals_wait(int signals_fd, int other_fd);

/*
 * The same for COUNT descriptors POLLED, of which the first is SIGNALS_FD's and the others' events are the caller's;
 * 0 also after TIMEOUT_MS (-1: never). A descriptor of -1 is none.
 */
int signals_wait_among(struct pollfd *polled, nfds_t count, int timeout_ms);

#endif
