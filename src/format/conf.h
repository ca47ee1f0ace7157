/*
 * Configuration files: lines of "word = value", "#" comments, blank lines.
 * circular.conf(5). A later line of the same word replaces, but for words that
 * are lists (key, mirror), where it adds.
 */
#ifndef FORMAT_CONF_H
#define FORMAT_CONF_H

#include "base/error.h"

#define CONF_SIZE_MAX 65536

/* WORD and VALUE are NUL-terminated, trimmed, never empty. Nonzero stops with that code. */
typedef int conf_setting(void *user, unsigned line, const char *word, const char *value, struct error *error);

/* ERROR_INVALID names the line. Bytes: any; a NUL or a control character is an error. */
int conf_parse(const char *bytes, size_t size, conf_setting *setting, void *user, struct error *error);

#endif
