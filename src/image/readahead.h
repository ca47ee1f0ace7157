/*
 * Readahead: recognises sequential and strided readers of a disk, a few at once,
 * and says what to fetch ahead of them. Only arithmetic; disk.c locks and fetches.
 */
#ifndef IMAGE_READAHEAD_H
#define IMAGE_READAHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READAHEAD_STREAMS 8
#define READAHEAD_WINDOW_MIN 4
#define READAHEAD_WINDOW_MIN_NEAR 1
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

/*
 * Reads at a constant distance, each of which begins a stream of its own, as of a column, or of a file system's tables.
 */
#define READAHEAD_STRIDES 4
#define READAHEAD_STRIDE_MAX (UINT64_C(1) << 30)
struct readahead_stride {
    uint64_t last;       /* where the last of them began */
    int64_t step;        /* to the next; 0: unused */
    uint32_t hit_count;  /* of them */
    uint32_t ahead;      /* how many behind LAST were asked for */
    uint32_t miss_count; /* as of a stream */
    uint64_t used;
};

/* Blocks to fetch. */
struct readahead_piece {
    uint64_t first;
    uint32_t count;
};
#define READAHEAD_PIECES_MAX 16

struct readahead {
    struct readahead_stride strides[READAHEAD_STRIDES];
    uint64_t starts[READAHEAD_STREAMS]; /* where streams began, of late; the newest first */
    struct readahead_stream streams[READAHEAD_STREAMS];
    uint64_t clock;
    uint64_t block_count;
    uint32_t block_size;
    uint32_t window_max; /* 0: never read ahead */
    bool near;           /* answers come so quickly that what nobody reads costs more than to ask later */
};

/* MEMORY_BYTES is what all that is read ahead may take together. */
void readahead_init(struct readahead *readahead, uint64_t block_count, uint32_t block_size, size_t memory_bytes);

/* A read of SIZE bytes (not 0) at OFFSET comes in. Returns how many PIECES_OUT should be fetched now. */
size_t readahead_note(struct readahead *readahead, uint64_t offset, uint64_t size,
                      struct readahead_piece pieces_out[READAHEAD_PIECES_MAX]);

/* The read at OFFSET lacked a block that was on nobody's way. How many reads of its sequence did so. */
void readahead_note_miss(struct readahead *readahead, uint64_t offset);
uint32_t readahead_misses(struct readahead *readahead, uint64_t offset);

/* The ends of the streams, the one used last first. Returns how many there are. */
size_t readahead_positions(const struct readahead *readahead, uint64_t positions_out[READAHEAD_STREAMS]);

#endif
