/*
 * The body of an answer with several ranges of a file: multipart/byteranges,
 * RFC 9110 14.6. Any part of it can be read at any time.
 */
#ifndef SERVE_MULTIPART_H
#define SERVE_MULTIPART_H

#include <sys/types.h>

#include "format/request.h"

struct multipart;

/* Takes FD over, closes it at the end or on failure. NULL: no memory. */
struct multipart *multipart_create(int fd, uint64_t file_size, const char *type, const struct request_range *ranges,
                                   unsigned count);
void multipart_destroy(void *multipart); /* takes NULL */

uint64_t multipart_size(const struct multipart *multipart);
const char *multipart_boundary(const struct multipart *multipart);

/* Up to SIZE bytes at POSITION; at least 1. -1: the file cannot be read or has become shorter. */
ssize_t multipart_read(void *multipart, uint64_t position, char *bytes, size_t size);

#endif
