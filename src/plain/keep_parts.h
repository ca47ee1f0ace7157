/* The insides that keep.c and keep_all.c share. */
#ifndef PLAIN_KEEP_PARTS_H
#define PLAIN_KEEP_PARTS_H

#include "plain/keep.h"

/* The folder of plain files in the cache folder; MAKE it if it is not there. Descriptor or error code. */
int keep_open_folder(int cache_fd, bool make, struct error *error);

/*
 * Open and lock (shared) the index in the folder NAME. Without MAKE: CORRUPT if it is none; else a header of size 0
 * then.
 */
int keep_open_index(int folder_fd, const char *name, bool make, struct plain_header *header_out, int *fd_out,
                    struct error *error);

/* The folder, into NAME, of the file of URL that was used last. ERROR_NOT_FOUND. */
int keep_find_latest(int folder_fd, const struct digest *url, char name[DIGEST_TEXT], struct error *error);

#endif
