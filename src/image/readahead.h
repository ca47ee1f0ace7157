/*
 * Readahead: recognises sequential readers of a disk, a few at once, and says
 * what to fetch ahead of them. Only arithmetic; disk.c locks and fetches.
 */
#ifndef IMAGE_READAHEAD_H
#define IMAGE_READAHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READAHEAD_STREAMS 8
#define READAHEAD_WINDOW_MIN 4
#define READAHEAD_WINDOW_MAX 32

struct readahead_stream {
    uint64_t start, end; /* bytes that were read without a gap worth mentioning; END 0: unused */
    uint64_t ahead;      /* the block up to which has been asked for */
    uint64_t grow_at;    /* the block at which the window grows */
    uint32_t window;     /* blocks to stay ahead */
    uint32_t hit_count;  /* reads that continued it */
    uint32_t miss_count; /* reads that lacked a block */
    uint64_t used;
};

struct readahead {
    struct readahead_stream streams[READAHEAD_STREAMS];
    uint64_t clock;
    uint64_t block_count;
    uint32_t block_size;
    uint32_t window_max; /* 0: never read ahead */
};

/* MEMORY_BYTES is what all that is read ahead may take together. */
void readahead_init(struct readahead *readahead, uint64_t block_count, uint32_t block_size, size_t memory_bytes);

/* A read of SIZE bytes (not 0) at OFFSET comes in. Returns how many blocks from *FIRST_OUT on should be fetched now. */
uint32_t readahead_note(struct readahead *readahead, uint64_t offset, uint64_t size, uint64_t *first_out);

/* The read at OFFSET lacked a block that was on nobody's way. How many reads of its sequence did so. */
void readahead_note_miss(struct readahead *readahead, uint64_t offset);
uint32_t readahead_misses(struct readahead *readahead, uint64_t offset);

/* The ends of the streams, the one used last first. Returns how many there are. */
size_t readahead_positions(const struct readahead *readahead, uint64_t positions_out[READAHEAD_STREAMS]);

#endif
