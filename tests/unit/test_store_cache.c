/* The cache folder of one process: what is kept, what is dropped, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <time.h>

#include "base/clock.h"
#include "cache_fixture.h"

static void set_age(const struct scratch *scratch, const struct digest *digest, time_t seconds)
{
    char path[160];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - seconds}};

    assert_int_equal(utimensat(AT_FDCWD, scratch_path(scratch, digest, path), times, 0), 0);
}

static void a_block_is_kept_under_its_digest(void **state)
{
    static const enum link_way ways[] = {LINK_BY_DESCRIPTOR, LINK_BY_PROC, LINK_BY_RENAME};
    struct scratch scratch;

    (void)state;
    scratch_open(&scratch, 0);
    for (uint64_t i = 0; i < 3; i++) {
        struct digest digest;
        struct stat status;
        char path[160];

        scratch.cache->link_way = (int)ways[i];
        make_frame(i, (uint8_t[FRAME_SIZE]){0}, &digest);
        assert_int_equal(get_code(scratch.cache, &digest), ERROR_NOT_FOUND);
        assert_false(cache_has_block(scratch.cache, &digest));
        put(scratch.cache, i, &digest);
        put(scratch.cache, i, &digest);
        assert_int_equal(get_code(scratch.cache, &digest), 0);
        assert_true(cache_has_block(scratch.cache, &digest));
        assert_int_equal(stat(scratch_path(&scratch, &digest, path), &status), 0);
        assert_int_equal(status.st_mode & 0444, 0444);
        assert_int_equal(status.st_nlink, 1);
    }
    assert_int_equal(look(&scratch).count, 3);
    assert_int_equal(look(&scratch).other, 0);
    assert_int_equal(scratch.warnings, 0);
    scratch_close(&scratch);
}

static void put_behind(struct cache *cache, uint64_t seed, struct digest *digest)
{
    uint8_t frame[FRAME_SIZE];

    make_frame(seed, frame, digest);
    cache_write_block_behind(cache, digest, frame, sizeof(frame));
}

static void a_block_that_waits_to_be_written_is_found(void **state)
{
    struct scratch scratch;
    struct digest first, second;

    (void)state;
    scratch_open(&scratch, 0);
    put_behind(scratch.cache, 1, &first);
    put_behind(scratch.cache, 2, &second);
    assert_true(cache_has_block(scratch.cache, &first));
    assert_int_equal(get_code(scratch.cache, &first), 0);
    assert_int_equal(get_code(scratch.cache, &second), 0);
    put_behind(scratch.cache, 1, &first); /* by somebody who fetched it too */
    cache_settle(scratch.cache);
    assert_int_equal(look(&scratch).count, 2);
    assert_int_equal(look(&scratch).damaged + look(&scratch).other, 0);
    assert_int_equal(get_code(scratch.cache, &first), 0);
    scratch_close(&scratch);
}

/* Nobody tells it to: in a lull, and also when there is none. */
static void what_waits_is_written_after_a_while(void **state)
{
    uint64_t deadline, seed = 10;
    struct scratch scratch;
    struct digest digest;

    (void)state;
    scratch_open(&scratch, 0);
    put_behind(scratch.cache, 1, &digest);
    for (deadline = clock_ms() + 20000; look(&scratch).count == 0 && clock_ms() < deadline;)
        clock_sleep_ms(5);
    assert_int_equal(look(&scratch).count, 1);
    for (deadline = clock_ms() + 20000; look(&scratch).count == 1 && clock_ms() < deadline; clock_sleep_ms(5))
        put_behind(scratch.cache, seed++, &digest);
    assert_in_range(look(&scratch).count, 2, seed);
    scratch_close(&scratch);
}

static void no_more_than_20_mib_wait_to_be_written(void **state)
{
    const uint64_t fit = 20 * MIB / FRAME_CHARGE;
    struct scratch scratch;
    struct digest digest;

    (void)state;
    scratch_open(&scratch, 0);
    for (uint64_t i = 0; i < fit + 3; i++) {
        put_behind(scratch.cache, i, &digest);
        assert_true(scratch.cache->behind.bytes <= 20 * MIB);
    }
    assert_in_range(look(&scratch).count, 3, fit + 3);
    cache_settle(scratch.cache);
    assert_int_equal(look(&scratch).count, fit + 3);
    scratch_close(&scratch);
}

static void replace_by_nothing(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void replace_by_too_much(const char *path)
{
    assert_int_equal(truncate(path, 1 << 20), 0);
}

static void replace_by_folder(const char *path)
{
    assert_int_equal(unlink(path) | mkdir(path, 0755), 0);
}

static void replace_by_link(const char *path)
{
    assert_int_equal(unlink(path) | symlink("/dev/zero", path), 0);
}

static void replace_by_pipe(const char *path)
{
    assert_int_equal(unlink(path) | mkfifo(path, 0644), 0);
}

static void what_cannot_be_a_block_is_corrupt_and_goes(void **state)
{
    static void (*const damages[])(const char *) = {replace_by_nothing, replace_by_too_much, replace_by_folder,
                                                    replace_by_link, replace_by_pipe};
    struct scratch scratch;
    struct digest digest;
    char path[160];

    (void)state;
    scratch_open(&scratch, 0);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        put(scratch.cache, 1, &digest);
        damages[i](scratch_path(&scratch, &digest, path));
        assert_int_equal(get_code(scratch.cache, &digest), ERROR_CORRUPT);
        cache_drop_block(scratch.cache, &digest);
        assert_int_equal(get_code(scratch.cache, &digest), ERROR_NOT_FOUND);
    }
    put(scratch.cache, 1, &digest);
    assert_int_equal(get_code(scratch.cache, &digest), 0);
    scratch_close(&scratch);
}

static void reading_marks_use_at_most_every_ten_minutes(void **state)
{
    struct scratch scratch;
    struct digest digest;
    struct stat status;
    char path[160];

    (void)state;
    scratch_open(&scratch, 0);
    put(scratch.cache, 1, &digest);
    set_age(&scratch, &digest, 500);
    assert_int_equal(get_code(scratch.cache, &digest), 0);
    assert_int_equal(stat(scratch_path(&scratch, &digest, path), &status), 0);
    assert_true(time(NULL) - status.st_mtime >= 500);
    set_age(&scratch, &digest, 700);
    assert_int_equal(get_code(scratch.cache, &digest), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_true(time(NULL) - status.st_mtime < 100);
    scratch_close(&scratch);
}

static void write_file_of_age(const struct scratch *scratch, const char *name, time_t age)
{
    char path[160];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - age}};

    snprintf(path, sizeof(path), "%s/%s", scratch->path, name);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, "x", 1, FILE_MAKE_FOLDERS, NULL), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool exists(const struct scratch *scratch, const char *name)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", scratch->path, name);
    return !access(path, F_OK);
}

static void prune_removes_the_least_recently_used(void **state)
{
    struct scratch scratch;
    struct digest digests[20];
    struct cache_usage usage;
    uint64_t removed;

    (void)state;
    scratch_open(&scratch, 0);
    for (uint64_t i = 0; i < 20; i++) {
        put(scratch.cache, i, &digests[i]);
        set_age(&scratch, &digests[i], 1000 + (time_t)(i * 7 % 20) * 1000);
    }
    write_file_of_age(&scratch, "blocks/00/.tmp-old", 4000);
    write_file_of_age(&scratch, "archives/a-1/images/n/.tmp-old", 4000);
    write_file_of_age(&scratch, "maps/.tmp-young", 3000);
    write_file_of_age(&scratch, "blocks/00/notes.txt", 999999);
    assert_int_equal(cache_measure(scratch.cache, &usage, NULL), 0);
    assert_int_equal(usage.block_count, 20);
    assert_int_equal(usage.block_bytes, 20 * FRAME_CHARGE);
    assert_int_equal(usage.temporary_count, 2);
    /* The estimate says more than there is: the candidates are too many, and the oldest of them go. */
    usage_add(&scratch.cache->usage, 5 * FRAME_CHARGE);
    assert_int_equal(cache_prune(scratch.cache, 8 * FRAME_CHARGE + 100, &removed, NULL), 0);
    assert_int_equal(removed, 12 * FRAME_CHARGE);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(cache_has_block(scratch.cache, &digests[i]), i * 7 % 20 < 8);
    assert_false(exists(&scratch, "blocks/00/.tmp-old"));
    assert_false(exists(&scratch, "archives/a-1/images/n/.tmp-old"));
    assert_true(exists(&scratch, "maps/.tmp-young"));
    assert_true(exists(&scratch, "blocks/00/notes.txt"));
    assert_int_equal(cache_prune(scratch.cache, 0, &removed, NULL), 0);
    assert_int_equal(look(&scratch).count, 0);
    scratch_close(&scratch);
}

static void a_bounded_cache_stays_below_its_bound(void **state)
{
    struct scratch scratch;
    struct digest digest;

    (void)state;
    scratch_open(&scratch, 100 * FRAME_CHARGE);
    for (uint64_t i = 0; i < 350; i++) {
        put(scratch.cache, i, &digest);
        assert_true(cache_has_block(scratch.cache, &digest));
        set_age(&scratch, &digest, 400 - (time_t)i);
        if (i % 25 == 0)
            assert_true(look(&scratch).bytes <= 100 * FRAME_CHARGE);
    }
    assert_true(look(&scratch).bytes <= 100 * FRAME_CHARGE);
    assert_true(look(&scratch).count >= 85);
    for (uint64_t i = 330; i < 350; i++) {
        make_frame(i, (uint8_t[FRAME_SIZE]){0}, &digest);
        assert_true(cache_has_block(scratch.cache, &digest));
    }
    scratch_close(&scratch);
}

static void what_fits_is_not_pruned(void **state)
{
    struct scratch scratch;
    struct digest digest;

    (void)state;
    scratch_open(&scratch, 100 * FRAME_CHARGE);
    for (uint64_t i = 0; i < 100; i++)
        put(scratch.cache, i, &digest);
    assert_int_equal(look(&scratch).count, 100);
    scratch_close(&scratch);
}

/* The usage file is only an estimate: whatever it says, a scan puts it right. */
static void a_wrong_estimate_is_corrected(void **state)
{
    static const uint64_t wrong[] = {0, UINT64_MAX, UINT64_C(1) << 63, UINT64_C(1) << 59, 4096};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct scratch scratch;
        struct digest digest;
        uint8_t bytes[16] = {0};
        char path[160];

        scratch_open(&scratch, 0);
        for (uint64_t b = 0; b < 50; b++)
            put(scratch.cache, b, &digest);
        cache_close(scratch.cache);
        store_le64(bytes, wrong[i]);
        snprintf(path, sizeof(path), "%s/usage", scratch.path);
        assert_int_equal(file_write_atomic(AT_FDCWD, path, bytes, i == 0 ? 0 : 16, 0, NULL), 0);
        assert_int_equal(cache_open(scratch.path, 40 * FRAME_CHARGE, &scratch.cache, NULL), 0);
        put(scratch.cache, 1000, &digest);
        assert_true(look(&scratch).bytes <= 40 * FRAME_CHARGE);
        assert_true(look(&scratch).bytes >= 30 * FRAME_CHARGE);
        assert_true(cache_has_block(scratch.cache, &digest));
        scratch_close(&scratch);
    }
}

static void a_map_is_kept_page_by_page(void **state)
{
    struct scratch scratch;
    struct digest id;
    uint8_t page[4096], zeros[4096] = {0}, found[4096];
    struct cache_usage usage;

    (void)state;
    scratch_open(&scratch, 0);
    digest_of("map", 3, &id);
    fill_random(page, sizeof(page), 1);
    assert_int_equal(cache_read_map(scratch.cache, &id, 0, found, sizeof(found), NULL), ERROR_NOT_FOUND);
    cache_write_map(scratch.cache, &id, 1 << 20, page, sizeof(page));
    assert_int_equal(cache_read_map(scratch.cache, &id, 1 << 20, found, sizeof(found), NULL), 0);
    assert_memory_equal(found, page, sizeof(page));
    assert_int_equal(cache_read_map(scratch.cache, &id, 0, found, sizeof(found), NULL), 0);
    assert_memory_equal(found, zeros, sizeof(zeros));
    assert_int_equal(cache_read_map(scratch.cache, &id, (1 << 20) + 2048, found, sizeof(found), NULL), 0);
    assert_memory_equal(found, page + 2048, 2048);
    assert_memory_equal(found + 2048, zeros, 2048);
    assert_int_equal(cache_measure(scratch.cache, &usage, NULL), 0);
    assert_true(usage.map_bytes < 65536);
    scratch_close(&scratch);
}

static void read_metadata_is(struct cache *cache, const char *archive, const char *path, const char *expected)
{
    struct buffer bytes = {0};
    int result = cache_read_metadata(cache, archive, path, 100, &bytes, NULL);

    if (!expected) {
        assert_int_equal(result, ERROR_NOT_FOUND);
    } else {
        assert_int_equal(result, 0);
        assert_int_equal(bytes.size, strlen(expected));
        assert_memory_equal(bytes.bytes, expected, bytes.size);
    }
    buffer_finish(&bytes);
}

static int has_secret(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return strstr(path, "secret") != NULL;
}

static void metadata_is_kept_for_each_archive(void **state)
{
    static const char *const outside[] = {"../x", "a/../../x", "/etc/x", "", "a//b", ".", "a/..", "images/"};
    struct scratch scratch;
    struct cache *cache;

    (void)state;
    scratch_open(&scratch, 0);
    cache = scratch.cache;
    cache_write_metadata(cache, "http://user:secret@h:80/os", "catalog.json", "one", 3);
    cache_write_metadata(cache, "http://h:80/os2", "images/n/1.json", "two", 3);
    cache_write_metadata(cache, "http://h:80/os", "catalog.json", "three", 5);
    read_metadata_is(cache, "http://user:secret@h:80/os", "catalog.json", "three");
    read_metadata_is(cache, "http://h:80/os/", "catalog.json", "three");
    read_metadata_is(cache, "http://h:80/os2", "images/n/1.json", "two");
    read_metadata_is(cache, "http://h:80/os2", "catalog.json", NULL);
    read_metadata_is(cache, "http://h/80/os", "catalog.json", NULL);
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        assert_int_equal(cache_read_metadata(cache, "http://h", outside[i], 9, &(struct buffer){0}, NULL),
                         ERROR_INVALID);
    assert_int_equal(nftw(scratch.path, has_secret, 16, FTW_PHYS), 0);
    scratch_close(&scratch);
}

/* A cache is an archive: below archives/<key>/ everything is reachable by an archive's paths. */
static void a_cached_archive_can_be_served(void **state)
{
    struct scratch scratch;
    struct digest digest, id;
    char command[256];

    (void)state;
    scratch_open(&scratch, 0);
    put(scratch.cache, 1, &digest);
    digest_of("map", 3, &id);
    cache_write_map(scratch.cache, &id, 0, "x", 1);
    cache_write_metadata(scratch.cache, "http://h:80/os", "catalog.json", "one", 3);
    snprintf(command, sizeof(command),
             "cd %s/archives/h_80_os-* && test -f catalog.json && ls blocks/*/* maps/*.map >/dev/null",
             scratch.path);
    assert_int_equal(system(command), 0);
    scratch_close(&scratch);
}

static void a_published_archive_is_no_cache(void **state)
{
    struct scratch scratch;
    struct cache *cache;
    struct error error = ERROR_INIT;

    (void)state;
    scratch_open(&scratch, 0);
    write_file_of_age(&scratch, "catalog.json", 0);
    assert_int_equal(cache_open(scratch.path, 0, &cache, &error), ERROR_INVALID);
    assert_non_null(strstr(error.message, "published archive"));
    scratch_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_kept_under_its_digest),
        cmocka_unit_test(a_block_that_waits_to_be_written_is_found),
        cmocka_unit_test(what_waits_is_written_after_a_while),
        cmocka_unit_test(no_more_than_20_mib_wait_to_be_written),
        cmocka_unit_test(what_cannot_be_a_block_is_corrupt_and_goes),
        cmocka_unit_test(reading_marks_use_at_most_every_ten_minutes),
        cmocka_unit_test(prune_removes_the_least_recently_used),
        cmocka_unit_test(a_bounded_cache_stays_below_its_bound),
        cmocka_unit_test(what_fits_is_not_pruned),
        cmocka_unit_test(a_wrong_estimate_is_corrected),
        cmocka_unit_test(a_map_is_kept_page_by_page),
        cmocka_unit_test(metadata_is_kept_for_each_archive),
        cmocka_unit_test(a_cached_archive_can_be_served),
        cmocka_unit_test(a_published_archive_is_no_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
