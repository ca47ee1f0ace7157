/*
 * A sweep over all blocks of a disk that hold data, in order, with many of them
 * asked for at once: what pulling and verifying have in common.
 */
#ifndef IMAGE_SWEEP_H
#define IMAGE_SWEEP_H

#include "base/progress.h"
#include "image/disk.h"
#include "image/packs.h"

struct sweep_settings {
    struct disk *disk;
    struct store *store;
    const struct pack *packs; /* to be streamed where they hold much of what is asked for; borrowed for the call */
    size_t pack_count;        /* 0: every block is asked for by itself */
    bool readers_first;       /* who reads a block that a stream is to bring does not wait for the stream */
    const struct progress *progress; /* may be NULL; bytes of blocks done, total 0: a map does not say */
    /*
     * On the calling thread, block after block: 1 asks for the block, 0 goes on without it, an error code ends the
     * sweep. NULL asks for all.
     */
    int (*wanted)(void *user, uint64_t block, const struct digest *digest, uint32_t length, struct error *error);
    /* A verified block; on any thread, several at a time, in any order. An error code ends the sweep. May be NULL. */
    int (*arrived)(void *user, uint64_t block, const struct block *bytes, struct error *error);
    /* A block that could not be had; one call at a time. 0 goes on. NULL: the sweep ends with its error. */
    int (*failed)(void *user, uint64_t block, const struct digest *digest, const struct error *reason);
    void *user;
};

/* Returns when nothing is called any more. CANCELLED when the progress says so. */
int sweep_run(const struct sweep_settings *settings, struct error *error);

#endif
