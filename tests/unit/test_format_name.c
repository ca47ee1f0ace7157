/* Names, archive paths and locations: what is taken, what is refused, and how a location is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/name.h"

#define LONG_128                                                                                                  \
    "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhh"                            \
    "iiiiiiiiiijjjjjjjjjjkkkkkkkkkkllllllllllmmmmmmmm"

static void names_are_checked(void **state)
{
    static const struct {
        const char *text;
        const char *refusal; /* NULL: taken; else part of the message */
    } cases[] = {
        {"debian12", NULL},
        {"20261121", NULL},
        {"a", NULL},
        {"1.2.3-4+b1~rc_2", NULL},
        {"hints", NULL},
        {LONG_128, NULL},
        {LONG_128 "x", "longer than 128"},
        {"", "version is empty"},
        {".", "does not begin"},
        {"..", "does not begin"},
        {".tmp-1", "does not begin"},
        {"-rf", "does not begin"},
        {"a/b", "character that is not"},
        {"../etc/passwd", "does not begin"},
        {"a/../b", "character that is not"},
        {"a b", "character that is not"},
        {"a@b", "character that is not"},
        {"a\nb", "'a\\x0ab'"},
        {"\x1b[31m", "'\\x1b[31m'"},
        {"na\xc3\xafve", "'na\\xc3\\xafve'"},
        {"1.hints", "ends in .hints"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error = ERROR_INIT;
        int result = name_check("version", cases[i].text, &error);

        if (!cases[i].refusal) {
            assert_int_equal(result, 0);
            continue;
        }
        assert_int_equal(result, ERROR_INVALID);
        if (!strstr(error.message, cases[i].refusal))
            fail_msg("'%s' does not say '%s'", error.message, cases[i].refusal);
    }
}

static void paths_are_those_of_the_manual(void **state)
{
    static const char hex[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    struct digest digest;
    char path[ARCHIVE_PATH_MAX];

    (void)state;
    assert_true(digest_parse(hex, &digest));
    assert_string_equal(archive_path_block(&digest, path),
                        "blocks/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(archive_path_map(&digest, path),
                        "maps/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.map");
    assert_string_equal(archive_path_pack(&digest, path),
                        "packs/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.pack");
    assert_string_equal(archive_path_file(&digest, path),
                        "files/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(archive_path_manifest("debian12", "1", path), "images/debian12/1.json");
    assert_string_equal(archive_path_hints("debian12", "1", path), "images/debian12/1.hints.json");
    assert_int_equal(strlen(archive_path_hints(LONG_128, LONG_128, path)), 7 + 128 + 1 + 128 + 11);
}

static void locations_are_cut(void **state)
{
    static const struct {
        const char *text, *archive, *name, *version;
    } cases[] = {
        {"http://host/os/debian12", "http://host/os", "debian12", ""},
        {"http://host/os/debian12@20261121", "http://host/os", "debian12", "20261121"},
        {"http://host/os//debian12//", "http://host/os", "debian12", ""},
        {"http://host/debian12", "http://host", "debian12", ""},
        {"HTTPS://Host:8443/debian12", "https://Host:8443", "debian12", ""},
        {"http://[::1]:8080/os/d", "http://[::1]:8080/os", "d", ""},
        {"http://me:pass@host/os/d@1", "http://me:pass@host/os", "d", "1"},
        {"file:///srv/www/os/d", "file:///srv/www/os", "d", ""},
        {"file:///d", "file:///", "d", ""},
        {"/srv/www/os/d@1", "/srv/www/os", "d", "1"},
        {"/d", "/", "d", ""},
        {"./d", ".", "d", ""},
        {"a b/c d/e", "a b/c d", "e", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        auto_free char *again = location_format(cases[i].archive, cases[i].name, cases[i].version);
        const char *const texts[] = {cases[i].text, again};

        for (size_t k = 0; k < 2; k++) {
            struct location location;
            struct error error = ERROR_INIT;

            assert_int_equal(location_parse(texts[k], &location, &error), 0);
            assert_string_equal(location.archive, cases[i].archive);
            assert_string_equal(location.name, cases[i].name);
            assert_string_equal(location.version, cases[i].version);
            location_finish(&location);
        }
    }
}

static void an_archive_is_taken_whole(void **state)
{
    static const struct {
        const char *text, *archive, *folder;
    } cases[] = {
        {"http://host/os/debian12/", "http://host/os/debian12", NULL},
        {"http://host", "http://host", NULL},
        {"http://host/", "http://host", NULL},
        {"file:///srv/os/", "file:///srv/os", "/srv/os"},
        {"file://localhost/srv/os", "file://localhost/srv/os", "/srv/os"},
        {"file:///", "file:///", "/"},
        {"/", "/", "/"},
        {"os", "os", "os"},
        {"os//", "os", "os"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct location location;
        struct error error = ERROR_INIT;
        const char *folder;

        assert_int_equal(location_parse_archive(cases[i].text, &location, &error), 0);
        assert_string_equal(location.archive, cases[i].archive);
        assert_string_equal(location.name, "");
        folder = location_folder(location.archive);
        assert_int_equal(location_is_http(location.archive), !cases[i].folder);
        if (cases[i].folder)
            assert_string_equal(folder, cases[i].folder);
        else
            assert_null(folder);
        location_finish(&location);
    }
}

static void malformed_locations_are_refused(void **state)
{
    static const struct {
        const char *text, *refusal;
    } cases[] = {
        {"", "empty"},
        {"debian12", "no image name"},
        {"http://host", "no image name"},
        {"http://host/", "no image name"},
        {"/", "no image name"},
        {"http:///os/d", "no host"},
        {"http://:80/os/d", "no host"},
        {"http://me@/os/d", "no host"},
        {"http://[::1/os/d", "no host"},
        {"http://host:80a/d", "port is not a number"},
        {"http://host:999999/d", "port is not a number"},
        {"http://host:65536/d", "port is larger"},
        {"http://host:99999", "port is larger"},
        {"http://me:se/cret@host/d", "port is not a number"},
        {"http://host/os?x=1/d", "'?'"},
        {"http://host/o s/d", "' '"},
        {"ftp://host/d", "'ftp' is not a scheme"},
        {"nbd+unix:///x/d", "'nbd+unix' is not a scheme"},
        {"file://host/srv/d", "absolute path"},
        {"file://d", "absolute path"},
        {"http://host/os/\n", "\\x0a"},
        {"http://host/os/..", "does not begin"},
        {"/srv/os/d@", "version is empty"},
        {"/srv/os/@1", "name is empty"},
        {"/srv/os/d@1@2", "version '1@2'"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct location location;
        struct error error = ERROR_INIT;

        assert_int_equal(location_parse(cases[i].text, &location, &error), ERROR_INVALID);
        assert_null(location.archive);
        if (!strstr(error.message, cases[i].refusal))
            fail_msg("'%s': '%s' does not say '%s'", cases[i].text, error.message, cases[i].refusal);
        assert_null(strstr(error.message, "cret"));
    }
}

static void passwords_are_not_printed(void **state)
{
    static const struct {
        const char *archive, *redacted;
    } cases[] = {
        {"http://me:secret@host/os", "http://***@host/os"},
        {"http://me:se@cret@host/os", "http://***@host/os"},
        {"https://token@host", "https://***@host"},
        {"http://host/os@1", "http://host/os@1"},
        {"/srv/a@b", "/srv/a@b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        auto_free char *redacted = location_redact(cases[i].archive);

        assert_string_equal(redacted, cases[i].redacted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(paths_are_those_of_the_manual),
        cmocka_unit_test(locations_are_cut),
        cmocka_unit_test(an_archive_is_taken_whole),
        cmocka_unit_test(malformed_locations_are_refused),
        cmocka_unit_test(passwords_are_not_printed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
