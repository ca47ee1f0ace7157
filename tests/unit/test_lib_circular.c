/* The public library: a published image read by URL, all of it and any part of it, and what a caller gets wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "archive_maker.h"
#include "base/file.h"
#include "base/latch.h"
#include "circular.h"
#include "seed.h"
#include "format/profile.h"

#define SIZE_LARGE (6 * 1048576 + 4321)

struct fixture {
    struct archive_maker maker;
    uint8_t *image;
    char key[PUBLIC_KEY_TEXT];
    const char *keys[2];
    char client[128], cache[160], url[200];
    struct circular_options options;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    archive_maker_init(&f->maker);
    f->image = make_image(SIZE_LARGE, 65536, 7);
    archive_maker_add(&f->maker, "os", "1", f->image, SIZE_LARGE, 65536);
    archive_maker_add(&f->maker, "os", "2", f->image, 65537, 65536);
    archive_maker_add(&f->maker, "tiny", "1", f->image, 1, 4096);
    archive_maker_publish(&f->maker);
    make_folder(f->client);
    snprintf(f->cache, sizeof(f->cache), "%s/cache", f->client);
    snprintf(f->url, sizeof(f->url), "file://%s/os@1", f->maker.folder);
    f->keys[0] = public_key_base64(&f->maker.public_key, f->key);
    f->options = (struct circular_options)CIRCULAR_OPTIONS_INIT;
    f->options.keys = f->keys;
    f->options.cache_path = f->cache;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    archive_maker_finish(&f->maker);
    remove_folder(f->client);
    free(f->image);
    free(f);
    return 0;
}

static void a_disk_is_read_by_url(void **state)
{
    struct fixture *f = *state;
    struct circular_error error;
    struct circular_disk *disk;
    struct circular_version version;
    struct circular_statistics statistics = {.size = sizeof(statistics)};
    uint8_t *bytes = malloc(SIZE_LARGE + 10);
    unsigned seed = random_seed();

    srand(seed);
    for (int round = 0; round < 2; round++) { /* cold, then from the cache */
        assert_int_equal(circular_open(f->url, &f->options, &disk, &error), 0);
        assert_int_equal(circular_size(disk), SIZE_LARGE);
        circular_describe(disk, &version);
        assert_string_equal(version.name, "os");
        assert_string_equal(version.version, "1");
        assert_false(version.newest);
        assert_int_equal(strlen(version.image_id), 64);
        assert_int_equal(circular_pread(disk, bytes, SIZE_LARGE + 10, 0, &error), SIZE_LARGE);
        assert_memory_equal(bytes, f->image, SIZE_LARGE);
        for (int i = 0; i < 300; i++) {
            size_t size = (size_t)rand() % 200000;
            uint64_t offset = (uint64_t)rand() % SIZE_LARGE;
            size_t expected = min_u64(size, SIZE_LARGE - offset);

            assert_int_equal(circular_pread(disk, bytes, size, offset, &error), expected);
            assert_memory_equal(bytes, f->image + offset, expected);
        }
        assert_int_equal(circular_pread(disk, bytes, 1, SIZE_LARGE, &error), 0);
        circular_disk_statistics(disk, &statistics);
        assert_true(round ? statistics.fetched_blocks == 0 && statistics.cache_hits > 0
                          : statistics.fetched_blocks > 0);
        assert_int_equal(statistics.failed, 0);
        circular_close(disk);
        f->options.offline = true;
    }
    free(bytes);
}

static void an_archive_lists_its_versions(void **state)
{
    struct fixture *f = *state;
    struct circular_archive *archive;
    struct circular_version version;
    struct circular_disk *disk, *tiny;
    struct circular_error error;
    uint8_t byte;

    assert_int_equal(circular_archive_open(f->maker.folder, &f->options, &archive, &error), 0);
    assert_int_equal(circular_archive_count(archive), 3);
    assert_true(circular_archive_version(archive, 1, &version));
    assert_string_equal(version.name, "os");
    assert_string_equal(version.version, "2");
    assert_true(version.newest);
    assert_int_equal(version.disk_size, 65537);
    assert_false(circular_archive_version(archive, 3, &version));
    assert_int_equal(circular_archive_disk(archive, "os", NULL, &disk, &error), 0);
    assert_int_equal(circular_archive_disk(archive, "tiny", "1", &tiny, &error), 0);
    assert_int_equal(circular_size(disk), 65537);
    assert_int_equal(circular_pread(tiny, &byte, 1, 0, &error), 1);
    assert_int_equal(byte, f->image[0]);
    circular_close(disk);
    circular_close(tiny);
    assert_int_equal(circular_archive_disk(archive, "os", "3", &disk, &error), CIRCULAR_NOT_FOUND);
    assert_int_equal(error.code, CIRCULAR_NOT_FOUND);
    assert_non_null(strstr(error.message, "it has: 2, 1"));
    assert_null(disk);
    circular_archive_close(archive);
}

static void errors_say_what_and_where(void **state)
{
    struct fixture *f = *state;
    struct circular_error error;
    struct circular_disk *disk;
    struct circular_options options = CIRCULAR_OPTIONS_INIT;
    char url[400];

    assert_int_equal(circular_open(f->url, &options, &disk, &error), CIRCULAR_UNTRUSTED);
    assert_null(disk);
    assert_int_equal(circular_open(f->url, NULL, &disk, NULL), CIRCULAR_UNTRUSTED);
    options = f->options;
    options.size = 0;
    assert_int_equal(circular_open(f->url, &options, &disk, &error), CIRCULAR_INVALID);
    assert_int_equal(circular_open("", &f->options, &disk, &error), CIRCULAR_INVALID);
    assert_int_equal(circular_open("gopher://host/os", &f->options, &disk, &error), CIRCULAR_INVALID);
    snprintf(url, sizeof(url), "%s/nothing/os", f->client);
    assert_int_equal(circular_open(url, &f->options, &disk, &error), CIRCULAR_NOT_FOUND);
    options = f->options;
    options.patience_ms = 100;
    assert_int_equal(circular_open("http://127.0.0.1:1/os", &options, &disk, &error), CIRCULAR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "http://127.0.0.1:1"));
    circular_close(NULL);
    circular_archive_close(NULL);
}

static void an_insecure_caller_needs_no_key(void **state)
{
    struct fixture *f = *state;
    struct circular_disk *disk;
    struct circular_options options = CIRCULAR_OPTIONS_INIT;

    options.insecure = true;
    assert_int_equal(circular_open(f->url, &options, &disk, NULL), 0);
    circular_close(disk);
}

static void a_bad_block_is_an_error_and_never_wrong_bytes(void **state)
{
    struct fixture *f = *state;
    struct circular_error error;
    struct circular_disk *disk;
    struct digest digest;
    char path[ARCHIVE_PATH_MAX], *frame;
    uint8_t *bytes = malloc(65536);
    size_t size;

    digest_of(f->image + 2 * 65536, 65536, &digest);
    archive_path_block(&digest, path);
    frame = archive_maker_read(&f->maker, path, &size);
    frame[size / 2] ^= 1;
    archive_maker_write(&f->maker, path, frame, size);
    f->options.patience_ms = 500;
    assert_int_equal(circular_open(f->url, &f->options, &disk, &error), 0);
    assert_int_equal(circular_pread(disk, bytes, 100, 2 * 65536 + 5, &error), CIRCULAR_CORRUPT);
    assert_non_null(strstr(error.message, "block 2 at offset 131072"));
    assert_non_null(strstr(error.message, path));
    assert_int_equal(circular_pread(disk, bytes, 65536, 0, &error), 65536);
    assert_memory_equal(bytes, f->image, 65536);
    /* Mended on the server: reads go on without a new mount. */
    frame[size / 2] ^= 1;
    archive_maker_write(&f->maker, path, frame, size);
    assert_int_equal(circular_pread(disk, bytes, 65536, 2 * 65536, &error), 65536);
    assert_memory_equal(bytes, f->image + 2 * 65536, 65536);
    circular_close(disk);
    free(frame);
    free(bytes);
}

static void holes_are_found(void **state)
{
    struct fixture *f = *state;
    struct circular_disk *disk;

    /* Of five blocks, number 3 is zeros; 96 whole blocks and a tail. */
    assert_int_equal(circular_open(f->url, &f->options, &disk, NULL), 0);
    assert_int_equal(circular_seek(disk, 0, true, NULL), 0);
    assert_int_equal(circular_seek(disk, 5, true, NULL), 5);
    assert_int_equal(circular_seek(disk, 5, false, NULL), 3 * 65536);
    assert_int_equal(circular_seek(disk, 3 * 65536 + 9, false, NULL), 3 * 65536 + 9);
    assert_int_equal(circular_seek(disk, 3 * 65536 + 9, true, NULL), 4 * 65536);
    assert_int_equal(circular_seek(disk, 94 * 65536, false, NULL), SIZE_LARGE);
    assert_int_equal(circular_seek(disk, SIZE_LARGE - 1, true, NULL), SIZE_LARGE - 1);
    assert_int_equal(circular_seek(disk, SIZE_LARGE, true, NULL), SIZE_LARGE);
    assert_int_equal(circular_seek(disk, UINT64_MAX, false, NULL), SIZE_LARGE);
    circular_close(disk);
}

enum { THREADS = 4, READS = 150 };

struct reader {
    struct fixture *f;
    struct circular_disk *disk;
    unsigned seed;
    atomic_uint left;
    struct latch latch;
};

struct one_read {
    struct reader *reader;
    uint64_t offset;
    size_t size;
    uint8_t bytes[50000];
};

static void one_done(void *user, ssize_t result, const struct circular_error *error)
{
    struct one_read *one = user;
    struct reader *reader = one->reader;

    assert_null(error);
    assert_int_equal(result, one->size);
    assert_memory_equal(one->bytes, reader->f->image + one->offset, one->size);
    free(one);
    if (atomic_fetch_sub(&reader->left, 1) == 1)
        latch_set(&reader->latch, 0, NULL);
}

static void *read_many(void *user)
{
    struct reader *reader = user;

    atomic_store(&reader->left, READS);
    latch_init(&reader->latch);
    for (int i = 0; i < READS; i++) {
        struct one_read *one = malloc(sizeof(*one));

        one->reader = reader;
        one->size = 1 + (size_t)rand_r(&reader->seed) % sizeof(one->bytes);
        one->offset = (uint64_t)rand_r(&reader->seed) % (SIZE_LARGE - one->size);
        circular_pread_async(reader->disk, one->bytes, one->size, one->offset, one_done, one);
    }
    latch_wait(&reader->latch, NULL);
    latch_finish(&reader->latch);
    return NULL;
}

static void many_threads_read_at_once(void **state)
{
    struct fixture *f = *state;
    struct circular_disk *disk;
    struct reader readers[THREADS];
    pthread_t threads[THREADS];
    unsigned seed = random_seed();

    f->options.memory_bytes = 2 * MIB; /* so that blocks come and go */
    assert_int_equal(circular_open(f->url, &f->options, &disk, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.f = f, .disk = disk, .seed = seed + i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_many, &readers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    circular_close(disk);
}

/* ---- What is remembered ---- */

#define RUNS 8

struct run {
    struct circular_disk *disk;
    pthread_barrier_t *together;
};

static void *end_run(void *user)
{
    struct run *run = user;

    pthread_barrier_wait(run->together);
    circular_close(run->disk);
    return NULL;
}

/* The blocks of the profile that the cache keeps of os@1. */
static uint64_t kept_blocks(const struct fixture *f)
{
    struct buffer bytes = {0};
    struct profile profile;
    struct error error = ERROR_INIT;
    char pattern[250];
    uint64_t count;
    glob_t found;

    snprintf(pattern, sizeof(pattern), "%s/archives/*/images/os/1.profile", f->cache);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    assert_int_equal(file_read(AT_FDCWD, found.gl_pathv[0], 1000000, &bytes, &error), 0);
    assert_int_equal(profile_parse(bytes.bytes, bytes.size, &profile, &error), 0);
    count = profile.block_count;
    profile_finish(&profile);
    buffer_finish(&bytes);
    globfree(&found);
    return count;
}

/* Each has a session of its own, as processes have, and has read another block. */
static void runs_that_end_at_once_keep_all_their_records(void **state)
{
    struct fixture *f = *state;
    pthread_barrier_t together;
    pthread_t threads[RUNS];
    struct run runs[RUNS];
    uint8_t byte;

    pthread_barrier_init(&together, NULL, RUNS);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < RUNS; i++) {
            runs[i].together = &together;
            assert_int_equal(circular_open(f->url, &f->options, &runs[i].disk, NULL), 0);
            assert_int_equal(circular_pread(runs[i].disk, &byte, 1, 65536 * (uint64_t)(RUNS * round + i), NULL), 1);
        }
        for (unsigned i = 0; i < RUNS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, end_run, &runs[i]), 0);
        for (unsigned i = 0; i < RUNS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(kept_blocks(f), RUNS * (round + 1));
    }
    pthread_barrier_destroy(&together);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_disk_is_read_by_url),
        TEST(an_archive_lists_its_versions),
        TEST(errors_say_what_and_where),
        TEST(an_insecure_caller_needs_no_key),
        TEST(a_bad_block_is_an_error_and_never_wrong_bytes),
        TEST(holes_are_found),
        TEST(many_threads_read_at_once),
        TEST(runs_that_end_at_once_keep_all_their_records),
    };

    return cmocka_run_group_tests_name("libcircular", tests, NULL, NULL);
}
