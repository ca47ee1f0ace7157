/*
 * A profile: the order in which a boot first touches an image's blocks, with a
 * coarse clock. circular-profile(5). Published as files/<digest> and named by the
 * hints; kept in the cache under archives/<key>/images/NAME/VERSION.profile.
 *
 *   offset 0    header, 64 bytes
 *       0   8   magic "OSCPROF1"
 *       8   4   version, 1
 *      12   4   run count, 1 to 1048576
 *      16  32   image id
 *      48   4   block size in bytes
 *      52   4   boots that were merged into it, at least 1
 *      56   8   reserved, 0
 *   offset 64   runs of 16 bytes
 *       0   8   first block
 *       8   4   milliseconds since the first touch; never falls
 *      12   4   blocks in the run, at least 1, touched in rising order
 * No block occurs twice. A profile is a hint: a wrong one costs bounded traffic.
 */
#ifndef FORMAT_PROFILE_H
#define FORMAT_PROFILE_H

#include "base/error.h"
#include "base/hash.h"

#define PROFILE_HEADER_SIZE 64
#define PROFILE_RUN_SIZE 16
#define PROFILE_RUNS_MAX 1048576
#define PROFILE_BLOCKS_MAX (4 * 1024 * 1024)
#define PROFILE_SIZE_MAX (PROFILE_HEADER_SIZE + (size_t)PROFILE_RUN_SIZE * PROFILE_RUNS_MAX)

struct profile_run {
    uint64_t block;
    uint32_t time_ms;
    uint32_t count;
};

struct profile {
    struct digest image;
    uint32_t block_size;
    uint32_t boot_count;
    struct profile_run *runs;
    uint32_t run_count;
    uint64_t block_count; /* sum of the runs */
};

/* ERROR_CORRUPT with what is wrong. Release with profile_finish. */
int profile_parse(const uint8_t *bytes, size_t size, struct profile *profile_out, struct error *error);
/* The file's bytes into OUT (replaced). */
int profile_format(const struct profile *profile, struct buffer *out, struct error *error);
void profile_finish(struct profile *profile);
/* A copy of its own. ERROR_SYSTEM without memory. */
int profile_copy(const struct profile *profile, struct profile *copy_out, struct error *error);

/*
 * Append a touch of BLOCK at TIME_MS, which joins the last run if it follows it within 100 ms. The caller sees to it
 * that a block is appended once. ERROR_NO_SPACE when the profile is full, ERROR_SYSTEM without memory.
 */
int profile_append(struct profile *profile, uint64_t block, uint32_t time_ms, struct error *error);

/*
 * Merge boots of one image: each block at the mean of the times at which the boots that touched it did; blocks
 * touched by fewer than half of the boots come after all others. ERROR_INVALID if images differ.
 */
int profile_merge(const struct profile *profiles, size_t count, struct profile *merged_out, struct error *error);

#endif
