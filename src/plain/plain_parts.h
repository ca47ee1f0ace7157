/*
 * The insides that plain.c (opening), slices.c (reading), fetch.c (asking the
 * server), whole.c (everything at once) and count.c (statistics) share.
 */
#ifndef PLAIN_PLAIN_PARTS_H
#define PLAIN_PLAIN_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/workers.h"
#include "image/readahead.h"
#include "plain/keep.h"
#include "plain/plain.h"

#define SLICE_SIZE   (128 * KIB)
#define MEMORY_BYTES (16 * MIB) /* slices in memory, so that what is read ahead is there even without a cache */
#define SLICE_BUCKETS 256

/* One read of a user, cut at slices. */
struct reading {
    struct plain *plain;
    void (*done)(void *user, ssize_t result, const struct error *error);
    void *user;
    size_t size;
    _Atomic uint64_t left; /* pieces */
    _Atomic int code;      /* of the first that failed, */
    struct error error;    /* and why */
};

struct piece {
    struct piece *next;
    struct reading *reading;
    uint8_t *to;
    uint32_t skip, size; /* in the slice */
    uint64_t since_us;
};

/* A slice in memory, or on its way there. */
struct slice {
    struct job job; /* first */
    struct plain *plain;
    uint64_t index;
    struct slice *next;            /* in its bucket */
    struct slice *newer, *older;   /* ready ones by use */
    struct slice *resting;         /* the next that waits to be asked for again */
    bool ready;
    unsigned pins;
    struct piece *pieces;          /* waiting */
    struct buffer bytes;
    enum priority priority;
    unsigned attempts;
    uint64_t waited_ms;            /* since when somebody waits for it */
    uint64_t retry_ms;
    bool hidden;                   /* not in the table any more */
    bool asked;                    /* the server was; otherwise it is looked for in what is kept */
    bool redirected;               /* asked where the first answer came from, not at the URL itself */
    struct http_facts facts;
};

struct plain {
    struct plain_settings settings;
    char *url;
    char shown[PLAIN_URL_SIZE];
    char name[PLAIN_NAME_SIZE];
    char *path; /* of a local file */
    int local_fd;
    uint64_t size, slice_count;
    struct http_facts bound; /* what every answer must agree with */
    bool serves_ranges;
    int64_t modified;
    struct keep *keep;       /* NULL: nothing is kept */
    atomic_flag warned;
    struct digest *checked;  /* of each slice, once the whole was checked */

    pthread_mutex_t lock;    /* a leaf; over the rest */
    pthread_cond_t changed;
    struct slice *buckets[SLICE_BUCKETS];
    struct slice *newest, *oldest;
    uint64_t ready_count;
    uint64_t under_way;      /* slices that are not ready */
    struct slice *resting;
    struct readahead readahead;
    char near[sizeof(((struct http_facts *)0)->url)]; /* where redirects led; "": the URL itself */
    bool cancelled, stopping;
    struct error gone;       /* code is not 0: the server has another file now */
    pthread_t thread;
    bool has_thread;
    char reason[PLAIN_REASON_SIZE]; /* why the server's last answer was no good; "": it was */
    _Atomic uint64_t memory_hits, kept_hits, fetched, fetched_bytes, damaged, failed;
    _Atomic uint64_t reads, read_bytes, errors, wait_us, waits[STATISTICS_BUCKETS];
};

static inline size_t slice_length(const struct plain *plain, uint64_t index)
{
    return (size_t)min_u64(SLICE_SIZE, plain->size - index * SLICE_SIZE);
}

/* ---- slices.c ---- */

/* Its bytes are here and what they should be: give them to who waits. */
void slice_ready(struct slice *slice);
/* With the lock held: who comes from now on finds nothing, and asks anew. */
void slice_hide(struct slice *slice);
/* Give up: who waits gets ERROR. */
void slice_failed(struct slice *slice, const struct error *error);
/* Forget what is in memory. Nothing may be under way. */
void slices_drop(struct plain *plain);

/* ---- count.c ---- */

/* The end of the wait for a slice from the server. */
void count_wait(struct plain *plain, const struct piece *piece);
/* What became of a question to the server; NULL: it was answered. */
void count_answer(struct plain *plain, const struct error *error);

/* ---- fetch.c ---- */

/* Ask the server for SLICE, again and again; ends in slice_ready or slice_failed. */
void slice_fetch(struct slice *slice);
/* The thread that asks again. */
void *fetch_main(void *plain);

/* 0, or CHANGED if FACTS are not of the file that PLAIN is bound to. */
int fetch_compare(const struct plain *plain, const struct http_facts *facts, struct error *error);

/* For opening: ask for the first byte, for the sake of FACTS; again for up to 5 s of a server that is unavailable. */
int fetch_first(struct plain *plain, struct http_facts *facts, struct error *error);

/* ---- whole.c ---- */

/* Fetch everything in one stream, for a server without ranges. */
int whole_fetch(struct plain *plain, struct error *error);

#endif
