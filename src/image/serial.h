/*
 * The highest serial that was seen of each archive, so that an older catalog
 * is refused. One small file an archive, serial-<archive id>, in the state
 * folder; safe with many processes at once.
 */
#ifndef IMAGE_SERIAL_H
#define IMAGE_SERIAL_H

#include <stdint.h>

#include "base/error.h"

/*
 * *SERIAL_OUT is 0 if the archive is new here, or STATE_FD is -1. CORRUPT: the file is damaged, the message names it.
 */
int serial_read(int state_fd, const char *archive, uint64_t *serial_out, struct error *error);

/* Remember SERIAL if it is the highest so far. It never goes down. Nothing to do if STATE_FD is -1. */
int serial_raise(int state_fd, const char *archive, uint64_t serial, struct error *error);

#endif
