/*
 * A connection to the control socket of a running QEMU. QEMU serves one at a
 * time: keep it short. Every wait has an end.
 */
#ifndef VM_QMP_H
#define VM_QMP_H

#include "base/bytes.h"
#include "format/qmp.h"

struct qmp;

/*
 * Connect to the socket NAME in a folder and exchange greetings. NOT_FOUND: nobody listens; BUSY: somebody else is
 * connected, or QEMU does not answer within TIMEOUT_MS, which counts for every later answer too.
 */
int qmp_open(int folder_fd, const char *name, unsigned timeout_ms, struct qmp **qmp_out, struct error *error);
void qmp_close(struct qmp *qmp); /* takes NULL */

/*
 * Begin a command, put its arguments with json_put_text and the like, and run it: QMP owns COMMAND from then on. The
 * answer is in ANSWER (replaced; NULL: dropped). SYSTEM with QEMU's words if it refuses; BUSY.
 */
struct json_writer *qmp_begin(struct qmp *qmp, const char *command);
int qmp_run(struct qmp *qmp, struct json_writer *command, struct buffer *answer, struct error *error);

/* A command without arguments, or a question of which no more than its going through is wanted. */
int qmp_order(struct qmp *qmp, const char *command, struct error *error);

/* "running", "paused", "io-error", ... */
int qmp_status(struct qmp *qmp, char status_out[QMP_WORD], struct error *error);
int qmp_blocks(struct qmp *qmp, struct qmp_block blocks_out[QMP_BLOCKS_MAX], size_t *count_out, struct error *error);

/* A UNIX socket NAME in a folder, of any length of path: listening (an earlier one is replaced), or connected to it.
 * Returns the descriptor or an error code. */
int socket_listen(int folder_fd, const char *name, struct error *error);
int socket_connect(int folder_fd, const char *name, struct error *error);

#endif
