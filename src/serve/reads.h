/*
 * Reads under way: each is cut into pieces, started without waiting, and
 * answered once - by its last piece, by an interrupt, or by the watch that
 * fails requests of which only a part arrives. Knows nothing of FUSE.
 */
#ifndef SERVE_READS_H
#define SERVE_READS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/extents.h"
#include "circular.h"

#define READ_SIZE_MAX (1024 * 1024)
/* A piece never spans two blocks of at least this size. */
#define PIECE_SIZE (64 * 1024)

struct reads;
struct read;

/* How to deal with the requests that reads answer. REQUEST is theirs until answered. */
struct read_host {
    /* Call interrupted READS's reads_interrupt(READ) when the caller is interrupted, perhaps before this returns;
     * with READ NULL: no longer, and not return while such a call is going on. */
    void (*watch)(void *request, struct read *read);
    /* CODE 0: the SIZE bytes; else an error code. The request is gone afterwards. */
    void (*answer)(void *request, int code, const void *bytes, size_t size);
    /* The disk is no longer used for the read of NODE. */
    void (*release)(void *user, uint64_t node);
    void *user;
};

/* What is read. */
struct read_source {
    struct circular_disk *disk;
    const struct extents *extents; /* these bytes of it; NULL: all */
    uint64_t node;
};

int reads_create(const struct read_host *host, struct reads **reads_out, struct error *error);

/*
 * Answer REQUEST with SIZE bytes (at most READ_SIZE_MAX) of SOURCE at OFFSET, all of which exist. With MAY_FAIL_EARLY
 * it fails as soon as nothing has come for a while but a part of it is here; the caller then asks again for less.
 * RELEASE is called once when the disk is no longer used, also when there is no memory.
 */
void reads_start(struct reads *reads, void *request, const struct read_source *source, size_t size, uint64_t offset,
                 bool may_fail_early);

/* Answer with ERROR_CANCELLED unless it has been answered. What is being fetched arrives later, for nobody. */
void reads_interrupt(struct read *read);

/* Stop the watch. No read is started or interrupted after this. */
void reads_stop(struct reads *reads);

/* Wait until no disk is used any more, at most TIMEOUT_MS. */
bool reads_wait(struct reads *reads, uint64_t timeout_ms);

/* After reads_stop and a successful reads_wait. Takes NULL. */
void reads_destroy(struct reads *reads);

#endif
