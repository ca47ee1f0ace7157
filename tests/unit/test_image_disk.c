/* The disk against the bytes it was made from: odd sizes, odd ends, failures, readahead, many readers at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/latch.h"
#include "fake_store.h"
#include "seed.h"
#include "image/disk.h"

struct fixture {
    uint8_t *image;
    uint64_t size;
    struct map map;
    struct digest id;
    struct buffer file;
    struct store store;
    struct mirrors mirrors;
    struct disk *disk;
};

/* Bytes that differ from block to block, and some blocks of zeros. */
static uint8_t *make_image(uint64_t size, uint32_t block_size)
{
    uint8_t *image = calloc(1, size);

    for (uint64_t i = 0; i + 8 <= size; i += 8)
        if (i / block_size % 5 != 3)
            store_le64(image + i, i * UINT64_C(0x9e3779b97f4a7c15));
    image[size - 1] = 0xee;
    return image;
}

static void fixture_open(struct fixture *f, uint64_t size, uint32_t block_size, unsigned worker_count)
{
    struct map_builder *builder;

    memset(f, 0, sizeof(*f));
    f->size = size;
    f->image = make_image(size, block_size);
    fake_store_init(&f->store);
    assert_int_equal(map_builder_create(block_size, size, &builder, NULL), 0);
    for (uint64_t block = 0; block * block_size < size; block++) {
        uint32_t length = (uint32_t)min_u64(block_size, size - block * block_size);
        struct digest digest = fake_store_add(&f->store, f->image + block * block_size, length, block);

        assert_int_equal(map_builder_set(builder, block, &digest, NULL), 0);
    }
    assert_int_equal(map_builder_finish(builder, &f->file, &f->map, NULL), 0);
    map_builder_destroy(builder);
    map_image_id(&f->map, &f->id);
    fake_mirror_add(&f->store, &f->mirrors, f->file.bytes, f->file.size);
    if (worker_count) {
        assert_int_equal(workers_create(worker_count, &f->store.workers, NULL), 0);
        f->mirrors.workers = f->store.workers;
    }
    assert_int_equal(disk_open(&f->store, &f->id, &f->disk, NULL), 0);
}

static void fixture_close(struct fixture *f)
{
    disk_close(f->disk);
    workers_destroy(f->store.workers);
    fake_store_finish(&f->store);
    buffer_finish(&f->file);
    free(f->image);
}

static void assert_read(struct fixture *f, uint64_t offset, size_t size, uint8_t *bytes)
{
    size_t expected = offset < f->size ? min_u64(size, f->size - offset) : 0;

    memset(bytes, 0x55, size);
    assert_int_equal(disk_read(f->disk, bytes, size, offset, NULL), expected);
    assert_true(expected == 0 || !memcmp(bytes, f->image + offset, expected));
    for (size_t i = expected; i < size; i++)
        assert_int_equal(bytes[i], 0x55);
}

static void disks_of_odd_sizes_are_read_whole(void **state)
{
    static const uint64_t sizes[] = {1,       511,     4095,        4096,         4097,      65535, 65536, 65537,
                                     3 * 65536 + 1, 1048575, 5 * 1048576 + 77, 128 * 4096 + 1};
    static const uint32_t block_sizes[] = {4096, 65536, 1048576};
    uint8_t *bytes = malloc(6 * 1048576);

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t j = 0; j < sizeof(block_sizes) / sizeof(block_sizes[0]); j++) {
            struct fixture f;

            fixture_open(&f, sizes[i], block_sizes[j], 0);
            assert_int_equal(disk_size(f.disk), sizes[i]);
            assert_int_equal(disk_block_size(f.disk), block_sizes[j]);
            assert_read(&f, 0, sizes[i] + 5, bytes);
            assert_read(&f, sizes[i] - 1, 1, bytes);
            assert_read(&f, sizes[i] / 2, sizes[i], bytes);
            assert_read(&f, sizes[i], 10, bytes);
            assert_read(&f, sizes[i] + 1, 10, bytes);
            assert_read(&f, UINT64_MAX, 10, bytes);
            assert_read(&f, 0, 0, bytes);
            fixture_close(&f);
        }
    free(bytes);
}

static void random_reads_give_the_source_bytes(void **state)
{
    unsigned seed = random_seed();
    uint8_t *bytes = malloc(4 * MIB);
    struct fixture f;

    (void)state;
    srand(seed);
    fixture_open(&f, 8 * MIB + 12345, 4096, 3);
    for (int i = 0; i < 500; i++)
        assert_read(&f, (uint64_t)rand() % (f.size + 100), (size_t)rand() % (i % 20 ? 20000 : 4 * MIB), bytes);
    fixture_close(&f);
    free(bytes);
}

static void a_failed_block_fails_its_reads_only(void **state)
{
    struct fixture f;
    struct error error = ERROR_INIT;
    uint8_t *bytes = malloc(4 * MIB);

    (void)state;
    fixture_open(&f, 4 * MIB, 65536, 2);
    assert_int_equal(tree_lookup(disk_tree(f.disk), 41, 1, PRIORITY_READER, &f.store.failing, NULL), 0);
    assert_int_equal(disk_read(f.disk, bytes, 4 * MIB, 0, &error), ERROR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "block 41 at offset 2686976: "));
    assert_int_equal(disk_read(f.disk, bytes, 1, 41 * 65536, &error), ERROR_UNAVAILABLE);
    assert_read(&f, 40 * 65536, 65536, bytes);
    assert_read(&f, 42 * 65536, 2 * 65536, bytes);
    f.store.failing = (struct digest){0};
    assert_read(&f, 0, 4 * MIB, bytes);
    fixture_close(&f);
    free(bytes);
}

static void holes_are_not_asked_for(void **state)
{
    struct fixture f;
    uint8_t bytes[65536];

    (void)state;
    fixture_open(&f, 10 * 65536, 65536, 0);
    assert_read(&f, 3 * 65536, 65536, bytes);
    assert_int_equal(f.store.get_count, 0);
    fixture_close(&f);
}

static void a_sequential_reader_is_read_ahead_of(void **state)
{
    struct fixture f;
    uint8_t bytes[32768];

    (void)state;
    fixture_open(&f, 24 * MIB, 65536, 0);
    for (uint64_t offset = 0; offset < 4 * MIB; offset += sizeof(bytes))
        assert_read(&f, offset, sizeof(bytes), bytes);
    /* 64 blocks were read; the window is 32, and was filled up when an eighth of it was used. */
    assert_in_range(f.store.prefetched_end, 64 + 27, 64 + 32);
    /* Each block is asked for ahead only once; one in five is a hole. */
    assert_in_range(f.store.prefetch_count, 50, f.store.prefetched_end);
    /* Two more streams, mixed, and one of them with its reads out of order. */
    for (uint64_t offset = 0; offset < 2 * MIB; offset += 2 * sizeof(bytes)) {
        assert_read(&f, 8 * MIB + offset, sizeof(bytes), bytes);
        assert_read(&f, 16 * MIB + offset + sizeof(bytes), sizeof(bytes), bytes);
        assert_read(&f, 16 * MIB + offset, sizeof(bytes), bytes);
        assert_read(&f, 8 * MIB + offset + sizeof(bytes), sizeof(bytes), bytes);
    }
    assert_in_range(f.store.prefetched_end, 256 + 32 + 27, 256 + 32 + 33);
    /* It ends where the disk does. */
    for (uint64_t offset = 22 * MIB; offset < 24 * MIB; offset += sizeof(bytes))
        assert_read(&f, offset, sizeof(bytes), bytes);
    assert_in_range(f.store.prefetched_end, 383, 384);
    fixture_close(&f);
}

static void a_short_stream_costs_little(void **state)
{
    struct fixture f;
    uint8_t bytes[32768];

    (void)state;
    fixture_open(&f, 24 * MIB, 65536, 0);
    for (uint64_t offset = 0; offset < 4 * 65536; offset += sizeof(bytes))
        assert_read(&f, offset, sizeof(bytes), bytes);
    assert_in_range(f.store.prefetched_end, 4, 4 + 8);
    fixture_close(&f);
}

static void random_reads_start_no_readahead(void **state)
{
    unsigned seed = random_seed();
    struct fixture f;
    uint8_t bytes[4096];

    (void)state;
    srand(seed);
    fixture_open(&f, 256 * MIB, 65536, 0);
    for (int i = 0; i < 2000; i++)
        assert_read(&f, (uint64_t)rand() % (f.size / 4096) * 4096, 4096, bytes);
    /* Two chance neighbours in a row happen, but seldom. */
    assert_in_range(f.store.prefetch_count, 0, 40);
    fixture_close(&f);
}

/* Fetched ahead, of what READS of SIZE bytes every STEP bytes let expect, and not much that is not read. */
static void assert_stride(unsigned reads, int64_t step, size_t size, uint64_t from, unsigned at_least,
                          unsigned at_most)
{
    struct fixture f;
    uint8_t *bytes = malloc(size);

    fixture_open(&f, 256 * MIB, 65536, 0);
    for (unsigned i = 0; i < reads; i++)
        assert_read(&f, from + (uint64_t)(step * i), size, bytes);
    assert_in_range(f.store.prefetch_count, at_least, at_most);
    fixture_close(&f);
    free(bytes);
}

static void a_constant_stride_is_read_ahead_of(void **state)
{
    (void)state;
    assert_stride(24, 4 * MIB, 4096, 5 * 4096, 15, 40);           /* 3 to learn it, 24 reads */
    assert_stride(24, -(int64_t)(5 * MIB) - 4096, 4096, 200 * MIB, 15, 40); /* downwards, not in whole blocks */
    assert_stride(24, 6 * MIB, 3 * 65536, 4096, 50, 160);         /* 4 blocks each */
}

static void a_short_stride_costs_little(void **state)
{
    (void)state;
    assert_stride(3, 4 * MIB, 4096, 0, 0, 0);
    assert_stride(5, 4 * MIB, 4096, 0, 1, 5);
}

static void strides_fit_in_memory(void **state)
{
    struct fixture f;
    uint8_t *bytes = malloc(MIB);

    (void)state;
    fixture_open(&f, 64 * MIB, 1048576, 0);
    for (uint64_t offset = 0; offset < 40 * MIB; offset += 4 * MIB)
        assert_read(&f, offset, MIB, bytes);
    assert_in_range(f.store.prefetched_end, 41, 45); /* 2 blocks, as of a stream */
    fixture_close(&f);
    free(bytes);
}

static void two_strides_at_once(void **state)
{
    struct fixture f;
    uint8_t bytes[4096];

    (void)state;
    fixture_open(&f, 256 * MIB, 65536, 0);
    for (uint64_t i = 0; i < 24; i++) {
        assert_read(&f, i * 3 * MIB, sizeof(bytes), bytes);
        assert_read(&f, 250 * MIB - i * 7 * MIB, sizeof(bytes), bytes);
    }
    assert_in_range(f.store.prefetch_count, 30, 80);
    fixture_close(&f);
}

static void readahead_fits_in_memory(void **state)
{
    struct fixture f;
    uint8_t *bytes = malloc(MIB);

    (void)state;
    fixture_open(&f, 32 * MIB, 1048576, 0);
    for (uint64_t offset = 0; offset < 8 * MIB; offset += MIB)
        assert_read(&f, offset, MIB, bytes);
    assert_in_range(f.store.prefetched_end, 9, 10); /* 16 MiB for 8 streams: 2 blocks each */
    fixture_close(&f);
    free(bytes);
}

enum { READS = 4000 };

struct one_read {
    struct fixture *f;
    uint64_t offset;
    size_t size;
    atomic_uint *left;
    struct latch *latch;
    uint8_t bytes[12000];
};

static void one_done(void *user, ssize_t result, const struct error *error)
{
    struct one_read *one = user;

    assert_null(error);
    assert_int_equal(result, one->size);
    assert_memory_equal(one->bytes, one->f->image + one->offset, one->size);
    if (atomic_fetch_sub(one->left, 1) == 1)
        latch_set(one->latch, 0, NULL);
}

static void thousands_of_reads_are_under_way_at_once(void **state)
{
    unsigned seed = random_seed();
    struct one_read *reads = calloc(READS, sizeof(*reads));
    atomic_uint left = READS;
    struct latch latch;
    struct fixture f;

    (void)state;
    srand(seed);
    fixture_open(&f, 32 * MIB, 4096, 4);
    latch_init(&latch);
    for (int i = 0; i < READS; i++) {
        struct one_read *one = &reads[i];

        one->f = &f;
        one->size = 1 + (size_t)rand() % sizeof(one->bytes);
        one->offset = (uint64_t)rand() % (f.size - one->size);
        one->left = &left;
        one->latch = &latch;
        disk_read_async(f.disk, one->bytes, one->size, one->offset, one_done, one);
    }
    assert_int_equal(latch_wait(&latch, NULL), 0);
    latch_finish(&latch);
    fixture_close(&f);
    free(reads);
}

static void count_done(void *user, ssize_t result, const struct error *error)
{
    (void)error;
    assert_true(result > 0);
    atomic_fetch_add((atomic_uint *)user, 1);
}

static void closing_waits_for_reads_under_way(void **state)
{
    uint8_t *bytes = malloc(16 * MIB);
    atomic_uint count = 0;
    struct fixture f;

    (void)state;
    fixture_open(&f, 16 * MIB, 65536, 2);
    for (uint64_t offset = 0; offset < f.size; offset += MIB)
        disk_read_async(f.disk, bytes + offset, MIB, offset, count_done, &count);
    fixture_close(&f);
    assert_int_equal(count, 16);
    free(bytes);
}

static void first_touches_are_recorded_in_order(void **state)
{
    static const struct profile_run expected[] = {{9, 0, 2}, {0, 0, 1}, {11, 0, 1}};
    struct profile profile;
    struct fixture f;
    uint8_t bytes[3 * 4096];

    (void)state;
    fixture_open(&f, 16 * 4096 - 5, 4096, 0);
    assert_int_equal(disk_profile(f.disk, &profile, NULL), ERROR_NOT_FOUND);
    assert_read(&f, 9 * 4096 + 4095, 2, bytes);
    assert_read(&f, 9 * 4096, 4096, bytes);
    assert_read(&f, 17, 1, bytes);
    assert_read(&f, 10 * 4096, 8192, bytes);
    assert_read(&f, 16 * 4096, 1, bytes); /* behind the end */
    assert_int_equal(disk_profile(f.disk, &profile, NULL), 0);
    assert_true(digest_equal(&profile.image, &f.id));
    assert_int_equal(profile.block_size, 4096);
    assert_int_equal(profile.boot_count, 1);
    assert_int_equal(profile.run_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(profile.runs[i].block, expected[i].block);
        assert_int_equal(profile.runs[i].count, expected[i].count);
    }
    profile_finish(&profile);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_of_odd_sizes_are_read_whole),
        cmocka_unit_test(random_reads_give_the_source_bytes),
        cmocka_unit_test(a_failed_block_fails_its_reads_only),
        cmocka_unit_test(holes_are_not_asked_for),
        cmocka_unit_test(a_sequential_reader_is_read_ahead_of),
        cmocka_unit_test(a_short_stream_costs_little),
        cmocka_unit_test(random_reads_start_no_readahead),
        cmocka_unit_test(a_constant_stride_is_read_ahead_of),
        cmocka_unit_test(a_short_stride_costs_little),
        cmocka_unit_test(strides_fit_in_memory),
        cmocka_unit_test(two_strides_at_once),
        cmocka_unit_test(readahead_fits_in_memory),
        cmocka_unit_test(thousands_of_reads_are_under_way_at_once),
        cmocka_unit_test(closing_waits_for_reads_under_way),
        cmocka_unit_test(first_touches_are_recorded_in_order),
    };

    return cmocka_run_group_tests_name("image disk", tests, NULL, NULL);
}
