/*
 * Loop devices: a part of a file as a read-only block device that vanishes by
 * itself when its last user has gone. Linux 5.8 or later.
 */
#ifndef SERVE_LOOP_H
#define SERVE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define LOOP_PATH_MAX 32
#define LOOP_MAJOR    7

/*
 * Attach SIZE bytes from OFFSET of FD (borrowed). NAME (63 characters at most) is kept by the kernel, see loop_name.
 * PATH_OUT (LOOP_PATH_MAX) gets "/dev/loopN". Returns a descriptor of the device: the device lives until that is
 * closed and nothing else uses it. UNSUPPORTED: no loop devices here; SYSTEM.
 */
int loop_attach(int fd, uint64_t offset, uint64_t size, const char *name, char *path_out, struct error *error);

/*
 * The name that a device was attached under (LOOP_NAME_MAX), and the device number (as st_dev) of the file system that
 * its file is on. False: there is no such device.
 */
#define LOOP_NAME_MAX 64
bool loop_find(unsigned minor, char name_out[LOOP_NAME_MAX], uint64_t *device_out);

/* Is this device one that was attached under a name that begins with PREFIX? */
bool loop_has_name(unsigned minor, const char *prefix);

/* Wait until the device has let go of its file, at most TIMEOUT_MS. */
bool loop_wait_gone(unsigned minor, uint64_t timeout_ms);

#endif
