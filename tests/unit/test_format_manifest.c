/* The manifest: its text to the letter, and what is refused and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/manifest.h"
#include "format_texts.h"

#define IMAGE "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DISK                                                                                                      \
    "{ \"image\": \"" IMAGE "\", \"disk_size\": 1, \"block_size\": 4096, \"data_size\": 0, \"stored_size\": 0 }"

/* Also what manifest_format writes. */
static const char good[] = "{\n"
                           "  \"format\": \"circular-manifest-1\",\n"
                           "  \"name\": \"debian12\",\n"
                           "  \"version\": \"20261121\",\n"
                           "  \"published\": \"2026-11-21T08:30:00Z\",\n"
                           "  \"architecture\": \"amd64\",\n"
                           "  \"description\": \"Debian 12 \\\"bookworm\\\", für alle\",\n"
                           "  \"disks\": [\n"
                           "    {\n"
                           "      \"image\": \"" IMAGE "\",\n"
                           "      \"disk_size\": 3221225472,\n"
                           "      \"block_size\": 65536,\n"
                           "      \"data_size\": 798752768,\n"
                           "      \"stored_size\": 245366784\n"
                           "    }\n"
                           "  ]\n"
                           "}\n";

static int parse(const void *bytes, size_t size, struct error *error)
{
    struct manifest manifest;

    return manifest_parse(bytes, size, &manifest, error);
}

static void a_manifest_is_read_and_written_to_the_letter(void **state)
{
    struct manifest manifest;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(manifest_parse(good, strlen(good), &manifest, &error), 0);
    assert_string_equal(manifest.name, "debian12");
    assert_string_equal(manifest.version, "20261121");
    assert_string_equal(manifest.architecture, "amd64");
    assert_string_equal(manifest.description, "Debian 12 \"bookworm\", f\xc3\xbcr alle");
    assert_int_equal(manifest.disk_count, 1);
    assert_int_equal(manifest.disks[0].stored_size, 245366784);
    auto_free char *text = manifest_format(&manifest);

    assert_string_equal(text, good);
}

static void text_that_is_not_utf_8_is_not_written(void **state)
{
    struct manifest manifest = {.name = "a", .version = "1", .description = "\xff"};

    (void)state;
    assert_null(manifest_format(&manifest));
}

static const struct text_change changes[] = {
    {"  \"architecture\": \"amd64\",\n", "", NULL},
    {"\"architecture\": \"amd64\"", "\"boot\": { \"kernel\": [] }", NULL},
    {"manifest-1", "manifest-2", "manifest: format: not one"},
    {"debian12\"", "..\"", "manifest: name: it '..' does not begin"},
    {"20261121\"", "20261121/\"", "manifest: version: it '20261121/' has a character"},
    {"2026-11-21T08:30:00Z", "2026-11-21", "manifest: published: not a time"},
    {"amd64", "amd64amd64amd64amd64amd64amd64amd64", "manifest: architecture: too long"},
    {"\"amd64\"", "64", "manifest: architecture: not a string"},
    {"bookworm", "\\u001b[2J", "manifest: description: has a control character"},
    {"\"disks\"", "\"discs\"", "manifest: disks: missing"},
    {"\"disks\": [", "\"disks\": [],\n\"others\": [", "manifest: disks: has no disk"},
    {"\"disks\": [", "\"disks\": {},\n\"others\": [", "manifest: disks: not an array"},
    {"\"disks\": [", "\"disks\": [ 1, ", "manifest: disks[0]: not an object"},
    {"\"disks\": [", "\"disks\": [" DISK ", {}, ", "manifest: disks[1].image: missing"},
    {"\"disks\": [",
     "\"disks\": [" DISK "," DISK "," DISK "," DISK "," DISK "," DISK "," DISK "," DISK "," DISK "," DISK "," DISK
     "," DISK "," DISK "," DISK "," DISK ",",
     NULL},
    {"\"disks\": [", "\"disks\": [ 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,", "manifest: disks: has too many items"},
    {"65536", "0", "manifest: disks[0].block_size: out of range"},
    {IMAGE, "", "manifest: disks[0].image: not a digest"},
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
        cmocka_unit_test(a_manifest_is_read_and_written_to_the_letter),
        cmocka_unit_test(text_that_is_not_utf_8_is_not_written),
        cmocka_unit_test(what_is_wrong_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
