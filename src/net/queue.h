/*
 * The waiting requests of each host, in the order of their priority, and how
 * many of a host may be under way. For one thread; no I/O.
 */
#ifndef NET_QUEUE_H
#define NET_QUEUE_H

#include <stdint.h>

#include "base/priority.h"
#include "net/url.h"

struct queue_host {
    struct queue_host *next;
    unsigned limit;  /* of requests under way; PRIORITY_READER may use them all, the others leave some */
    unsigned active; /* under way */
    bool suspect;    /* the last one stalled: do not reuse connections until one is answered */
    bool dead;       /* nothing at all came from it for long: fail what waits for it */
    bool first;      /* the first host ever asked */
    bool multiplexes; /* HTTP/2: the requests share a connection */
    uint64_t progress_ms; /* when anything last came from it */
    struct queue_item *heads[PRIORITY_COUNT];
    struct queue_item **tails[PRIORITY_COUNT];
    char name[URL_HOST_SIZE];
};

/* Embedded in what is queued. */
struct queue_item {
    struct queue_item *next;
    struct queue_host *host;
    enum priority priority;
};

struct queue {
    unsigned limit;  /* of a new host */
    bool no_readers; /* none that PRIORITY_READER would have to be kept free for */
    struct queue_host *hosts;
};

/* Frees the hosts; nothing may be waiting. */
void queue_finish(struct queue *queue);

/* The host with NAME (see url_host), made if it is new. NULL: no memory. */
struct queue_host *queue_host(struct queue *queue, const char *name);

/* Was anything ever asked of the host with NAME itself? */
bool queue_knows(const struct queue *queue, const char *name);

/* HOST was seen to speak HTTP/2: more may be under way. */
void queue_multiplexes(struct queue_host *host);

/* HOST and PRIORITY of ITEM are set. */
void queue_push(struct queue *queue, struct queue_item *item);

/* The next item that may start now, counted as active, or NULL. queue_done when it has ended. */
struct queue_item *queue_take(struct queue *queue);
void queue_done(struct queue_item *item);

/* Unlink all items for which MATCHES; returns them as a list. */
struct queue_item *queue_remove(struct queue *queue, bool (*matches)(const struct queue_item *item, const void *what),
                                const void *what);

#endif
