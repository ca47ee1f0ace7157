/* For the tests of the cache folder: frames to put there, and a look at what really is in it. */
#ifndef CACHE_FIXTURE_H
#define CACHE_FIXTURE_H

#include <ftw.h>

#include "base/file.h"
#include "store/cache_parts.h"
#include "store_scratch.h"

#define FRAME_SIZE 10000
#define FRAME_CHARGE 12288

/* The cache does not look inside frames, so these are any bytes, named by their digest. */
static inline void make_frame(uint64_t seed, uint8_t frame[FRAME_SIZE], struct digest *digest)
{
    fill_random(frame, FRAME_SIZE, seed);
    digest_of(frame, FRAME_SIZE, digest);
}

static inline void put(struct cache *cache, uint64_t seed, struct digest *digest)
{
    uint8_t frame[FRAME_SIZE];

    make_frame(seed, frame, digest);
    cache_write_block(cache, digest, frame, sizeof(frame));
}

static inline int get_code(struct cache *cache, const struct digest *digest)
{
    struct buffer frame = {0};
    bool unmarked = false;
    int result = cache_read_block(cache, digest, 65536, &frame, &unmarked, NULL);
    struct digest found;

    if (!result) {
        digest_of(frame.bytes, frame.size, &found);
        if (!digest_equal(&found, digest))
            result = 1;
    }
    if (unmarked)
        cache_mark_block(cache, digest);
    buffer_finish(&frame);
    return result;
}

struct contents {
    uint64_t count, bytes, other;
    uint64_t damaged; /* if CHECK is set */
    bool check;
};

static struct contents *the_contents;

static inline int count_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    struct digest named, found;
    struct buffer bytes = {0};

    if (type != FTW_F)
        return 0;
    if (!digest_parse(path + walk->base, &named)) {
        the_contents->other++;
        return 0;
    }
    the_contents->count++;
    the_contents->bytes += cache_charge((uint64_t)status->st_size);
    if (the_contents->check && !file_read(AT_FDCWD, path, 1000000, &bytes, NULL)) {
        digest_of(bytes.bytes, bytes.size, &found);
        the_contents->damaged += !digest_equal(&named, &found);
    }
    buffer_finish(&bytes);
    return 0;
}

/* What really is under blocks/. */
static inline struct contents look_at(const struct scratch *scratch, bool check)
{
    struct contents contents = {.check = check};
    char path[160];

    snprintf(path, sizeof(path), "%s/blocks", scratch->path);
    the_contents = &contents;
    nftw(path, count_one, 16, FTW_PHYS);
    return contents;
}

static inline struct contents look(const struct scratch *scratch)
{
    return look_at(scratch, true);
}

#endif
