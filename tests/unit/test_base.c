/* Known answers of src/base. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
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
    /* Not by file_remove: valgrind runs this too, and does not know openat2. */
    assert_int_equal(unlinkat(fd, "out", 0) | unlinkat(fd, "a/b/c", 0), 0);
    assert_int_equal(unlinkat(fd, "a/b", AT_REMOVEDIR) | unlinkat(fd, "a", AT_REMOVEDIR), 0);
    assert_int_equal(rmdir(folder), 0);
    buffer_finish(&buffer);
    close(fd);
}

static void the_first_of_equal_digests_is_found(void **state)
{
    struct item {
        struct digest digest;
        unsigned number;
    } items[5] = {0};
    struct digest wanted = {0};

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        items[i].number = i;
        items[i].digest.bytes[DIGEST_SIZE - 1] = (uint8_t[]){1, 3, 3, 3, 255}[i];
    }
    for (unsigned last = 0; last < 256; last++) {
        const struct item *found;

        wanted.bytes[DIGEST_SIZE - 1] = (uint8_t)last;
        found = digest_search(items, 5, sizeof(items[0]), &wanted);
        if (last == 1 || last == 3 || last == 255)
            assert_true(found && found->number == (last == 1 ? 0 : last == 3 ? 1 : 4));
        else
            assert_null(found);
    }
    assert_null(digest_search(items, 0, sizeof(items[0]), &wanted));
}

static void escapes_of_either_case_are_decoded(void **state)
{
    static const struct {
        const char *text;
        int byte; /* -1: no escape */
    } cases[] = {{"%2F", 0x2f}, {"%2f0", 0x2f}, {"%fF", 0xff}, {"%00", 0}, {"", -1},    {"a%2F", -1},
                 {"%", -1},     {"%2", -1},     {"%G0", -1},   {"%0G", -1}, {"%%41", -1}, {"%+1", -1}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t byte = 0x55;
        bool taken = percent_decode(cases[i].text, &byte);

        if (taken != (cases[i].byte >= 0) || byte != (taken ? cases[i].byte : 0x55))
            fail_msg("'%s': %d, %02x", cases[i].text, taken, byte);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_of_either_case_are_decoded),
        cmocka_unit_test(the_first_of_equal_digests_is_found),
        cmocka_unit_test(sizes_are_read_as_people_write_them),
        cmocka_unit_test(durations_have_units),
        cmocka_unit_test(digest_of_abc_is_that_of_fips_180),
        cmocka_unit_test(times_are_strict),
        cmocka_unit_test(a_file_is_written_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
