/* What curl's results mean: see engine_outcome.h. */
#include "net/engine_outcome.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/engine_facts.h"
#include "net/reason.h"

#define RETRY_AFTER_MAX_S 3600

/* For those that need no look at anything else. */
static const struct outcome {
    CURLcode result;
    int code;
    const char *reason; /* NULL: curl's own words */
} outcomes[] = {
    {CURLE_URL_MALFORMAT, ERROR_INVALID, "malformed URL"},
    {CURLE_COULDNT_RESOLVE_HOST, ERROR_UNAVAILABLE, "name unknown"},
    {CURLE_COULDNT_RESOLVE_PROXY, ERROR_UNAVAILABLE, "name of the proxy unknown"},
    {CURLE_GOT_NOTHING, ERROR_UNAVAILABLE, "connection closed without an answer"},
    {CURLE_WEIRD_SERVER_REPLY, ERROR_UNAVAILABLE, "the answer is not HTTP"},
    {CURLE_TOO_MANY_REDIRECTS, ERROR_INVALID, "too many redirects"},
    {CURLE_PEER_FAILED_VERIFICATION, ERROR_UNTRUSTED, NULL},
    {CURLE_SSL_ISSUER_ERROR, ERROR_UNTRUSTED, NULL},
    {CURLE_SSL_INVALIDCERTSTATUS, ERROR_UNTRUSTED, NULL},
    {CURLE_SSL_CACERT_BADFILE, ERROR_INVALID, "cannot use the file of trusted certificates"},
    {CURLE_SSL_CERTPROBLEM, ERROR_INVALID, "cannot use the client certificate"},
    {CURLE_OUT_OF_MEMORY, ERROR_SYSTEM, "no memory"},
};

static __attribute__((format(printf, 3, 4))) int tell(char *reason, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason, REASON_SIZE, format, arguments);
    va_end(arguments);
    return code;
}

static int by_table(CURLcode result, const char *message, char *reason)
{
    struct outcome outcome = {result, ERROR_UNAVAILABLE, NULL};
    const char *words = *message ? message : curl_easy_strerror(result);

    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
        if (outcomes[i].result == result)
            outcome = outcomes[i];
    return tell(reason, outcome.code, "%s", outcome.reason ? outcome.reason : words);
}

#define DIALLED_SIZE 300

/*
 * Whom EASY could not connect to, as "HOST:PORT" into TEXT, if that is not the URL's own host: then it is a proxy. Only
 * MESSAGE, curl's words, says that.
 */
static bool dialled_proxy(CURL *easy, const char *message, char text[DIALLED_SIZE])
{
    char host[256], *url = NULL, *url_host = NULL, *url_port = NULL;
    unsigned port;
    CURLU *parts;
    bool proxy;

    if (sscanf(message, "Failed to connect to %255s port %u", host, &port) != 2)
        return false;
    snprintf(text, DIALLED_SIZE, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    parts = curl_url();
    proxy = parts && !curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url) && url &&
            !curl_url_set(parts, CURLUPART_URL, url, 0) && !curl_url_get(parts, CURLUPART_HOST, &url_host, 0) &&
            !curl_url_get(parts, CURLUPART_PORT, &url_port, CURLU_DEFAULT_PORT) &&
            (strtoul(url_port, NULL, 10) != port || !strcasestr(url_host, host));
    curl_free(url_host);
    curl_free(url_port);
    curl_url_cleanup(parts);
    return proxy;
}

int engine_outcome(CURL *easy, CURLcode result, const char *message, unsigned connect_timeout_ms,
                   char reason[REASON_SIZE])
{
    const char *connection = reason_of_errno((int)engine_number(easy, CURLINFO_OS_ERRNO));
    long proxy_status = engine_number(easy, CURLINFO_HTTP_CONNECTCODE);
    char text[REASON_DURATION], dialled[DIALLED_SIZE];

    if (result == CURLE_COULDNT_CONNECT && dialled_proxy(easy, message, dialled))
        return tell(reason, ERROR_UNAVAILABLE, "the proxy %s: %s", dialled, connection ? connection : "no connection");
    if (result == CURLE_OPERATION_TIMEDOUT)
        return tell(reason, ERROR_UNAVAILABLE, "no connection within %s", reason_duration(connect_timeout_ms, text));
    if (result == CURLE_UNSUPPORTED_PROTOCOL && engine_number(easy, CURLINFO_REDIRECT_COUNT))
        return tell(reason, ERROR_INVALID, "redirected to where it must not lead");
    if (result == CURLE_UNSUPPORTED_PROTOCOL)
        return tell(reason, ERROR_UNAVAILABLE, "the answer is not HTTP");
    if (proxy_status >= 400)
        return tell(reason, proxy_status >= 500 ? ERROR_UNAVAILABLE : ERROR_INVALID,
                    "HTTP status %ld from the proxy", proxy_status);
    if (connection && (result == CURLE_COULDNT_CONNECT || result == CURLE_RECV_ERROR || result == CURLE_SEND_ERROR ||
                       result == CURLE_SSL_CONNECT_ERROR))
        return tell(reason, ERROR_UNAVAILABLE, "%s", connection);
    return by_table(result, message, reason);
}

uint64_t engine_retry_after_ms(CURL *easy)
{
    curl_off_t seconds = 0;

    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
    return seconds <= 0 ? 0 : min_u64((uint64_t)seconds, RETRY_AFTER_MAX_S) * 1000;
}
