/* Hints: their text to the letter, and what is refused and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/hints.h"
#include "format_texts.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* Also what hints_format writes. */
static const char good[] = "{\n"
                           "  \"format\": \"circular-hints-1\",\n"
                           "  \"mirrors\": [\n"
                           "    \"http://mirror.example/os\"\n"
                           "  ],\n"
                           "  \"packs\": [\n"
                           "    {\n"
                           "      \"pack\": \"" ID_A "\",\n"
                           "      \"kind\": \"boot\",\n"
                           "      \"size\": 19293184,\n"
                           "      \"table_size\": 44672\n"
                           "    }\n"
                           "  ],\n"
                           "  \"profile\": \"" ID_B "\"\n"
                           "}\n";

static int parse(const void *bytes, size_t size, struct error *error)
{
    struct hints hints;
    int result = hints_parse(bytes, size, &hints, error);

    if (result && (hints.mirrors || hints.packs))
        fail_msg("refused hints are left behind");
    hints_finish(&hints);
    return result;
}

static void hints_are_read_and_written_to_the_letter(void **state)
{
    struct hints hints;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(hints_parse(good, strlen(good), &hints, &error), 0);
    assert_int_equal(hints.mirror_count, 1);
    assert_string_equal(hints.mirrors[0], "http://mirror.example/os");
    assert_int_equal(hints.pack_count, 1);
    assert_true(hints.packs[0].boot);
    assert_int_equal(hints.packs[0].size, 19293184);
    assert_int_equal(hints.packs[0].table_size, 44672);
    auto_free char *text = hints_format(&hints);

    assert_string_equal(text, good);
    hints_finish(&hints);
}

static void all_members_are_optional(void **state)
{
    static const char empty[] = "{\n  \"format\": \"circular-hints-1\"\n}\n";
    struct hints hints;

    (void)state;
    assert_int_equal(hints_parse(empty, strlen(empty), &hints, NULL), 0);
    auto_free char *text = hints_format(&hints);

    assert_string_equal(text, empty);
    hints_finish(&hints);
}

static const struct text_change changes[] = {
    {"hints-1", "hints-2", "hints: format: not one"},
    {"http://mirror.example/os", "https://[::1]:8443/os/", NULL},
    {"http://mirror.example/os", "file:///etc", "hints: mirrors[0]: not an http or https URL"},
    {"http://mirror.example/os", "/etc", "hints: mirrors[0]: not an http or https URL"},
    {"http://mirror.example/os", "ftp://mirror.example/os", "hints: mirrors[0]: 'ftp' is not a scheme"},
    {"http://mirror.example/os", "http://", "hints: mirrors[0]: the URL has no host"},
    {"http://mirror.example/os", "http://a/\\r\\nHost: b", "hints: mirrors[0]: has a control character"},
    {"\"http://mirror.example/os\"", "\"http://a\", 7", "hints: mirrors[1]: not a string"},
    {"\"mirrors\": [", "\"mirrors\": 7, \"x\": [", "hints: mirrors: not an array"},
    {"\"boot\"", "\"rest\"", NULL},
    {"\"boot\"", "\"home\"", "hints: packs[0].kind: neither boot nor rest"},
    {"44672", "44673", "hints: packs[0].table_size: not the size of a table"},
    {"44672", "32", "hints: packs[0].table_size: not the size of a table"},
    {"19293184", "44672", "hints: packs[0].table_size: not the size of a table"},
    {"19293184", "-1", "hints: packs[0].size: out of range"},
    {ID_A, "../../etc/passwd", "hints: packs[0].pack: not a digest"},
    {ID_B, "x", "hints: profile: not a digest"},
    {"\"packs\": [", "\"packs\": [ null, ", "hints: packs[0]: not an object"},
};

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    check_changes(good, changes, sizeof(changes) / sizeof(changes[0]), parse);
    for (size_t cut = 0; cut + 1 < strlen(good); cut++)
        assert_int_equal(parse(good, cut, NULL), ERROR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hints_are_read_and_written_to_the_letter),
        cmocka_unit_test(all_members_are_optional),
        cmocka_unit_test(what_is_wrong_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
