/* The tree over mirrors that lie, truncate and lose, a cache that rots, and disks of every shape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/latch.h"
#include "fake_store.h"
#include "seed.h"
#include "format/map.h"
#include "image/tree.h"

/* A map file, and a store that has it. */
struct fixture {
    struct map map;
    struct digest id;
    struct buffer file;
    struct store store;
    struct mirrors mirrors;
    struct cache cache;
};

static void digest_number(uint64_t n, struct digest *digest)
{
    uint8_t bytes[8];

    store_le64(bytes, n);
    digest_of(bytes, sizeof(bytes), digest);
}

/* Blocks I * STEP, below COUNT of them, hold data. */
static void make_map(struct fixture *f, uint64_t disk_size, uint64_t step, uint64_t count)
{
    struct map_builder *builder;
    struct digest digest;

    memset(f, 0, sizeof(*f));
    assert_int_equal(map_builder_create(65536, disk_size, &builder, NULL), 0);
    for (uint64_t i = 0; i < count; i++) {
        digest_number(i * step, &digest);
        assert_int_equal(map_builder_set(builder, i * step, &digest, NULL), 0);
    }
    assert_int_equal(map_builder_finish(builder, &f->file, &f->map, NULL), 0);
    map_builder_destroy(builder);
    map_image_id(&f->map, &f->id);
    fake_store_init(&f->store);
    fake_cache_init(&f->cache);
    f->store.cache = &f->cache;
}

static void finish(struct fixture *f)
{
    fake_store_finish(&f->store);
    fake_cache_finish(&f->cache);
    buffer_finish(&f->file);
}

static void assert_block(struct tree *tree, uint64_t block, uint64_t step, uint64_t count)
{
    struct digest digest, expected = {0};

    if (block % step == 0 && block / step < count)
        digest_number(block, &expected);
    assert_int_equal(tree_lookup(tree, block, 1, PRIORITY_READER, &digest, NULL), 0);
    assert_true(digest_equal(&digest, &expected));
}

static uint8_t *copy_of(const struct buffer *buffer)
{
    uint8_t *copy = malloc(buffer->size);

    memcpy(copy, buffer->bytes, buffer->size);
    return copy;
}

static void a_usual_disk_is_opened_with_one_request(void **state)
{
    struct fixture f;
    struct tree *tree;

    (void)state;
    make_map(&f, 3 * GIB, 7, 7000);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_int_equal(f.mirrors.request_count, 1);
    assert_int_equal(tree_map(tree)->block_count, 49152);
    for (uint64_t block = 0; block < 49152; block += 5)
        assert_block(tree, block, 7, 7000);
    /* The rest of the map comes in groups of 32 pages. */
    assert_in_range(f.mirrors.request_count, 2, 14);
    tree_close(tree);
    finish(&f);
}

static void a_tebibyte_of_holes_costs_one_request_and_little_memory(void **state)
{
    struct fixture f;
    struct tree *tree;
    struct rusage before, after;
    struct digest digest;
    uint64_t block;

    (void)state;
    make_map(&f, 1024 * GIB, 1, 16384); /* 1 GiB of data */
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    getrusage(RUSAGE_SELF, &before);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_int_equal(f.mirrors.request_count, 1);
    assert_in_range(f.mirrors.byte_count, 1, 512 * KIB);
    assert_int_equal(tree_lookup(tree, 9000000, 1, PRIORITY_READER, &digest, NULL), 0);
    assert_true(digest_is_zero(&digest));
    assert_int_equal(tree_next_data(tree, 16384, UINT64_MAX, &block, NULL), 0);
    assert_int_equal(block, tree_map(tree)->block_count);
    assert_int_equal(f.mirrors.request_count, 1);
    getrusage(RUSAGE_SELF, &after);
    assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 4096);
    tree_close(tree);
    finish(&f);
}

static void bits_longer_than_the_head_cost_a_second_request(void **state)
{
    struct fixture f;
    struct tree *tree;
    uint64_t block;

    (void)state;
    make_map(&f, 64 * 1024 * GIB, 1000000000, 2);
    assert_true(map_presence_size(&f.map) > 512 * KIB);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_int_equal(f.mirrors.request_count, 2);
    assert_block(tree, 0, 1000000000, 2);
    assert_block(tree, 1000000000, 1000000000, 2);
    assert_int_equal(tree_next_data(tree, 1, UINT64_MAX, &block, NULL), 0);
    assert_int_equal(block, 1000000000);
    assert_int_equal(f.mirrors.request_count, 2);
    tree_close(tree);
    finish(&f);
}

static void an_empty_disk_has_no_pages(void **state)
{
    struct fixture f;
    struct tree *tree;
    uint64_t block;

    (void)state;
    make_map(&f, 1, 1, 0);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_block(tree, 0, 1, 0);
    assert_int_equal(tree_next_data(tree, 0, 1, &block, NULL), 0);
    assert_int_equal(block, 1);
    assert_int_equal(tree_lookup(tree, 1, 1, PRIORITY_READER, &(struct digest){0}, NULL), ERROR_INVALID);
    tree_close(tree);
    finish(&f);
}

static void data_is_found_as_the_blocks_say(void **state)
{
    struct fixture f;
    struct tree *tree;
    uint64_t block, expected = 0;

    (void)state;
    make_map(&f, 40 * GIB, 130, 4000);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    for (uint64_t at = 0; at < f.map.block_count; at = block + 1, expected += 130) {
        assert_int_equal(tree_next_data(tree, at, f.map.block_count, &block, NULL), 0);
        assert_int_equal(block, expected < 130 * 4000 ? expected : f.map.block_count);
    }
    assert_int_equal(tree_next_data(tree, 1, 100, &block, NULL), 0);
    assert_int_equal(block, 100);
    tree_close(tree);
    finish(&f);
}

static void what_was_fetched_is_read_from_the_cache_without_network(void **state)
{
    struct fixture f;
    struct tree *tree;
    struct error error = ERROR_INIT;
    struct digest digest;

    (void)state;
    make_map(&f, 3 * GIB, 1, 49152);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_block(tree, 48000, 1, 49152);
    tree_close(tree);

    f.store.mirrors = NULL;
    assert_int_equal(tree_open(&f.store, &f.id, &tree, &error), 0);
    assert_block(tree, 48000, 1, 49152);
    assert_block(tree, 1, 1, 49152);
    assert_int_equal(tree_lookup(tree, 30000, 1, PRIORITY_READER, &digest, &error), ERROR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "not in the cache"));
    tree_close(tree);
    finish(&f);
}

static void damage_in_the_cache_heals(void **state)
{
    struct fixture f;
    struct tree *tree;
    unsigned seed = random_seed();

    (void)state;
    srand(seed);
    make_map(&f, 3 * GIB, 1, 49152);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    for (int round = 0; round < 24; round++) {
        uint64_t offset = (uint64_t)rand() % f.file.size;
        uint8_t byte = (uint8_t)~f.file.bytes[offset];

        if (round % 2)
            offset %= map_pages_offset(&f.map); /* header and bits */
        byte = (uint8_t)~f.file.bytes[offset];
        cache_write_map(&f.cache, &f.id, offset, &byte, 1);
        assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
        for (uint64_t block = 0; block < 49152; block += 128)
            assert_block(tree, block, 1, 49152);
        tree_close(tree);
    }
    finish(&f);
}

static void bad_maps_are_refused(void **state)
{
    struct fixture f, other;
    struct tree *tree;
    struct error error = ERROR_INIT;
    uint8_t *bad;

    (void)state;
    make_map(&f, GIB, 2, 5000);
    make_map(&other, GIB, 3, 5000);
    fake_cache_finish(&f.cache);
    f.store.cache = NULL;
    fake_mirror_add(&f.store, &f.mirrors, NULL, 0);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, &error), ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "map is missing"));
    f.mirrors.list[0].bytes = other.file.bytes;
    f.mirrors.list[0].size = other.file.size;
    assert_int_equal(tree_open(&f.store, &f.id, &tree, &error), ERROR_CORRUPT);
    bad = copy_of(&f.file);
    f.mirrors.list[0].bytes = bad;
    bad[8] ^= 1; /* version */
    for (size_t size = 0; size < min_u64(f.file.size, 512 * KIB); size += size < 200 ? 1 : 4000) {
        f.mirrors.list[0].size = size;
        assert_int_equal(tree_open(&f.store, &f.id, &tree, &error), ERROR_CORRUPT);
        if (size == 0)
            bad[8] ^= 1; /* from here on only truncated */
    }
    f.mirrors.list[0].size = f.file.size;
    assert_int_equal(tree_open(&f.store, &f.id, &tree, &error), 0);
    tree_close(tree);
    bad[map_pages_offset(&f.map) + 5] ^= 4; /* the root page */
    assert_int_equal(tree_open(&f.store, &f.id, &tree, &error), ERROR_CORRUPT);
    free(bad);
    fake_cache_init(&f.cache);
    finish(&f);
    finish(&other);
}

static void a_lying_mirror_costs_time_only(void **state)
{
    struct fixture f;
    struct tree *tree;
    unsigned seed = random_seed();

    (void)state;
    srand(seed);
    /* 16 TiB: upper levels and most of the bits lie behind the head, and cannot be checked when opening. */
    make_map(&f, 16 * 1024 * GIB, 200000, 1300);
    for (int round = 0; round < 24; round++) {
        uint8_t *lie = copy_of(&f.file);
        struct mirrors mirrors = {0};
        bool in_bits = round % 2;

        fake_cache_finish(&f.cache);
        fake_cache_init(&f.cache);
        for (int i = 0; i < 1 + round / 2; i++)
            lie[in_bits ? MAP_HEADER_SIZE + (uint64_t)rand() % map_presence_size(&f.map)
                        : (uint64_t)rand() % f.file.size] ^= (uint8_t)(1 << rand() % 8);
        fake_mirror_add(&f.store, &mirrors, lie, f.file.size);
        fake_mirror_add(&f.store, &mirrors, f.file.bytes, f.file.size);
        assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
        for (uint64_t block = 0; block < f.map.block_count; block += 100000)
            assert_block(tree, block, 200000, 1300);
        tree_close(tree);
        free(lie);
    }
    finish(&f);
}

static void a_page_that_no_mirror_has_right_is_an_error_for_its_blocks_only(void **state)
{
    struct fixture f;
    struct tree *tree;
    struct error error = ERROR_INIT;
    struct digest digest;
    uint8_t *bad;

    (void)state;
    make_map(&f, 3 * GIB, 1, 49152);
    bad = copy_of(&f.file);
    bad[f.file.size - 1] ^= 1;
    fake_mirror_add(&f.store, &f.mirrors, bad, f.file.size);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_int_equal(tree_lookup(tree, 49151, 1, PRIORITY_READER, &digest, &error), ERROR_CORRUPT);
    assert_block(tree, 40000, 1, 49152);
    /* Repaired on the server: the tree is not stuck with the error. */
    bad[f.file.size - 1] ^= 1;
    assert_block(tree, 49151, 1, 49152);
    tree_close(tree);
    free(bad);
    finish(&f);
}

struct many {
    struct latch latch;
    struct digest digests[300];
};

static void many_lookups_share_one_fetch(void **state)
{
    enum { COUNT = 2000 };
    struct fixture f;
    struct tree *tree;
    struct many *many = calloc(COUNT, sizeof(*many));
    unsigned requests;

    (void)state;
    make_map(&f, 40 * GIB, 1, 655360);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    assert_int_equal(workers_create(4, &f.mirrors.workers, NULL), 0);
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    requests = f.mirrors.request_count;
    for (int i = 0; i < COUNT; i++) {
        latch_init(&many[i].latch);
        tree_lookup_async(tree, 300000 + (uint64_t)i * 10, 300, PRIORITY_READER, many[i].digests, latch_set,
                          &many[i].latch);
    }
    for (int i = 0; i < COUNT; i++) {
        struct digest expected;

        assert_int_equal(latch_wait(&many[i].latch, NULL), 0);
        latch_finish(&many[i].latch);
        for (uint64_t j = 0; j < 300; j++) {
            digest_number(300000 + (uint64_t)i * 10 + j, &expected);
            assert_true(digest_equal(&many[i].digests[j], &expected));
        }
    }
    /* 20300 blocks are 159 leaf pages, 5 to 6 groups, and one group above them. */
    assert_in_range(f.mirrors.request_count - requests, 6, 8);
    workers_destroy(f.mirrors.workers);
    tree_close(tree);
    free(many);
    finish(&f);
}

static void a_long_lookup_does_not_exhaust_stack_or_memory(void **state)
{
    struct fixture f;
    struct tree *tree;
    struct digest *digests = malloc(655360 * sizeof(*digests)), expected;

    (void)state;
    make_map(&f, 40 * GIB, 1, 655360);
    fake_mirror_add(&f.store, &f.mirrors, f.file.bytes, f.file.size);
    f.store.cache = NULL;
    assert_int_equal(tree_open(&f.store, &f.id, &tree, NULL), 0);
    assert_int_equal(tree_lookup(tree, 0, 655360, PRIORITY_READER, digests, NULL), 0);
    digest_number(655359, &expected);
    assert_true(digest_equal(&digests[655359], &expected));
    tree_close(tree);
    free(digests);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_usual_disk_is_opened_with_one_request),
        cmocka_unit_test(a_tebibyte_of_holes_costs_one_request_and_little_memory),
        cmocka_unit_test(bits_longer_than_the_head_cost_a_second_request),
        cmocka_unit_test(an_empty_disk_has_no_pages),
        cmocka_unit_test(data_is_found_as_the_blocks_say),
        cmocka_unit_test(what_was_fetched_is_read_from_the_cache_without_network),
        cmocka_unit_test(damage_in_the_cache_heals),
        cmocka_unit_test(bad_maps_are_refused),
        cmocka_unit_test(a_lying_mirror_costs_time_only),
        cmocka_unit_test(a_page_that_no_mirror_has_right_is_an_error_for_its_blocks_only),
        cmocka_unit_test(many_lookups_share_one_fetch),
        cmocka_unit_test(a_long_lookup_does_not_exhaust_stack_or_memory),
    };

    return cmocka_run_group_tests_name("image tree", tests, NULL, NULL);
}
