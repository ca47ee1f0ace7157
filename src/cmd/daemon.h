/*
 * Going into the background: the command returns only when the background
 * process says that it is ready, or has failed and said why.
 */
#ifndef CMD_DAEMON_H
#define CMD_DAEMON_H

#include <stdbool.h>

#include "cmd/cmd.h"

/*
 * Fork, before any thread is started. Returns in the child, which is then as it was before, with the terminal. The
 * parent does not return: it waits, and exits with 0 when the child is ready, else with the child's status.
 */
int daemon_begin(struct error *error);

/*
 * In the child: let the parent go, leave the terminal, and send the log to the system's. False if the parent has
 * gone already: then nobody wants this process, and it should end.
 */
bool daemon_ready(const struct context *context);

/* Leave the terminal, and send the log to the system's: daemon_ready for who has another way to say so. */
void daemon_leave(const struct context *context);

#endif
