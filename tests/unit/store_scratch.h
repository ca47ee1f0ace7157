/*
 * For the tests of src/store: a scratch folder, a cache in it, blocks to put there, and the warnings that were logged.
 */
#ifndef STORE_SCRATCH_H
#define STORE_SCRATCH_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/cache.h"

struct scratch {
    char path[64];
    struct cache *cache;
    atomic_int warnings;
    char last_warning[2048];
};

static inline void scratch_log(void *user, enum log_level level, const char *line)
{
    struct scratch *scratch = user;

    if (level > LOG_LEVEL_WARNING)
        return;
    snprintf(scratch->last_warning, sizeof(scratch->last_warning), "%s", line);
    scratch->warnings++;
}

static inline void scratch_open(struct scratch *scratch, uint64_t max_bytes)
{
    struct error error = ERROR_INIT;

    *scratch = (struct scratch){.path = "/tmp/test-store-XXXXXX"};
    log_set_sink(scratch_log, scratch, LOG_LEVEL_WARNING);
    assert_non_null(mkdtemp(scratch->path));
    if (cache_open(scratch->path, max_bytes, &scratch->cache, &error))
        fail_msg("%s", error.message);
}

static inline void scratch_close(struct scratch *scratch)
{
    cache_close(scratch->cache);
    log_set_sink(NULL, NULL, LOG_LEVEL_WARNING);
    file_remove(AT_FDCWD, scratch->path, NULL);
}

/* "FOLDER/blocks/ab/ab..." */
static inline char *scratch_path(const struct scratch *scratch, const struct digest *digest, char path[160])
{
    char text[DIGEST_TEXT];

    digest_format(digest, text);
    snprintf(path, 160, "%s/blocks/%.2s/%s", scratch->path, text, text);
    return path;
}

/* Bytes that nothing compresses, the same for the same SEED. */
static inline void fill_random(void *bytes, size_t size, uint64_t seed)
{
    uint8_t *b = bytes;
    uint64_t value = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (size_t i = 0; i < size; i++) {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        b[i] = (uint8_t)(value >> 32);
    }
}

#endif
