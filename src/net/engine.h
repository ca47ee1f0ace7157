/*
 * The engine: transfers under way, driven by libcurl. The engine's files alone
 * know it. For the client's one thread.
 */
#ifndef NET_ENGINE_H
#define NET_ENGINE_H

#include "net/http.h"
#include "net/poller.h"
#include "net/queue.h"

/* One request, from http_fetch to its done. */
struct transfer {
    struct queue_item item; /* first: a pointer to it is one to the transfer */
    struct http_request request;
    char url[];
};

/* Which transfers are meant. */
struct selection {
    const void *owner; /* NULL: of all owners */
    uint64_t tag;      /* 0: with any tag */
};

static inline bool transfer_is_selected(const struct transfer *transfer, const struct selection *selection)
{
    return (!selection->owner || transfer->request.owner == selection->owner) &&
           (!selection->tag || transfer->request.tag == selection->tag);
}

/* In http.c: call done, with RESPONSE's error and reason filled in, and release the transfer. */
void transfer_end(struct transfer *transfer, struct http_response *response, const char *reason);
/* The same for one that never started. */
void transfer_fail(struct transfer *transfer, int code, const char *reason);

struct engine;

struct engine_counts {
    _Atomic uint64_t bytes[PRIORITY_COUNT];
    _Atomic uint64_t requests[PRIORITY_COUNT];
};

/* SETTINGS has no zeros left where a default is meant; it, QUEUE, POLLER and COUNTS are borrowed. */
int engine_create(const struct http_settings *settings, const struct queue *queue, struct poller *poller,
                  struct engine_counts *counts, struct engine **engine_out, struct error *error);
/* Nothing may be under way. Takes NULL. */
void engine_destroy(struct engine *engine);

/* Start a transfer that queue_take gave; the engine calls queue_done and ends it. */
void engine_start(struct engine *engine, struct transfer *transfer);

/*
 * One turn: wait until something can be done (not at all if BUSY, else until poller_wake at the latest), and do it.
 * True if a host was found dead (see struct queue_host).
 */
bool engine_turn(struct engine *engine, bool busy);

/* End the transfers of SELECTION with ERROR_CANCELLED. */
void engine_cancel(struct engine *engine, const struct selection *selection);

#endif
