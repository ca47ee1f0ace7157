/* Known answers of src/base. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"

static void sizes_are_read_as_people_write_them(void **state)
{
    static const struct {
        const char *text;
        bool valid;
        uint64_t bytes;
    } cases[] = {
        {"0", true, 0},           {"4096", true, 4096},   {"64K", true, 65536},
        {"64KiB", true, 65536},   {"1m", true, MIB},      {"2GB", true, 2 * GIB},
        {"", false, 0},           {"K", false, 0},        {"1KK", false, 0},
        {"-1", false, 0},         {"1.5G", false, 0},     {"18446744073709551616", false, 0},
        {"99999999P", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 0;

        assert_int_equal(size_parse(cases[i].text, &bytes), cases[i].valid);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void durations_have_units(void **state)
{
    uint64_t ms;

    (void)state;
    assert_true(duration_parse("500ms", &ms) && ms == 500);
    assert_true(duration_parse("60", &ms) && ms == 60000);
    assert_true(duration_parse("2h", &ms) && ms == 7200000);
    assert_false(duration_parse("2w", &ms));
    assert_false(duration_parse("", &ms));
}

static void digest_of_abc_is_that_of_fips_180(void **state)
{
    struct digest digest, again;
    char text[DIGEST_TEXT];

    (void)state;
    digest_of("abc", 3, &digest);
    assert_string_equal(digest_format(&digest, text),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(digest_parse(text, &again));
    assert_true(digest_equal(&digest, &again));
    text[0] = 'B';
    assert_false(digest_parse(text, &again));
}

static void times_are_strict(void **state)
{
    int64_t seconds;
    char text[TIME_TEXT];

    (void)state;
    assert_true(time_parse("2026-11-21T08:30:00Z", &seconds));
    assert_string_equal(time_format(seconds, text), "2026-11-21T08:30:00Z");
    assert_false(time_parse("2026-02-31T08:30:00Z", &seconds));
    assert_false(time_parse("2026-11-21 08:30:00", &seconds));
}

static void a_file_is_written_whole_or_not_at_all(void **state)
{
    char folder[] = "/tmp/test-base-XXXXXX";
    struct buffer buffer = {0};
    struct error error = ERROR_INIT;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    fd = file_open_folder(folder, false, &error);
    assert_true(fd >= 0);
    assert_int_equal(file_write_atomic(fd, "a/b/c", "one", 3, FILE_MAKE_FOLDERS | FILE_DURABLE, &error), 0);
    assert_int_equal(file_write_atomic(fd, "a/b/c", "two", 3, FILE_NEW_ONLY, &error), ERROR_EXISTS);
    assert_int_equal(file_read(fd, "a/b/c", 3, &buffer, &error), 0);
    assert_memory_equal(buffer.bytes, "one", 3);
    assert_int_equal(file_read(fd, "a/b/c", 2, &buffer, &error), ERROR_CORRUPT);
    assert_int_equal(file_read(fd, "a/b/d", 2, &buffer, &error), ERROR_NOT_FOUND);
    assert_int_equal(symlinkat("/etc/passwd", fd, "out"), 0);
    assert_true(file_open_beneath(fd, "out", O_RDONLY, &error) < 0);
    assert_true(file_open_beneath(fd, "a/../../x", O_RDONLY, &error) < 0);
    assert_int_equal(file_remove(AT_FDCWD, folder, &error), 0);
    buffer_finish(&buffer);
    close(fd);
}

static void a_folder_is_removed_with_all_in_it_and_nothing_else(void **state)
{
    char folder[] = "/tmp/test-base-XXXXXX";
    struct buffer buffer = {0};
    struct error error = ERROR_INIT;
    char deep[128] = "kept/";
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    fd = file_open_folder(folder, false, &error);
    assert_int_equal(file_write_atomic(fd, "other/file", "here", 4, FILE_MAKE_FOLDERS, &error), 0);
    assert_int_equal(file_write_atomic(fd, "gone/a/b/file", "1", 1, FILE_MAKE_FOLDERS, &error), 0);
    assert_int_equal(file_write_atomic(fd, "gone/.hidden", "2", 1, 0, &error), 0);
    assert_int_equal(symlinkat("../other", fd, "gone/link"), 0);
    assert_int_equal(file_empty_folder(fd, "gone", &error), 0);
    assert_int_equal(unlinkat(fd, "gone", AT_REMOVEDIR), 0);
    assert_int_equal(file_read(fd, "other/file", 4, &buffer, &error), 0);
    assert_int_equal(file_remove(fd, "gone", &error), 0); /* nothing there */
    assert_int_equal(file_empty_folder(fd, "gone", &error), 0);

    /* What cannot be removed does not save the rest. */
    for (int i = 0; i < 40; i++)
        strcat(deep, "d/");
    assert_int_equal(file_make_folders(fd, deep, 0700, &error), 0);
    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "kept/%d/file", i);
        assert_int_equal(file_write_atomic(fd, name, "", 0, FILE_MAKE_FOLDERS, &error), 0);
    }
    assert_int_equal(file_remove(fd, "kept", &error), ERROR_INVALID);
    assert_non_null(strstr(error.message, "32 folders deep"));
    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "kept/%d", i);
        assert_int_equal(faccessat(fd, name, F_OK, 0), -1);
    }
    assert_int_equal(renameat(fd, "kept/d/d/d/d/d/d/d/d/d/d", fd, "shallower"), 0);
    assert_int_equal(file_remove(fd, "shallower", &error), 0);
    assert_int_equal(file_remove(fd, "kept", &error), 0);
    assert_int_equal(file_remove(AT_FDCWD, folder, &error), 0);
    assert_int_equal(access(folder, F_OK), -1);
    buffer_finish(&buffer);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read_as_people_write_them),
        cmocka_unit_test(durations_have_units),
        cmocka_unit_test(digest_of_abc_is_that_of_fips_180),
        cmocka_unit_test(times_are_strict),
        cmocka_unit_test(a_file_is_written_whole_or_not_at_all),
        cmocka_unit_test(a_folder_is_removed_with_all_in_it_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
