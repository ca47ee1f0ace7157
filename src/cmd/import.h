/* Disk images of other programs: recognised by their first bytes, and made raw by qemu-img. */
#ifndef CMD_IMPORT_H
#define CMD_IMPORT_H

#include "cmd/cmd.h"

/* A raw image to publish. */
struct import {
    int fd;             /* -1: none */
    const char *format; /* what the input was, "raw" or qemu-img's word */
};

/*
 * Open PATH. FORMAT NULL: as its bytes say; "raw" and "iso" are taken as they are, all others are converted to an
 * unnamed temporary file in FOLDER, which is made if need be.
 * An image that refers to other files is only followed if FORMAT was given: who made it could name any file of ours.
 * INVALID, NOT_FOUND, UNSUPPORTED (qemu-img is missing), CHANGED, CANCELLED, NO_SPACE, SYSTEM.
 */
int import_open(const struct context *context, const char *path, const char *format, const char *folder,
                struct import *import_out, struct error *error);
void import_close(struct import *import);

#endif
