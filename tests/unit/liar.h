/*
 * A running tests/lib/liar.py for a unit test, with a folder of its own that is
 * removed at the end. The server ends with the test, whatever happens to it.
 */
#ifndef TESTS_UNIT_LIAR_H
#define TESTS_UNIT_LIAR_H

#include <stddef.h>
#include <sys/types.h>

struct liar {
    pid_t pid;
    int port;
    int holder; /* a socket that keeps the port from others while nobody listens there */
    char folder[64]; /* holds root/ and what the test puts beside it */
    char url[64];
};

/* Start one. CERTIFICATE (PEM with key) makes it HTTPS; NULL: plain. Aborts the test on failure. */
void liar_start(struct liar *liar, const char *certificate);
/* End the process; the folder and the port stay for liar_restart. */
void liar_kill(struct liar *liar);
void liar_restart(struct liar *liar);
void liar_finish(struct liar *liar);

/* Put a file of SIZE bytes below root/. */
void liar_put(struct liar *liar, const char *path, const void *bytes, size_t size);

/* One rule as in liar.py; COUNT 0: for all requests. */
void liar_tell(struct liar *liar, const char *match, const char *behaviour, int count);
/* Forget rules and counts. */
void liar_reset(struct liar *liar);
/* A number of _stats: "total", "fresh", ... */
long liar_count(struct liar *liar, const char *name);
/* Requests for what is in FOLDER: "blocks", "packs", ... */
long liar_count_folder(struct liar *liar, const char *folder);

/* Where nobody listens; a port that is free now may be another test's in a moment. */
#define LIAR_NOBODY "127.0.0.1:1"

#endif
