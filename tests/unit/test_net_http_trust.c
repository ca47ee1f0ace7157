/* Whom the HTTP client believes and what it tells whom: proxies, credentials, TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net_http_fixture.h"

/* ---- Proxies, credentials, TLS ---- */

static void a_proxy_is_used_but_for_hosts_that_are_excepted(void **state)
{
    struct http_client *with = make(&(struct http_settings){.proxy = liar.url, .no_proxy = "direct.invalid,127.0.0.1"});
    struct answer answer;

    (void)state;
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* the environment is the program's business, not ours */
    assert_int_equal(get(with, "http://somewhere.invalid", "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "proxied"), 1);
    assert_int_equal(get(with, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "proxied"), 1);
    assert_int_equal(get(with, "http://direct.invalid", "/small", &answer), ERROR_UNAVAILABLE);
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    unsetenv("http_proxy");
    http_client_destroy(with);
}

static void the_token_goes_to_the_first_host_only(void **state)
{
    struct http_client *with = make(&(struct http_settings){.bearer_token = "abc"});
    struct liar other;
    struct answer answer;
    char redirect[100];

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    assert_int_equal(get(with, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 1);
    assert_int_equal(get(with, other.url, "/small", &answer), 0);
    snprintf(redirect, sizeof(redirect), "redirect:%s/small", other.url);
    liar_tell(&liar, "big", redirect, 0);
    assert_int_equal(get(with, liar.url, "/big", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 2);
    assert_int_equal(liar_count(&other, "total"), 2);
    assert_int_equal(liar_count(&other, "authorized"), 0);
    liar_finish(&other);
    http_client_destroy(with);
}

static void credentials_of_a_url_stay_with_its_host(void **state)
{
    char url[100], redirect[100];
    struct liar other;
    struct answer answer;

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    snprintf(url, sizeof(url), "http://me:secret@127.0.0.1:%d", liar.port);
    snprintf(redirect, sizeof(redirect), "redirect:%s/small", other.url);
    assert_int_equal(get(client, url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 1);
    liar_tell(&liar, "big", redirect, 0);
    assert_int_equal(get(client, url, "/big", &answer), 0);
    assert_int_equal(liar_count(&other, "authorized"), 0);
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 2);
    liar_finish(&other);
}

/* Have an HTTPS server redirect to a plain one. */
static void redirect_over_tls(struct liar *secure, const char *url)
{
    char body[200], command[600];

    snprintf(body, sizeof(body), "{\"match\": \"big\", \"behaviour\": \"redirect:%s/small\"}", url);
    snprintf(command, sizeof(command),
             "printf 'POST /_control HTTP/1.1\\r\\nConnection: close\\r\\nContent-Length: %zu\\r\\n\\r\\n%s' | "
             "openssl s_client -quiet -connect 127.0.0.1:%d 2>/dev/null | grep -q ' 200 OK'",
             strlen(body), body, secure->port);
    assert_int_equal(system(command), 0);
}

static void tls_is_verified(void **state)
{
    char command[1000], certificate[128];
    struct http_client *with;
    struct liar secure;
    struct answer answer;

    (void)state;
    snprintf(certificate, sizeof(certificate), "%s/pair.pem", liar.folder);
    snprintf(
        command, sizeof(command),
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
        "-keyout %s -out %s.crt 2>/dev/null && cat %s.crt >>%s",
        certificate, certificate, certificate, certificate);
    if (system(command))
        skip();
    liar_start(&secure, certificate);
    liar_put(&secure, "big", content, SIZE);
    assert_int_equal(get(client, secure.url, "/big", &answer), ERROR_UNTRUSTED);
    assert_says(answer.error, "certificate");
    with = make(&(struct http_settings){.ca_file = certificate});
    assert_int_equal(get(with, secure.url, "/big", &answer), 0);
    redirect_over_tls(&secure, liar.url);
    assert_int_equal(get(with, secure.url, "/big", &answer), ERROR_INVALID);
    assert_says(answer.error, "redirected to where it must not lead");
    assert_int_equal(liar_count(&liar, "total"), 0);
    http_client_destroy(with);
    with = make(&(struct http_settings){.ca_file = "/nonexistent"});
    assert_int_equal(get(with, secure.url, "/big", &answer), ERROR_INVALID);
    http_client_destroy(with);
    liar_finish(&secure);
}

#define test(function) cmocka_unit_test_setup(function, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_proxy_is_used_but_for_hosts_that_are_excepted),
        test(the_token_goes_to_the_first_host_only),
        test(credentials_of_a_url_stay_with_its_host),
        test(tls_is_verified),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
