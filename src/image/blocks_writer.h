/*
 * Writing an image's blocks into an archive folder, on several threads: holes
 * and zero blocks are left out, blocks that are there already are checked and
 * kept, the others are compressed and written whole or not at all.
 */
#ifndef IMAGE_BLOCKS_WRITER_H
#define IMAGE_BLOCKS_WRITER_H

#include "base/progress.h"
#include "format/map.h"

struct blocks_settings {
    int folder;              /* the archive */
    const char *folder_name; /* for messages */
    int input;               /* the raw image: a regular file or block device, of at least DISK_SIZE bytes */
    const char *input_name; /* for messages */
    uint32_t block_size;
    uint64_t disk_size;
    int level;
    int dense_level;      /* of the first DENSE_BYTES of new blocks; see publish.c */
    uint64_t dense_bytes; /* 0: none */
    unsigned job_count;
    bool only_digests; /* compute the map and write nothing */
    const struct progress *progress; /* may be NULL; bytes of data read */
};

struct blocks_count {
    uint64_t data_size;   /* of blocks that are not zero */
    uint64_t stored_size; /* of their files, each counted once; 0 with only_digests */
    uint64_t new_blocks, new_bytes; /* files that were not there before, or were there and bad */
};

/*
 * Every digest goes into BUILDER. Nothing is flushed to the disk: the caller does that for all at once.
 * CHANGED: the input ends early. NO_SPACE, CANCELLED, SYSTEM.
 */
int blocks_write(const struct blocks_settings *settings, struct map_builder *builder,
                 struct blocks_count *count_out, struct error *error);

#endif
