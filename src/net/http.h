/*
 * The HTTP client: many requests under way at once on one thread, in the order
 * of their priority. Only the engine (engine.h) knows libcurl.
 *
 * Threads: every function may be called from any thread. Callbacks run on the
 * client's own thread and must not block; they may call http_fetch.
 */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/priority.h"

struct http_client;

/* Zero means the default in brackets. Strings are copied. */
struct http_settings {
    unsigned connections_per_host; /* [96]; a few are kept for PRIORITY_READER. HTTP/2: streams of one connection, at
                                      least 96 */
    bool no_readers;               /* nobody waits for single blocks: bulk may have all connections */
    unsigned stall_timeout_ms;     /* a transfer without progress for this long fails [10000] */
    unsigned connect_timeout_ms;   /* [5000] */
    uint64_t rate_limit;           /* bytes a second over all transfers [0: none] */
    const char *ca_file;           /* PEM, in place of the system's [NULL] */
    const char *client_certificate;/* PEM with key [NULL] */
    const char *proxy;             /* URL; NULL: none. The caller passes what the environment says: */
    const char *no_proxy;          /* comma-separated hosts that are reached directly */
    const char *https_proxy;
    const char *bearer_token;      /* sent to the host of the client's first request only: not to mirrors on other
                                      hosts, never after a redirect to another */
};

int http_client_create(const struct http_settings *settings, struct http_client **client_out, struct error *error);

/* Cancels what is under way (each done callback is called with ERROR_CANCELLED), then ends the thread. Takes NULL. */
void http_client_destroy(struct http_client *client);

struct http_response {
    int code;                /* 0, or an error code:
                                NOT_FOUND    404 or 410
                                UNAVAILABLE  refused, no route, name unknown, stalled, reset, cut off, 5xx, 429, 408
                                CORRUPT      longer than size_limit, or range answered wrongly
                                CANCELLED    see http_cancel, http_client_destroy, and data below
                                UNTRUSTED    TLS verification failed
                                INVALID      malformed URL, or 401/403/other 4xx
                                UNSUPPORTED  see range_only */
    struct error error;      /* names the URL (redacted) and the reason, when code is not 0 */
    const char *reason;      /* the part of error.message behind the URL: "HTTP status 503"; "" without error */
    long status;             /* HTTP status, 0 if there was no response */
    const uint8_t *bytes;    /* the body, borrowed for the call; already cut to the range that was asked for */
    size_t size;
    struct buffer *body;     /* where BYTES lies; who wants to keep it without a copy takes it and leaves it empty.
                                NULL with a data callback */
    uint64_t retry_after_ms; /* from Retry-After on 429 and 503, 0 if none; at most an hour */
    uint64_t first_byte_us;  /* from the start of the transfer (not of queueing) */
    uint64_t total_us;
};

/* What the header of a response says of the object as a whole. "": not said, or longer than anybody's. */
#define HTTP_SIZE_UNKNOWN UINT64_MAX
struct http_facts {
    uint64_t object_size;   /* bytes, or HTTP_SIZE_UNKNOWN */
    bool ignores_ranges;    /* a range was asked for, and everything is sent */
    char etag[256];         /* with its quotes */
    char last_modified[64];
    char url[2048];         /* where redirects led; "": nowhere else */
};

struct http_request {
    const char *url;      /* copied */
    uint64_t offset;      /* first byte wanted; a server that ignores ranges is coped with: */
    uint64_t length;      /* bytes wanted, 0: to the end. A body that ends early because the object does is
                             not an error: fewer bytes arrive, none at all for an offset at or behind the end
                             (status 416). A server that ignores ranges is broken off after the last wanted byte. */
    size_t size_limit;    /* refuse a body (after cutting) over this many bytes; 0: no limit */
    enum priority priority;
    bool fresh;           /* ask caches on the way to revalidate */
    bool range_only;      /* a server that ignores ranges is not coped with, but UNSUPPORTED */
    unsigned stall_timeout_ms; /* 0, or longer than the client's: the client's */
    bool reconnect;       /* on a connection of its own: those that are open may be dead */
    bool shared;          /* one that ends is to take over a part of another, at its rate: while these are under way, of
                             the connections that nobody uses only the last used is kept. Libcurl would take the
                             oldest, and the window of one that has idled is closed again (RFC 5681, 4.1) */
    unsigned more_soon;   /* so many requests to this host are about to follow at once: if a connection has to be made,
                             others are made beside it, for them, as far as the limit allows. Not with TLS, where one
                             may serve for all (HTTP/2), nor where a redirect leads */
    const void *owner;    /* for http_cancel; may be NULL */
    uint64_t tag;         /* for http_abandon; 0: none */
    struct http_facts *facts; /* optional: filled in before DATA or DONE is called, also for most failures */

    /*
     * Optional: bytes as they arrive, in order; response.bytes is then empty. Return false to break off
     * (ERROR_CANCELLED).
     */
    bool (*data)(void *user, const uint8_t *bytes, size_t size);
    /*
     * Optional, with DATA: is there room for more bytes? While there is none the transfer rests, without counting as
     * stalled; asked again every few milliseconds.
     */
    bool (*ready)(void *user);
    /* Called exactly once. */
    void (*done)(void *user, const struct http_response *response);
    void *user;
};

/*
 * Queue a request. Never blocks, never fails: what goes wrong arrives in DONE (which may be called before this
 * returns).
 */
void http_fetch(struct http_client *client, const struct http_request *request);

/*
 * End every request of OWNER, queued or under way, with ERROR_CANCELLED. When this returns, done has been called for
 * each request that was made before. Not from a callback.
 */
void http_cancel(struct http_client *client, const void *owner);

/*
 * The request of OWNER with TAG is not wanted any more: it ends with ERROR_CANCELLED unless it ends before. Returns at
 * once, also in a callback.
 */
void http_abandon(struct http_client *client, const void *owner, uint64_t tag);

/* For statistics: bytes of bodies received, requests answered since creation; of each class. */
struct http_counts {
    uint64_t bytes[PRIORITY_COUNT];
    uint64_t requests[PRIORITY_COUNT];
};
void http_client_count(struct http_client *client, struct http_counts *counts_out);

#endif
