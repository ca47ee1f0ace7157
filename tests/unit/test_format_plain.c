/* Plain files: their index is read as it was written, and damage is noticed; what is one by its looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "format/plain.h"

static struct plain_header example(void)
{
    struct plain_header header = {.slice_size = 128 * KIB, .size = 5 * GIB + 17};

    memset(&header.url, 7, sizeof(header.url));
    strcpy(header.shown, "http://host/some.iso");
    strcpy(header.validator, "\"abc\"\nSun, 06 Nov 1994 08:49:37 GMT");
    return header;
}

static void an_index_is_read_as_it_was_written(void **state)
{
    struct plain_header header = example(), found;
    uint8_t bytes[PLAIN_HEADER_SIZE];

    (void)state;
    plain_header_format(&header, bytes);
    assert_int_equal(plain_header_parse(bytes, sizeof(bytes), &found, NULL), 0);
    assert_memory_equal(&found, &header, sizeof(header));
    assert_int_equal(plain_slice_count(&found), 5 * 8192 + 1);
}

static void damage_is_noticed_wherever_it_is(void **state)
{
    struct plain_header header = example(), found;
    uint8_t bytes[PLAIN_HEADER_SIZE];
    struct error error;

    (void)state;
    plain_header_format(&header, bytes);
    for (size_t i = 0; i < sizeof(bytes); i += 7) {
        bytes[i] ^= 0x20;
        error = ERROR_INIT;
        assert_int_equal(plain_header_parse(bytes, sizeof(bytes), &found, &error), ERROR_CORRUPT);
        assert_true(error.message[0]);
        bytes[i] ^= 0x20;
    }
    assert_int_equal(plain_header_parse(bytes, sizeof(bytes) - 1, &found, NULL), ERROR_CORRUPT);
}

/* Sealed, but of a kind that was never written. */
static void nonsense_is_refused(void **state)
{
    struct plain_header headers[] = {example(), example(), example(), example()}, found;
    uint8_t bytes[PLAIN_HEADER_SIZE];

    (void)state;
    headers[0].slice_size = 3000;
    headers[1].slice_size = 2 * MIB;
    headers[2].size = 0;
    strcpy(headers[3].shown, "http://host/\033[2J");
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        plain_header_format(&headers[i], bytes);
        assert_int_equal(plain_header_parse(bytes, sizeof(bytes), &found, NULL), ERROR_CORRUPT);
    }
}

static void another_file_has_another_folder(void **state)
{
    struct plain_header header = example(), other = example();
    char name[DIGEST_TEXT], second[DIGEST_TEXT];

    (void)state;
    plain_folder_name(&header, name);
    strcpy(other.shown, "http://elsewhere/");
    plain_folder_name(&other, second);
    assert_string_equal(name, second);
    other.size++;
    plain_folder_name(&other, second);
    assert_string_not_equal(name, second);
    other = example();
    other.validator[1] = 'x';
    plain_folder_name(&other, second);
    assert_string_not_equal(name, second);
}

static void locations_are_told_apart_by_their_looks(void **state)
{
    static const struct {
        const char *location;
        bool plain;
        const char *name;
    } rows[] = {
        {"http://host/some.iso", true, "some.iso"},
        {"https://host/a/b/DISK.ISO", true, "DISK.ISO"},
        {"http://host/disk.img?token=a/b.c", true, "disk.img"},
        {"http://host/disk.raw#there", true, "disk.raw"},
        {"file:///srv/x.img", true, "x.img"},
        {"./x.raw", true, "x.raw"},
        {"http://host/some%20thing%2f.iso", true, "some thing_.iso"},
        {"a%20b.iso", true, "a%20b.iso"},
        {"http://host/os/debian12", false, "debian12"},
        {"http://host/os/disk.img@1", false, "disk.img@1"},
        {"http://host/os/disk.img@1.raw", false, "disk.img@1.raw"},
        {"http://user@host/disk.img", true, "disk.img"},
        {"http://host/.iso", false, ".iso"},
        {"http://host/some.iso/", false, "disk"},
        {"http://host/%2e%2e", false, "disk"},
        {"http://host/a%0ab.iso", true, "a_b.iso"},
        {"", false, "disk"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char name[PLAIN_NAME_SIZE];

        if (plain_is_location(rows[i].location) != rows[i].plain)
            fail_msg("%s", rows[i].location);
        plain_file_name(rows[i].location, name);
        assert_string_equal(name, rows[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_is_read_as_it_was_written),
        cmocka_unit_test(damage_is_noticed_wherever_it_is),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(another_file_has_another_folder),
        cmocka_unit_test(locations_are_told_apart_by_their_looks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
