/* URLs: the host that a request goes to, what of them may be shown, percent escapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "net/url.h"

static void hosts_are_found_without_credentials(void **state)
{
    static const struct {
        const char *url, *host; /* NULL: refused */
    } cases[] = {
        {"http://host", "http://host"},
        {"HTTP://Host:8080/Path?q#f", "http://host:8080"},
        {"https://host/", "https://host"},
        {"https://[::1]:8443/x", "https://[::1]:8443"},
        {"http://me:secret@host/x", "http://host"},
        {"http://me@elsewhere@host/x", "http://host"},
        {"http://host/a@b", "http://host"},
        {"http://host?a@b", "http://host"},
        {"http://host#@b", "http://host"},
        {"", NULL},
        {"host", NULL},
        {"ftp://host", NULL},
        {"http:/host", NULL},
        {"http://", NULL},
        {"http:///path", NULL},
        {"http://me@", NULL},
        {"http://:80/", NULL},
        {"http://ho st/", NULL},
        {"http://host/a b", NULL},
        {"http://host/\r\nX-Header: 1", NULL},
        {"http://host\x7f", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char host[URL_HOST_SIZE] = "";
        bool taken = url_host(cases[i].url, host, sizeof(host));

        if (taken != (cases[i].host != NULL) || strcmp(host, taken ? cases[i].host : ""))
            fail_msg("'%s': %d, '%s'", cases[i].url, taken, host);
    }
}

static void a_host_that_does_not_fit_is_refused(void **state)
{
    char host[sizeof("http://abc")];

    (void)state;
    assert_true(url_host("http://abc/", host, sizeof(host)));
    assert_string_equal(host, "http://abc");
    assert_false(url_host("http://abcd/", host, sizeof(host)));
}

static void secrets_are_not_shown(void **state)
{
    static const struct {
        const char *url, *shown;
    } cases[] = {
        {"http://host/os", "http://host/os"},
        {"http://me:secret@host/os", "http://host/os"},
        {"http://me:sec@ret@host:80", "http://host:80"},
        {"http://host/os?token=secret", "http://host/os"},
        {"http://host?token=secret", "http://host"},
        {"http://host/os#secret", "http://host/os"},
        {"/srv/os?a@b", "/srv/os?a@b"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];

        assert_string_equal(url_redact(cases[i].url, text, sizeof(text)), cases[i].shown);
    }
}

static void paths_are_decoded_or_refused(void **state)
{
    static const struct {
        const char *text, *decoded; /* NULL: refused */
    } cases[] = {
        {"", ""},
        {"/srv/os", "/srv/os"},
        {"/a%20b%2Fc%2f", "/a b/c/"},
        {"%41%42", "AB"},
        {"%2541", "%41"}, /* once, not twice */
        {"%ff", "\xff"},
        {"a+b", "a+b"},
        {"%", NULL},
        {"a%", NULL},
        {"a%4", NULL},
        {"%4g", NULL},
        {"%%41", NULL},
        {"% 1", NULL},
        {"%-1", NULL},
        {"a%00b", NULL},
        {"%00", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[64];
        bool taken = url_decode(cases[i].text, out);

        if (taken != (cases[i].decoded != NULL) || (taken && strcmp(out, cases[i].decoded)))
            fail_msg("'%s': %d, '%s'", cases[i].text, taken, taken ? out : "");
    }
}

static void any_path_survives_a_url(void **state)
{
    char path[256], encoded[3 * sizeof(path)], again[sizeof(encoded)];

    (void)state;
    for (int i = 0; i < 255; i++)
        path[i] = (char)(i + 1);
    path[255] = '\0';
    url_encode_path(path, encoded);
    assert_int_equal(strspn(encoded, "%-._~/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
                     strlen(encoded));
    assert_true(url_decode(encoded, again));
    assert_string_equal(again, path);
    url_encode_path("images/a b+c~1.json", encoded);
    assert_string_equal(encoded, "images/a%20b%2Bc~1.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_found_without_credentials),
        cmocka_unit_test(a_host_that_does_not_fit_is_refused),
        cmocka_unit_test(secrets_are_not_shown),
        cmocka_unit_test(paths_are_decoded_or_refused),
        cmocka_unit_test(any_path_survives_a_url),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
