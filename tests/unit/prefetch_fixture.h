/*
 * For the tests of reading ahead over HTTP: two servers that hold the same disk, once with a boot pack and once with
 * packs of everything; a reader of one of them; and waiting for blocks.
 */
#ifndef PREFETCH_FIXTURE_H
#define PREFETCH_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "archive_maker.h"
#include "base/clock.h"
#include "base/digest_set.h"
#include "image/ahead.h"
#include "image/pack.h"
#include "liar.h"
#include "net/http.h"

#define BLOCK_SIZE 4096
#define BLOCKS 600

static struct liar server, second; /* which holds the same archive */
static struct http_client *client;
static struct workers *workers;
static struct archive_maker maker;
static uint8_t *image;
static struct digest image_id;
static char cache_folder[128];

/* What a client has. */
struct reader {
    struct cache *cache;
    struct mirrors *mirrors;
    struct store *store;
    struct disk *disk;
    struct ahead *ahead;
};

static inline int set_up(void **state)
{
    char command[512];
    struct profile profile = {.block_size = BLOCK_SIZE, .boot_count = 1};
    struct pack_settings settings = {.archive = maker.folder, .name = "disk", .profile = &profile};
    struct pack_result result;
    struct error error;

    (void)state;
    archive_maker_init(&maker);
    image = make_image((uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE, 7);
    image_id = archive_maker_add(&maker, "disk", "1", image, (uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE);
    archive_maker_publish(&maker);
    profile.image = image_id;
    for (uint64_t b = 0; b < BLOCKS / 2; b++) /* every other block, backwards in two halves */
        assert_int_equal(profile_append(&profile, (BLOCKS - 1 - 2 * b) % BLOCKS, (uint32_t)b, &error), 0);
    if (pack_write(&settings, &result, &error))
        fail_msg("%s", error.message);
    assert_true(result.boot_blocks > 100);
    profile_finish(&profile);
    /* The same disk with packs of everything, and no profile. */
    archive_maker_add(&maker, "bare", "1", image, (uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE);
    archive_maker_publish(&maker);
    settings = (struct pack_settings){.archive = maker.folder, .name = "bare", .all = true};
    if (pack_write(&settings, &result, &error))
        fail_msg("%s", error.message);
    assert_true(result.boot_blocks == 0 && result.rest_blocks > 200);
    liar_start(&server, NULL);
    liar_start(&second, NULL);
    snprintf(command, sizeof(command), "cp -r %s/. %s/root/ && cp -r %s/. %s/root/", maker.folder, server.folder,
             maker.folder, second.folder);
    assert_int_equal(system(command), 0);
    return http_client_create(&(struct http_settings){0}, &client, NULL) ||
           workers_create(2, &workers, NULL);
}

static inline int tear_down(void **state)
{
    (void)state;
    http_client_destroy(client);
    workers_destroy(workers);
    liar_finish(&server);
    liar_finish(&second);
    archive_maker_finish(&maker);
    free(image);
    return 0;
}

static inline int fresh_cache(void **state)
{
    (void)state;
    liar_reset(&server);
    liar_reset(&second);
    make_folder(cache_folder);
    return 0;
}

static inline int drop_cache(void **state)
{
    (void)state;
    remove_folder(cache_folder);
    return 0;
}

/* What a reader opens, and how. */
struct opening {
    const char *name; /* "bare"; NULL: "disk", which has a boot pack */
    enum prefetch_mode mode;
    const struct liar *mirror; /* beside the first; NULL: none */
    const struct profile *kept;
};

static inline void reader_open_at(struct reader *reader, const char *url, const struct opening *opening)
{
    struct store_settings settings = {.workers = workers};
    struct error error;

    *reader = (struct reader){0};
    assert_int_equal(cache_open(cache_folder, 0, &reader->cache, &error), 0);
    assert_int_equal(mirrors_create(client, workers, 5000, &reader->mirrors, &error), 0);
    assert_int_equal(mirrors_add(reader->mirrors, url, &error), 0);
    if (opening->mirror)
        assert_int_equal(mirrors_add(reader->mirrors, opening->mirror->url, &error), 0);
    settings.cache = reader->cache;
    settings.mirrors = reader->mirrors;
    assert_int_equal(store_open(&settings, &reader->store, &error), 0);
    reader->ahead = ahead_begin(reader->store, opening->name ? opening->name : "disk", NULL, opening->mode, true);
    if (disk_open(reader->store, &image_id, &reader->disk, &error))
        fail_msg("%s", error.message);
    ahead_disk(reader->ahead, reader->disk, opening->kept);
}

static inline void reader_open_as(struct reader *reader, const struct opening *opening)
{
    reader_open_at(reader, server.url, opening);
}

static inline void reader_open(struct reader *reader, enum prefetch_mode mode)
{
    reader_open_as(reader, &(struct opening){.mode = mode});
}

static inline void reader_close(struct reader *reader)
{
    mirrors_cancel(reader->mirrors);
    ahead_leave(reader->ahead, reader->disk);
    disk_close(reader->disk);
    ahead_end(reader->ahead);
    store_close(reader->store);
    mirrors_destroy(reader->mirrors);
    cache_close(reader->cache);
}

static inline void read_many_and_compare(struct reader *reader, uint64_t block, uint64_t count)
{
    uint8_t bytes[8 * BLOCK_SIZE];
    size_t size = count * BLOCK_SIZE;
    struct error error;

    assert_true(size <= sizeof(bytes));
    if (disk_read(reader->disk, bytes, size, block * BLOCK_SIZE, &error) != (ssize_t)size)
        fail_msg("block %llu: %s", (unsigned long long)block, error.message);
    assert_memory_equal(bytes, image + block * BLOCK_SIZE, size);
}

static inline void read_and_compare(struct reader *reader, uint64_t block)
{
    read_many_and_compare(reader, block, 1);
}

static inline void read_boot(struct reader *reader)
{
    for (uint64_t b = 0; b < BLOCKS / 2; b++)
        read_and_compare(reader, (BLOCKS - 1 - 2 * b) % BLOCKS);
}

/* Different blocks among every STEP-th, from the last one down. */
static inline uint64_t count_blocks(uint64_t step)
{
    struct digest_set *set = digest_set_create();
    struct digest digest;
    uint64_t count = 0;

    for (uint64_t i = 0; i < BLOCKS / step; i++) {
        const uint8_t *block = image + (BLOCKS - 1 - step * i) * BLOCK_SIZE;

        digest_of(block, BLOCK_SIZE, &digest);
        if (!bytes_are_zero(block, BLOCK_SIZE))
            count += (uint64_t)digest_set_add(set, &digest);
    }
    digest_set_destroy(set);
    return count;
}

/* Until so many are cached, or for a minute, which is for a busy machine. Returns how many are. */
static inline uint64_t wait_for_some(struct reader *reader, uint64_t wanted)
{
    uint64_t deadline = clock_ms() + 60000;
    struct cache_usage usage;

    for (;;) {
        assert_int_equal(cache_measure(reader->cache, &usage, NULL), 0);
        if (usage.block_count >= wanted || clock_ms() >= deadline)
            return usage.block_count;
        clock_sleep_ms(10);
    }
}

static inline void wait_for_blocks(struct reader *reader, uint64_t wanted)
{
    assert_int_equal(wait_for_some(reader, wanted), wanted);
}

#define test(function) cmocka_unit_test_setup_teardown(function, fresh_cache, drop_cache)

#endif
