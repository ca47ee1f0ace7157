/*
 * URLs, as far as this program looks into them: which host a request goes to,
 * what of a URL may be shown, and percent-encoding. libcurl does the rest.
 */
#ifndef NET_URL_H
#define NET_URL_H

#include <stdbool.h>
#include <stddef.h>

/*
 * "scheme://host:port" of an http or https URL, in lower case and without credentials, into HOST. False if it is
 * not such a URL, has no host, holds spaces or control characters, or does not fit.
 */
bool url_host(const char *url, char *host, size_t size);
#define URL_HOST_SIZE 300

/* True for "https://...". */
bool url_is_secure(const char *url);

/* URL without user, password, query and fragment, cut to SIZE. Returns TEXT. */
char *url_redact(const char *url, char *text, size_t size);

/* %XX to bytes; OUT holds strlen(TEXT) + 1. False on a malformed or zero %XX. */
bool url_decode(const char *text, char *out);

/* A path for a URL: all but letters, digits and "-._~/" becomes %XX; OUT holds 3 * strlen(PATH) + 1. */
void url_encode_path(const char *path, char *out);

#endif
