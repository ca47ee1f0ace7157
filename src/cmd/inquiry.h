/* Asking a mount whose server may be stopped or hang, which would keep whoever asks, perhaps even when he is killed. */
#ifndef CMD_INQUIRY_H
#define CMD_INQUIRY_H

#include <stddef.h>

#include "base/error.h"

#define INQUIRY_MS 5000 /* that a server is given to say something about itself */

/*
 * Ask what is mounted at PATH for its ATTRIBUTE, as text; for none but an answer where that is NULL. NOT_FOUND: nobody
 * serves it, or it has no such attribute; UNAVAILABLE: no answer in time, or nothing to ask with.
 */
int inquire(const char *path, const char *attribute, unsigned within_ms, char *text, size_t size);

/* Does what PATH lies on answer, be it with a failure? UNAVAILABLE: it does not; the message is of what is SHOWN. */
int inquiry_check(const char *path, const char *shown, struct error *error);

/* In a child: close all but the streams and FD. The parent's locks are not the child's. */
void inquiry_keep_only(int fd);

#endif
