/* Certificates: see engine_certificate.h. */
#include "net/engine_certificate.h"

#include <openssl/ssl.h>

static int show_none(SSL *connection, void *unused)
{
    (void)unused;
    SSL_certs_clear(connection);
    return 1;
}

/* A TLS connection is about to be made, for the URL that EASY has come to. */
static CURLcode on_tls(CURL *easy, void *tls, void *user)
{
    const struct queue *asked = user;
    char name[URL_HOST_SIZE];
    const char *url = NULL;

    if (curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url) || !url || !url_host(url, name, sizeof(name)) ||
        !queue_knows(asked, name))
        SSL_CTX_set_cert_cb(tls, show_none, NULL);
    return CURLE_OK;
}

void engine_set_certificates(CURL *easy, const struct http_settings *settings, const struct queue *asked)
{
    if (settings->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, settings->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (!settings->client_certificate)
        return;
    curl_easy_setopt(easy, CURLOPT_SSLCERT, settings->client_certificate);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, asked);
    if (curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls)) /* a libcurl with another TLS library */
        curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
}
