/*
 * What an HTTP request says (RFC 9110, RFC 9112): its path, its ranges, its dates.
 */
#ifndef FORMAT_REQUEST_H
#define FORMAT_REQUEST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REQUEST_PATH_MAX   1024
#define REQUEST_RANGES_MAX 16

/*
 * Decode TARGET, an absolute path with percent escapes and without a query, into PATH (REQUEST_PATH_MAX) without its
 * leading slash. ERROR_INVALID: malformed, too long, or a NUL. ERROR_NOT_FOUND: a component that is empty or begins
 * with a dot; no file in an archive is called so, and ".." is never passed on.
 */
int request_path(const char *target, char *path, struct error *error);

struct request_range {
    uint64_t offset;
    uint64_t length; /* at least 1; inside the file */
};

/*
 * The ranges that a Range header wants of SIZE bytes, into RANGES (REQUEST_RANGES_MAX). Returns their number; 0: none
 * of them is inside the file (416); -1: the header is not understood, or wants more than its share (overlapping ranges
 * or too many of them), and is to be ignored, as RFC 9110 14.2 allows.
 */
int request_ranges(const char *header, uint64_t size, struct request_range *ranges);

/* HTTP's preferred date, "Sun, 06 Nov 1994 08:49:37 GMT". TEXT holds REQUEST_DATE_TEXT. */
#define REQUEST_DATE_TEXT 30
char *request_date_format(int64_t seconds, char *text);
bool request_date_parse(const char *text, int64_t *seconds_out);

/*
 * True if ETAG (with its quotes) is in the list of an If-None-Match or If-Match header, or that is "*". Weak
 * comparison.
 */
bool request_has_etag(const char *list, const char *etag);

#endif
