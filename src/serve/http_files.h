/*
 * The HTTP server: the files below one folder, read-only, over plain HTTP/1.1.
 * http_files.c is the only file that knows libmicrohttpd.
 *
 * It serves an archive, or a cache as a mirror for others. No file is served
 * that lies outside the folder (symbolic links inside it are followed as long
 * as they stay inside), or whose path has a component that begins with a dot.
 */
#ifndef SERVE_HTTP_FILES_H
#define SERVE_HTTP_FILES_H

#include <stdint.h>

#include "base/error.h"

struct http_server;

struct http_server_settings {
    const char *folder;
    const char *listen;        /* "[ADDRESS]:PORT" or "PORT"; an IPv6 address in brackets; no address: all of them;
                                  port 0: any free one */
    unsigned thread_count;     /* 0: 8 */
    unsigned connection_limit; /* 0: as many as the process may have open, at most 4096 */
};

/* Serves until closed. INVALID (address), NOT_FOUND (folder), BUSY (port in use), SYSTEM. */
int http_server_open(const struct http_server_settings *settings, struct http_server **server_out,
                     struct error *error);
/* "http://127.0.0.1:8080"; all addresses are shown as the host's name. Borrowed. */
const char *http_server_url(const struct http_server *server);
/* Requests that were answered, and bytes of files sent or being sent. */
void http_server_count(const struct http_server *server, uint64_t *requests_out, uint64_t *bytes_out);
/* Breaks off what is being sent. Takes NULL. */
void http_server_close(struct http_server *server);

#endif
