/* URLs: the host, what may be shown, percent-encoding. */
#include "net/url.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"

/* The host part "user:password@host:port" begins at the returned place and has *LENGTH_OUT characters. */
static const char *find_authority(const char *url, size_t *length_out)
{
    const char *authority = strstr(url, "://");

    if (!authority)
        return NULL;
    authority += 3;
    *length_out = strcspn(authority, "/?#");
    return authority;
}

/* The part behind the last "@" of an authority. */
static const char *skip_credentials(const char *authority, size_t *length)
{
    const char *at = memrchr(authority, '@', *length);

    if (!at)
        return authority;
    *length -= (size_t)(at + 1 - authority);
    return at + 1;
}

bool url_is_secure(const char *url)
{
    return !strncasecmp(url, "https://", 8);
}

bool url_host(const char *url, char *host, size_t size)
{
    size_t scheme = url_is_secure(url) ? 8 : 7, length = 0;
    const char *authority;

    if (scheme == 7 && strncasecmp(url, "http://", 7))
        return false;
    for (const char *at = url; *at; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return false;
    authority = find_authority(url, &length);
    authority = skip_credentials(authority, &length);
    if (length == 0 || authority[0] == ':' || scheme + length >= size)
        return false;
    memcpy(host, url, scheme);
    memcpy(host + scheme, authority, length);
    host[scheme + length] = '\0';
    for (char *at = host; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return true;
}

char *url_redact(const char *url, char *text, size_t size)
{
    size_t length, tail;
    const char *authority = find_authority(url, &length), *host;

    if (!authority) {
        snprintf(text, size, "%s", url);
        return text;
    }
    host = skip_credentials(authority, &length);
    tail = length + strcspn(host + length, "?#");
    snprintf(text, size, "%.*s%.*s", (int)(authority - url), url, (int)tail, host);
    return text;
}

bool url_decode(const char *text, char *out)
{
    for (; *text; text++) {
        uint8_t byte;

        if (*text != '%') {
            *out++ = *text;
            continue;
        }
        if (!percent_decode(text, &byte) || byte == 0)
            return false;
        *out++ = (char)byte;
        text += 2;
    }
    *out = '\0';
    return true;
}

void url_encode_path(const char *path, char *out)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *path; path++) {
        unsigned char byte = (unsigned char)*path;

        if (isascii(byte) && (isalnum(byte) || strchr("-._~/", byte))) {
            *out++ = *path;
        } else {
            *out++ = '%';
            *out++ = digits[byte >> 4];
            *out++ = digits[byte & 15];
        }
    }
    *out = '\0';
}
