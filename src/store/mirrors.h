/*
 * Mirrors: the sources of one archive as if they were one. Asks the one that is
 * expected to answer soonest, fails over, waits and tries again until the
 * patience is over, and asks the caller of each answer whether it is what it
 * should be.
 *
 * What never changes (blocks, packs, maps, files) comes from where it comes
 * soonest, as the traffic itself is measured; bulk work is spread over the
 * mirrors in proportion to their rates, and a little of it goes to those that
 * were idle, to see how fast they are. Catalogs and hints are asked for in the
 * order given, and so is everything before something is measured.
 *
 * A reader who waits longer than the 95th percentile of a mirror's last waits
 * gets a second request sent to the next best; the first right answer wins.
 * Such requests are at most a sixteenth of all.
 *
 * A mirror that gave a wrong block is named in the log and asked only when no
 * other is left; one whose copy of a pack is damaged likewise for that pack
 * alone. One that cannot be reached is asked last until it answers again, for
 * which it is probed in growing intervals (1 s to 60 s) while others serve. One
 * that asked for rest (Retry-After) gets it, unless a reader's
 * patience is over before. When all are set aside, all are tried.
 */
#ifndef STORE_MIRRORS_H
#define STORE_MIRRORS_H

#include <limits.h>

#include "base/workers.h"
#include "store/source.h"

struct mirrors;

/* CLIENT and WORKERS are borrowed and outlive the mirrors. */
int mirrors_create(struct http_client *client, struct workers *workers, unsigned patience_ms,
                   struct mirrors **mirrors_out, struct error *error);
/*
 * End all requests with ERROR_CANCELLED, those under way as soon as they can be, and every later one at once; for a
 * program that is told to stop. Does not wait.
 */
void mirrors_cancel(struct mirrors *mirrors);
/* As mirrors_cancel, and waits. Takes NULL. */
void mirrors_destroy(struct mirrors *mirrors);

/* Append a source; ARCHIVE as in source_open. A duplicate is ignored. At most MIRRORS_MAX. */
#define MIRRORS_MAX 32
int mirrors_add(struct mirrors *mirrors, const char *archive, struct error *error);
/*
 * Append one that unsigned hints name, unless it is not a web server, or not one with TLS while the first mirror is.
 * Failures are only logged.
 */
void mirrors_add_hinted(struct mirrors *mirrors, const char *archive);
size_t mirrors_count(struct mirrors *mirrors);
/* Is MIRROR (mirror_out of a stream) a folder, whose bytes come on a worker thread? */
bool mirrors_is_local(struct mirrors *mirrors, unsigned mirror);

/* What is known of one mirror since mirrors_create. */
enum mirror_state {
    MIRROR_IN_USE,
    MIRROR_RESTING,     /* it asked for rest (Retry-After) */
    MIRROR_UNREACHABLE, /* did not answer: asked last, and probed */
    MIRROR_DROPPED,     /* gave wrong bytes: asked only when no other is left */
};

#define MIRROR_URL_TEXT 1024
#define MIRROR_REASON_TEXT 160

struct mirror_statistics {
    char url[MIRROR_URL_TEXT]; /* without password, or the folder */
    bool local;                /* a folder */
    uint64_t requests;         /* answered or failed, hedges and probes included; not those that were cancelled */
    uint64_t bytes;            /* received */
    uint64_t errors;           /* requests that failed, but for NOT_FOUND */
    uint64_t missing;          /* NOT_FOUND */
    uint64_t bad_blocks;       /* answers that were refused */
    uint64_t hedges;           /* requests sent here because another mirror was slow */
    uint64_t hedges_won;       /* of these, those whose answer was the first */
    uint64_t first_byte_us;    /* from request to first byte, average of the last ones; 0: not measured yet */
    uint64_t slow_us;          /* 95th percentile of the last waits of readers; 0: not measured yet */
    uint64_t rate;             /* bytes a second while it was busy; 0: not measured yet */
    enum mirror_state state;
    uint64_t state_ms;                /* how long the state still lasts; 0: for the rest of the session, or IN_USE */
    char reason[MIRROR_REASON_TEXT];  /* of the state, or of the last failure; "": none */
};

/* "in use", "resting", "unreachable", "dropped" */
const char *mirror_state_name(enum mirror_state state);
/* Fill STATISTICS_OUT, which has room for MIRRORS_MAX, in the order given; returns how many. */
size_t mirrors_statistics(struct mirrors *mirrors, struct mirror_statistics *statistics_out);

/*
 * How long the quickest mirror that is in good standing, and has most of what it is asked for, takes to the first byte
 * of an answer; 0: none is measured yet.
 */
uint64_t mirrors_first_byte_us(struct mirrors *mirrors);

struct mirrors_request {
    const char *path; /* copied */
    uint64_t offset;
    uint64_t length;
    size_t size_limit;
    enum priority priority;
    bool fresh;
    bool range_only; /* LENGTH bytes are wanted of a large file: a server that ignores ranges is no good for that */
    bool shared;     /* see net/http.h, as the next one: */
    unsigned more_soon; /* so many requests are about to follow at once, probably to the same mirror */
    unsigned patience_ms; /* 0: the default of mirrors_create; 1: one pass over the mirrors and no waiting. A transfer
                             that makes no progress for so long (but at least a second) is given up, too */

    /*
     * Optional: bytes as they arrive, in order, from wherever they come; ACCEPT is then given none. When a stream
     * breaks the next mirror is asked for what is left, and the patience begins anew with each byte; one that has
     * broken eight times is given up (UNAVAILABLE). Called on the client's thread. Return false to break off
     * (CANCELLED).
     */
    bool (*data)(void *user, const uint8_t *bytes, size_t size);
    /*
     * Optional, with DATA: is there room for more bytes? While there is none the stream rests, and loses no patience.
     * Called on the client's thread; a folder's bytes come unasked, on a worker, which DATA may keep for as long as it
     * likes.
     */
    bool (*ready)(void *user);
    /* Optional: the mirror that the bytes come from which DATA or ACCEPT is about to be given; for mirrors_accuse. */
    unsigned *mirror_out;
    /*
     * Is this what was asked for? On a worker thread (or the caller's, for a folder). 0 accepts; any error
     * code refuses, is blamed on the mirror, and the next is asked. Not blamed for NOT_FOUND: there is nothing wrong
     * with it, but it is of no use. What is refused and looks like a web page counts as no answer.
     * ACCEPT keeps what it needs of the bytes.
     */
    int (*accept)(void *user, const uint8_t *bytes, size_t size, struct error *error);
    /*
     * Called exactly once, after an accepted answer (code 0), or with:
     * NOT_FOUND    every mirror says that it has no such file
     * CORRUPT      what mirrors have was refused, also when asked again past any cache
     * UNAVAILABLE  patience is over; the message names path, mirrors and the last reason of each
     *              - or at once, if no mirror is worth waiting for because of TLS, or of 401, 403 and the like
     * INVALID      PATH is not one inside an archive
     * CANCELLED    mirrors_cancel or mirrors_destroy
     */
    void (*done)(void *user, int code, const struct error *error);
    void *user;
};

void mirrors_fetch(struct mirrors *mirrors, const struct mirrors_request *request);

/*
 * A reader waits for what a request of another priority whose USER this is asked for: its answer is looked at as a
 * reader's, and when none comes for long, another one is asked for. Nothing if there is no such request any more.
 */
void mirrors_hurry(struct mirrors *mirrors, const void *user);

/*
 * What MIRROR (mirror_out of a request) sent of PATH, a pack, is wrong, for REASON: it is asked for that file only when
 * no other is left, and its streams of it go on from another mirror, if there is one in good standing. Its other files
 * may be as they should; a wrong block tells. True: it is the mirror's copy that is to blame, as far as is known.
 * False: there is no other, or another one's was damaged too, which is more likely the publisher's fault; or
 * MIRROR_SEVERAL, the bytes came from more than one. The log names the file once.
 */
#define MIRROR_SEVERAL UINT_MAX
bool mirrors_accuse(struct mirrors *mirrors, unsigned mirror, const char *path, const char *reason);

/* A request that has not ended. */
struct mirrors_wait {
    const char *path;
    enum priority priority;
    uint64_t age_ms;
    const char *mirror; /* that it was last turned to; NULL: none yet */
    const char *reason; /* why that one's last answer was no good; "": it has not answered yet */
};

/*
 * For statistics: VISIT every request under way, the oldest last. Under the lock of the mirrors: VISIT copies what it
 * needs and calls nothing of theirs.
 */
void mirrors_each_under_way(struct mirrors *mirrors, void (*visit)(void *user, const struct mirrors_wait *wait),
                            void *user);

/* As mirrors_fetch, and wait. */
int mirrors_fetch_wait(struct mirrors *mirrors, const struct mirrors_request *request, struct error *error);

#endif
