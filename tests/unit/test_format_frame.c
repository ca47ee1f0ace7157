/* Frames: round trips, what may not be taken for a block, and contexts of many threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "format/frame.h"

#include "seed.h"

#define BLOCK 65536
#define MAGIC 0xFD2FB528

static void fill(uint8_t *bytes, size_t size, unsigned compressible)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = compressible ? (uint8_t)(i / 7 % 251) : (uint8_t)random();
}

static void what_is_compressed_is_read_back(void **state)
{
    static const size_t sizes[] = {1, 511, 4096, BLOCK, 1048575, 1048576};
    static const int levels[] = {1, 3, 19};
    unsigned seed = random_seed();
    uint8_t *bytes = malloc(1048576), *again = malloc(1048576);
    size_t capacity = frame_bound(1048576);
    uint8_t *frame = malloc(capacity);

    (void)state;
    srandom(seed);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t j = 0; j < sizeof(levels) / sizeof(levels[0]); j++) {
            struct error error = ERROR_INIT;
            size_t size;

            fill(bytes, sizes[i], (unsigned)j % 2);
            size = frame_compress(bytes, sizes[i], levels[j], frame, frame_bound(sizes[i]));
            assert_true(size > 0 && size <= frame_bound(sizes[i]));
            assert_int_equal(frame_decompress(frame, size, again, sizes[i], &error), 0);
            assert_memory_equal(bytes, again, sizes[i]);
        }
    free(bytes);
    free(again);
    free(frame);
}

static void a_frame_does_not_fit_into_less(void **state)
{
    static uint8_t bytes[BLOCK];
    uint8_t frame[100];

    (void)state;
    srandom(1);
    fill(bytes, sizeof(bytes), 0);
    assert_int_equal(frame_compress(bytes, sizeof(bytes), 3, frame, sizeof(frame)), 0);
}

static void refuse(const uint8_t *frame, size_t size, const char *refusal)
{
    static uint8_t out[BLOCK + 64], guard[64];
    uint8_t *copy = malloc(size ? size : 1); /* so that a read past its end is seen */
    struct error error = ERROR_INIT;

    if (size)
        memcpy(copy, frame, size);
    memset(guard, 0xa5, sizeof(guard));
    memcpy(out + BLOCK, guard, sizeof(guard));
    assert_int_equal(frame_decompress(copy, size, out, BLOCK, &error), ERROR_CORRUPT);
    if (!strstr(error.message, refusal))
        fail_msg("'%s' does not say '%s'", error.message, refusal);
    assert_memory_equal(out + BLOCK, guard, sizeof(guard));
    free(copy);
}

static void other_sizes_are_refused_undecompressed(void **state)
{
    static uint8_t bytes[2 * BLOCK], frame[3 * BLOCK];
    size_t size;

    (void)state;
    size = frame_compress(bytes, 2 * BLOCK, 3, frame, sizeof(frame));
    refuse(frame, size, "declares 131072 bytes where 65536 belong");
    size = frame_compress(bytes, 1, 3, frame, sizeof(frame));
    refuse(frame, size, "declares 1 bytes");
    size = frame_compress(bytes, 0, 3, frame, sizeof(frame));
    refuse(frame, size, "declares 0 bytes");
}

static void bad_frames_are_refused(void **state)
{
    static uint8_t bytes[BLOCK], frame[3 * BLOCK], two[4 * BLOCK];
    /* An RLE block of 65536 bytes in frames whose headers differ. Window descriptor 0x30: 64 KiB. */
    static const uint8_t no_size[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x30, 0x03, 0x00, 0x08, 0x41};
    static const uint8_t dictionary[] = {0x28, 0xb5, 0x2f, 0xfd, 0xa1, 0x07, 0x00, 0x00, 0x01, 0x00, 0x03, 0x00,
                                         0x08, 0x41};
    static const uint8_t reserved[] = {0x28, 0xb5, 0x2f, 0xfd, 0xa8, 0x00, 0x00, 0x01, 0x00, 0x03, 0x00, 0x08,
                                       0x41};
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4};
    static const uint8_t old[] = {0x27, 0xb5, 0x2f, 0xfd, 0xa0, 0x00, 0x00, 0x01, 0x00, 0x03, 0x00, 0x08, 0x41};
    size_t size;

    (void)state;
    fill(bytes, sizeof(bytes), 1);
    size = frame_compress(bytes, sizeof(bytes), 3, frame, sizeof(frame));
    assert_int_equal(load_le32(frame), MAGIC);
    refuse(frame, 0, "not a zstd frame");
    for (size_t cut = 1; cut < size; cut++)
        refuse(frame, cut, "");
    frame[size] = 0;
    refuse(frame, size + 1, "1 bytes follow");
    memcpy(two, frame, size);
    memcpy(two + size, frame, size);
    refuse(two, 2 * size, "bytes follow");
    memcpy(two + size, skippable, sizeof(skippable));
    refuse(two, size + sizeof(skippable), "12 bytes follow");
    memcpy(two, skippable, sizeof(skippable));
    memcpy(two + sizeof(skippable), frame, size);
    refuse(two, size + sizeof(skippable), "not a zstd frame");
    refuse(skippable, sizeof(skippable), "not a zstd frame");
    refuse(old, sizeof(old), "not a zstd frame");
    refuse(no_size, sizeof(no_size), "does not declare");
    refuse(dictionary, sizeof(dictionary), "dictionary");
    refuse(reserved, sizeof(reserved), "header is damaged");
    refuse(bytes, sizeof(bytes), "not a zstd frame");
}

static void flipped_bits_never_write_outside(void **state)
{
    static uint8_t bytes[BLOCK], frame[2 * BLOCK], out[BLOCK];
    unsigned seed = random_seed();
    size_t size;

    (void)state;
    srandom(seed);
    fill(bytes, sizeof(bytes), 1);
    fill(bytes, 300, 0);
    size = frame_compress(bytes, sizeof(bytes), 3, frame, sizeof(frame));
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t *copy = malloc(size);
        int result;

        memcpy(copy, frame, size);
        copy[(size_t)random() % size] ^= (uint8_t)(1U << random() % 8);
        result = frame_decompress(copy, size, out, sizeof(out), NULL);
        assert_true(result == 0 || result == ERROR_CORRUPT);
        free(copy);
    }
}

static void *compress_much(void *argument)
{
    static const uint8_t bytes[BLOCK];
    uint8_t *frame = malloc(frame_bound(BLOCK)), *out = malloc(BLOCK);
    bool *good = argument;

    for (unsigned i = 0; i < 50; i++) {
        size_t size = frame_compress(bytes, BLOCK, i % 2 ? 3 : 5, frame, frame_bound(BLOCK));

        *good = size && !frame_decompress(frame, size, out, BLOCK, NULL);
    }
    free(frame);
    free(out);
    return NULL;
}

static void threads_have_their_own_contexts(void **state)
{
    pthread_t threads[8];
    bool good[8] = {false};

    (void)state;
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, compress_much, &good[i]), 0);
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_true(good[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_compressed_is_read_back),
        cmocka_unit_test(a_frame_does_not_fit_into_less),
        cmocka_unit_test(other_sizes_are_refused_undecompressed),
        cmocka_unit_test(bad_frames_are_refused),
        cmocka_unit_test(flipped_bits_never_write_outside),
        cmocka_unit_test(threads_have_their_own_contexts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
