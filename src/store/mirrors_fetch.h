/*
 * What mirrors.c and mirrors_fetch.c share: the mirrors with their standing, and
 * a request on its way (struct fetch). At any time one thread owns a fetch, or
 * the waiting list does; the lock guards what fetches share.
 */
#ifndef STORE_MIRRORS_FETCH_H
#define STORE_MIRRORS_FETCH_H

#include <pthread.h>

#include "store/mirrors.h"

enum {
    REASON_LENGTH = 160,
    PASS_ONLY = 1, /* patience_ms of a request that never waits */
};

struct mirror {
    struct source *source;
    uint64_t aside_until_ms;       /* gave wrong bytes */
    uint64_t unreachable_until_ms; /* asked last */
    uint64_t not_before_ms;        /* asked for so much rest (Retry-After) */
    unsigned unreachable_ms;       /* length of the last such while, 0: it answers */
    bool probing;                  /* it is being tried whether it answers again */
    char reason[REASON_LENGTH];    /* of the last failure */
    uint64_t requests, bytes, errors, missing, bad_blocks;
};

/* Why the last answer of a mirror was no good to a fetch. */
struct outcome {
    int code; /* 0: not asked yet */
    char reason[REASON_LENGTH];
};

/* Sets of mirrors, by index. */
typedef uint32_t mirror_set;

struct fetch {
    struct job job; /* first: a pointer to it is one to the fetch */
    struct fetch *next; /* in the waiting list */
    struct fetch *earlier, *later; /* of all under way */
    uint64_t started_ms;
    struct mirrors *mirrors;
    struct mirrors_request request;
    uint64_t deadline_ms;
    uint64_t wake_ms;   /* when the next round begins */
    unsigned pause_ms;  /* the last pause */
    unsigned current;   /* the mirror that is being asked */
    bool last_round;
    mirror_set asked;   /* in this round */
    mirror_set settled; /* not to be asked again */
    mirror_set fresh;   /* asked past caches, because an answer was corrupt */
    struct outcome *outcomes; /* MIRRORS_MAX, from the first failure on */
    struct buffer bytes;      /* an answer on its way to a worker */
    uint64_t delivered;       /* of a stream, to the caller */
    char path[];
};

struct mirrors {
    pthread_mutex_t lock; /* no callback under it; before the lock of the workers */
    pthread_cond_t timer_changed, idle;
    struct mirror all[MIRRORS_MAX];
    unsigned count;
    struct fetch *waiting;
    struct fetch *last_fetch; /* of those under way, the one that began last */
    unsigned under_way; /* fetches, waiting or not, and probes */
    uint32_t dice;
    bool stopping;

    struct http_client *client;
    struct workers *workers;
    unsigned patience_ms;
    pthread_t timer;
};

/* Do what is to be done next for FETCH, until it ends. MAY_BLOCK: this thread may read from a disk. */
void fetch_proceed(struct fetch *fetch, bool may_block);

#endif
