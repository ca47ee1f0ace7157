/* Profiles in files: what --record of mount and boot writes, and `circular profile` and `circular pack` read. */
#ifndef CMD_PROFILE_FILE_H
#define CMD_PROFILE_FILE_H

#include "cmd/cmd.h"
#include "format/profile.h"
#include "lib/library.h"

/* Can PATH be written? Said before a long run, not after it. PATH may be NULL. */
int profile_file_check(const char *path, struct error *error);

/* What was read of DISK until now, into PATH, whole or not at all. PATH may be NULL: nothing is done. */
int profile_file_write(const struct context *context, const char *path, struct circular_disk *disk,
                       struct error *error);

/* Write PROFILE to PATH, and say so. */
int profile_file_save(const struct context *context, const char *path, const struct profile *profile,
                      struct error *error);

/* Release with profile_finish. */
int profile_file_read(const char *path, struct profile *profile_out, struct error *error);

#endif
