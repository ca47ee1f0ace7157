/*
 * Pulling: all of an image, into the cache or out to a file or device.
 */
#ifndef IMAGE_PULL_H
#define IMAGE_PULL_H

#include "base/progress.h"
#include "image/disk.h"
#include "image/packs.h"

struct pull_result {
    uint64_t blocks, bytes;           /* of the image, non-zero */
    uint64_t present_blocks;          /* were there already: in the cache, or right in the output file */
    uint64_t fetched_blocks, fetched_bytes; /* bytes compressed */
};

/*
 * Fetch every block that is not in the cache yet: out of PACKS (may be NULL) where they hold it, else one by one.
 * Progress is in uncompressed bytes of data.
 */
int pull_to_cache(struct disk *disk, struct store *store, struct packs *packs, const struct progress *progress,
                  struct pull_result *result_out, struct error *error);

/*
 * Write the disk to FD (a sparse file, or a block device at least as large). Blocks that FD holds already are
 * verified and kept, which is how a broken-off pull resumes. PATH is for messages.
 */
int pull_to_file(struct disk *disk, struct store *store, struct packs *packs, int fd, const char *path,
                 const struct progress *progress, struct pull_result *result_out, struct error *error);

#endif
