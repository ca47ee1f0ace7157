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
    struct error error;
    const uint8_t *bytes; /* borrowed for the call */
    size_t size;
    uint64_t retry_after_ms;
};

struct source_request {
    const char *path;    /* inside the archive, "blocks/ab/..."; copied */
    uint64_t offset;
    uint64_t length;     /* 0: to the end */
    size_t size_limit;
    enum priority priority;
    bool fresh;
    unsigned stall_timeout_ms; /* 0: the default */
    void (*done)(void *user, const struct source_result *result); /* once, on any thread, perhaps before fetch returns */
    void *user;
};

/*
 * ARCHIVE is an http(s) or file URL or a folder. CLIENT may be NULL for folders. Does not touch the network; a
 * folder that does not exist yet is not an error here.
 */
int source_open(const char *archive, struct http_client *client, struct source **source_out, struct error *error);
void source_close(struct source *source); /* takes NULL; no request may be under way */

void source_fetch(struct source *source, const struct source_request *request);

/* For messages: the archive without credentials. */
const char *source_name(const struct source *source);
bool source_is_local(const struct source *source);

#endif
