/*
 * A source: a place that holds an archive, and from which unverified bytes come
 * by path. Either a web server or a folder.
 */
#ifndef STORE_SOURCE_H
#define STORE_SOURCE_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/priority.h"

struct http_client;
struct source;

struct source_result {
    int code; /* as struct http_response.code */
    const struct error *error; /* set when code is not 0; borrowed, as all below */
    const char *reason;        /* why, without the place; "" if code is 0 */
    const uint8_t *bytes;
    size_t size;
    struct buffer *body; /* where BYTES lies: who wants to keep it takes it and leaves it empty */
    uint64_t retry_after_ms;
    uint64_t first_byte_us; /* from the start of the transfer; 0: not known */
};

struct source_request {
    const char *path;    /* inside the archive, "blocks/ab/..."; copied. Not absolute, without ".." */
    uint64_t offset;
    uint64_t length;     /* 0: to the end */
    size_t size_limit;
    enum priority priority;
    bool fresh;
    bool range_only;     /* as in struct http_request, as the next four */
    bool reconnect;
    bool shared;
    unsigned more_soon;
    uint64_t tag;
    unsigned stall_timeout_ms;
    bool (*data)(void *user, const uint8_t *bytes, size_t size); /* optional, as in struct http_request */
    bool (*ready)(void *user); /* likewise; not asked for a folder's bytes */
    /* Once, on any thread, perhaps before fetch returns. */
    void (*done)(void *user, const struct source_result *result);
    void *user;
};

/*
 * ARCHIVE is an http(s) or file URL or a folder (made absolute here). CLIENT may be NULL for folders. Does not touch
 * the network; a folder that does not exist (yet, or for a while), or in which no archive is, as in the mount point of
 * one that is not mounted, is not an error here, but UNAVAILABLE when something is read.
 * Links in a folder are followed as long as they stay inside.
 */
int source_open(const char *archive, struct http_client *client, struct source **source_out, struct error *error);
void source_close(struct source *source); /* takes NULL; no request may be under way */

/* Is PATH one inside an archive: relative, no empty, "." or ".." component, no control characters? */
bool source_path_is_plain(const char *path);

/* A folder is read on the calling thread. */
void source_fetch(struct source *source, const struct source_request *request);

/* End what is under way with ERROR_CANCELLED, and wait for that. Not from a callback. */
void source_cancel(struct source *source);

/* The request with TAG (not 0) is not wanted any more: it ends with ERROR_CANCELLED, soon. A folder's goes on. */
void source_abandon(struct source *source, uint64_t tag);

/* For messages: the archive without credentials. */
const char *source_name(const struct source *source);
bool source_is_local(const struct source *source);

#endif
