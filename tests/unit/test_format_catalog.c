/* The catalog: its text to the letter, what is refused and why, and the list's operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "format/catalog.h"
#include "format_texts.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ZERO "0000000000000000000000000000000000000000000000000000000000000000"

/* Also what catalog_format writes. */
static const char good[] = "{\n"
                           "  \"format\": \"circular-catalog-1\",\n"
                           "  \"archive\": \"0123456789abcdef0123456789abcdef\",\n"
                           "  \"serial\": 7,\n"
                           "  \"published\": \"2026-11-21T08:30:00Z\",\n"
                           "  \"expires\": \"2027-02-19T08:30:00Z\",\n"
                           "  \"versions\": [\n"
                           "    {\n"
                           "      \"name\": \"debian12\",\n"
                           "      \"version\": \"1\",\n"
                           "      \"manifest\": \"" ID_A "\",\n"
                           "      \"image\": \"" ID_B "\",\n"
                           "      \"disk_size\": 3221225472,\n"
                           "      \"block_size\": 65536,\n"
                           "      \"data_size\": 798752768,\n"
                           "      \"stored_size\": 245366784,\n"
                           "      \"published\": \"2026-11-20T08:30:00Z\"\n"
                           "    }\n"
                           "  ]\n"
                           "}\n";

static int parse(const void *bytes, size_t size, struct error *error)
{
    struct catalog catalog;
    int result = catalog_parse(bytes, size, &catalog, error);

    if (result && (catalog.versions || catalog.version_count))
        fail_msg("a refused catalog is left behind");
    catalog_finish(&catalog);
    return result;
}

static void a_catalog_is_read_and_written_to_the_letter(void **state)
{
    struct catalog catalog;
    struct error error = ERROR_INIT;
    char time[TIME_TEXT], digest[DIGEST_TEXT];

    (void)state;
    assert_int_equal(catalog_parse(good, strlen(good), &catalog, &error), 0);
    assert_string_equal(catalog.archive, "0123456789abcdef0123456789abcdef");
    assert_int_equal(catalog.serial, 7);
    assert_string_equal(time_format(catalog.expires, time), "2027-02-19T08:30:00Z");
    assert_int_equal(catalog.version_count, 1);
    assert_string_equal(catalog.versions[0].name, "debian12");
    assert_string_equal(digest_format(&catalog.versions[0].image, digest), ID_B);
    assert_int_equal(catalog.versions[0].disk_size, 3221225472);
    assert_int_equal(catalog.versions[0].block_size, 65536);
    auto_free char *text = catalog_format(&catalog);

    assert_string_equal(text, good);
    catalog_finish(&catalog);
}

static const struct text_change changes[] = {
    /* the grammar of JSON */
    {NULL, "x", "catalog: line 21: end of file expected"},
    {NULL, "   \n\t", NULL},
    {"{\n  \"format\"", "\xef\xbb\xbf{\n  \"format\"", "catalog: line 1:"},
    {"\"serial\": 7", "\"serial\": 07", "catalog: line 4:"},
    {"debian12", "debi\xff", "unable to decode byte 0xff"},
    {"debian12", "debian\\u0000", "NUL"},
    {"\"serial\": 7", "\"serial\": 7, \"serial\": 8", "duplicate object key"},
    {"\"serial\": 7", "\"serial\": 7, \"new\": {\"a\": [1, 2.5, null, true]}", NULL},
    {"\"serial\": 7",
     "\"serial\": 7, \"new\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
     "catalog: nested too deeply"},
    {"\"serial\": 7", "\"serial\": 7, \"new\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[\"", NULL},
    /* the head */
    {"catalog-1", "catalog-2", "catalog: format: not one that this program reads"},
    {"\"format\"", "\"Format\"", "catalog: format: missing"},
    {"\"circular-catalog-1\"", "1", "catalog: format: not one"},
    {"0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcde", "catalog: archive: not 32 hex"},
    {"0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdeff", "catalog: archive: too long"},
    {"0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF", "catalog: archive: not 32 hex"},
    {"\"serial\": 7", "\"serial\": 0", "catalog: serial: out of range"},
    {"\"serial\": 7", "\"serial\": -1", "catalog: serial: out of range"},
    {"\"serial\": 7", "\"serial\": 7.0", "catalog: serial: not a whole number"},
    {"\"serial\": 7", "\"serial\": \"7\"", "catalog: serial: not a whole number"},
    {"\"serial\": 7", "\"serial\": null", "catalog: serial: not a whole number"},
    {"\"serial\": 7", "\"serial\": 9223372036854775807", NULL},
    {"\"serial\": 7", "\"serial\": 9223372036854775808", "too big integer"},
    {"2026-11-21T08:30:00Z", "2026-11-31T08:30:00Z", "catalog: published: not a time"},
    {"2027-02-19T08:30:00Z", "2027-02-19T08:30:00+00:00", "catalog: expires: not a time"},
    {"2027-02-19T08:30:00Z", "2026-11-21T08:29:59Z", "catalog: expires: is before"},
    {"\"versions\"", "\"editions\"", "catalog: versions: missing"},
    /* a version */
    {"\"versions\": [", "\"versions\": [ 5,", "catalog: versions[0]: not an object"},
    {"debian12", "", "catalog: versions[0].name: it is empty"},
    {"debian12", "../debian12", "catalog: versions[0].name: it '../debian12' does not begin"},
    {"debian12", "a/b", "catalog: versions[0].name:"},
    {"debian12", "a\\nb", "catalog: versions[0].name: has a control character"},
    {"\"version\": \"1\"", "\"version\": 1", "catalog: versions[0].version: not a string"},
    {"\"version\": \"1\"", "\"version\": \"1.hints\"", "ends in .hints"},
    {ID_A, "aaaa", "catalog: versions[0].manifest: not a digest"},
    {ID_A, ZERO, "catalog: versions[0].manifest: the digest is all zero"},
    {ID_B, ID_B "b", "catalog: versions[0].image: not a digest"},
    {"\"" ID_B "\"", "{}", "catalog: versions[0].image: not a digest"},
    {"3221225472", "0", "catalog: versions[0].disk_size: out of range"},
    {"3221225472", "72057594037927937", "catalog: versions[0].disk_size: out of range"},
    {"\"block_size\": 65536", "\"block_size\": 65537", "catalog: versions[0].block_size: block size 65537 is not"},
    {"\"block_size\": 65536", "\"block_size\": 2097152", "catalog: versions[0].block_size: out of range"},
    {"\"block_size\": 65536", "\"block_size\": 4294971392", "catalog: versions[0].block_size: out of range"},
    {"798752768", "3221225473", "catalog: versions[0].data_size: out of range"},
    {"245366784", "-1", "catalog: versions[0].stored_size: out of range"},
    {"2026-11-20T08:30:00Z", "yesterday", "catalog: versions[0].published: not a time"},
};

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    check_changes(good, changes, sizeof(changes) / sizeof(changes[0]), parse);
    assert_int_equal(parse("", 0, NULL), ERROR_CORRUPT);
    assert_int_equal(parse("[]", 2, NULL), ERROR_CORRUPT);
    assert_int_equal(parse("{}\0", 3, NULL), ERROR_CORRUPT);
    for (size_t cut = 0; cut + 1 < strlen(good); cut++)
        assert_int_equal(parse(good, cut, NULL), ERROR_CORRUPT);
}

static void memory_is_not_wasted_on_junk(void **state)
{
    static char text[100000] = "{ \"x\": [ 0";
    struct error error = ERROR_INIT;
    size_t at = strlen(text);

    (void)state;
    while (at + 4 < sizeof(text)) {
        memcpy(text + at, ",[]", 3);
        at += 3;
    }
    memcpy(text + at, "]}", 2);
    assert_int_equal(parse(text, at + 2, &error), ERROR_CORRUPT);
    assert_string_equal(error.message, "catalog: too many values for its size");
}

static struct catalog_version make_version(const char *name, const char *version)
{
    struct catalog_version made = {.disk_size = 1, .block_size = 4096};

    strcpy(made.name, name);
    strcpy(made.version, version);
    digest_of(name, strlen(name), &made.manifest);
    digest_of(version, strlen(version), &made.image);
    return made;
}

static void the_newest_is_the_last_of_its_name(void **state)
{
    static const char *const pairs[][2] = {{"a", "2"}, {"b", "9"}, {"a", "1"}, {"b", "1"}};
    struct catalog catalog = {.serial = 1};
    struct error error = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct catalog_version version = make_version(pairs[i][0], pairs[i][1]);

        assert_int_equal(catalog_add(&catalog, &version, &error), 0);
        assert_int_equal(catalog_add(&catalog, &version, &error), ERROR_EXISTS);
    }
    assert_string_equal(catalog_find(&catalog, "a", NULL)->version, "1");
    assert_string_equal(catalog_find(&catalog, "a", "2")->version, "2");
    assert_string_equal(catalog_find(&catalog, "b", "")->version, "1");
    assert_null(catalog_find(&catalog, "a", "3"));
    assert_null(catalog_find(&catalog, "c", NULL));
    assert_int_equal(catalog_remove(&catalog, "a", "1", &error), 0);
    assert_int_equal(catalog_remove(&catalog, "a", "1", &error), ERROR_NOT_FOUND);
    assert_int_equal(catalog_remove(&catalog, "a", "", &error), ERROR_NOT_FOUND);
    assert_string_equal(catalog_find(&catalog, "a", NULL)->version, "2");
    assert_int_equal(catalog.version_count, 3);
    catalog_finish(&catalog);
}

static void many_versions_survive_and_none_twice(void **state)
{
    struct catalog catalog = {.serial = 1, .published = 1, .expires = 2}, again;
    struct error error = ERROR_INIT;
    struct catalog_version version;
    char name[16];

    (void)state;
    catalog_make_id(catalog.archive);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "v%d", i * 37 % 1000);
        version = make_version("n", name);
        assert_int_equal(catalog_add(&catalog, &version, &error), 0);
    }
    auto_free char *text = catalog_format(&catalog);

    assert_int_equal(catalog_parse(text, strlen(text), &again, &error), 0);
    assert_int_equal(again.version_count, 1000);
    assert_memory_equal(again.versions, catalog.versions, 1000 * sizeof(version));
    catalog_finish(&again);
    strcpy(catalog.versions[500].version, "v77");
    auto_free char *twice = catalog_format(&catalog);

    assert_int_equal(catalog_parse(twice, strlen(twice), &again, &error), ERROR_CORRUPT);
    assert_non_null(strstr(error.message, "n@v77 stands twice"));
    catalog_finish(&catalog);
}

static void an_empty_archive_has_a_catalog(void **state)
{
    struct catalog catalog = {.serial = 1, .published = 1, .expires = 2}, again;

    (void)state;
    catalog_make_id(catalog.archive);
    auto_free char *text = catalog_format(&catalog);

    assert_int_equal(catalog_parse(text, strlen(text), &again, NULL), 0);
    assert_int_equal(again.version_count, 0);
    assert_null(catalog_find(&again, "a", NULL));
    catalog_finish(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_catalog_is_read_and_written_to_the_letter),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(memory_is_not_wasted_on_junk),
        cmocka_unit_test(the_newest_is_the_last_of_its_name),
        cmocka_unit_test(many_versions_survive_and_none_twice),
        cmocka_unit_test(an_empty_archive_has_a_catalog),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
