/*
 * What the files mirrors*.c share: the mirrors with their standing, a request
 * on its way (struct fetch), and its one or two questions to mirrors (struct
 * attempt). While no attempt is under way, one thread owns a fetch, or the
 * waiting list does; what attempts share is under the lock.
 */
#ifndef STORE_MIRRORS_PARTS_H
#define STORE_MIRRORS_PARTS_H

#include <pthread.h>
#include <sys/queue.h>

#include "store/mirrors.h"
#include "store/mirrors_rank.h"

enum {
    PASS_ONLY = 1, /* patience_ms of a request that never waits */
    ATTEMPTS_MAX = 2,
};

struct mirror {
    struct source *source;
    uint64_t aside_until_ms;       /* gave wrong bytes; UINT64_MAX: for ever */
    uint64_t unreachable_until_ms; /* asked last */
    uint64_t not_before_ms;        /* asked for so much rest (Retry-After) */
    unsigned unreachable_ms;       /* length of the last such while, 0: it answers */
    bool probing;                  /* it is being tried whether it answers again, or how fast */
    struct measure measure;
    char reason[MIRROR_REASON_TEXT]; /* of the last failure */
    uint64_t requests, bytes, errors, missing, bad_blocks, hedges, hedges_won;
};

/* Why the last answer of a mirror was no good to a fetch. */
struct outcome {
    int code; /* 0: not asked yet */
    char reason[MIRROR_REASON_TEXT];
};

/* Sets of mirrors, by index. */
typedef uint32_t mirror_set;

/* A pack whose frames some mirrors have sent damaged. */
struct damaged {
    SLIST_ENTRY(damaged) entry;
    mirror_set mirrors;
    char path[];
};

/* One question to one mirror. */
struct attempt {
    struct job job; /* first: a pointer to it is one to the attempt */
    struct attempt *next; /* in a list of those to launch */
    struct fetch *fetch;
    unsigned mirror;
    bool under_way;
    bool held;      /* its answer is in BYTES and waits for the verdict on the other's */
    bool hedge;     /* asked because the other one is slow */
    bool reconnect; /* the same mirror again, on a connection of its own */
    bool last_resort; /* its mirror had given wrong bytes before */
    bool deserted;  /* a stream that was broken off because its mirror gives wrong bytes */
    uint64_t tag;   /* for source_abandon */
    uint64_t size;  /* a guess */
    uint64_t sent_us;
    uint64_t delivered; /* of the stream, before this attempt */
    struct buffer bytes;
};

struct fetch {
    struct fetch *next; /* in the waiting list */
    struct fetch *earlier, *later; /* of all under way */
    uint64_t started_ms;
    struct mirrors *mirrors;
    struct mirrors_request request;
    bool ranked;        /* what it asks for never changes: any mirror will do */
    uint64_t deadline_ms;
    uint64_t wake_ms;   /* when the next round begins */
    unsigned pause_ms;  /* the last pause */
    unsigned current;   /* the mirror that was chosen last */
    bool last_round;
    mirror_set asked;   /* in this round */
    mirror_set settled; /* not to be asked again */
    mirror_set fresh;   /* asked past caches, because an answer was corrupt */
    struct outcome *outcomes; /* MIRRORS_MAX, from the first failure on */
    uint64_t delivered;       /* of a stream, to the caller */
    unsigned break_count;     /* times that it broke in the middle */

    struct attempt attempts[ATTEMPTS_MAX];
    unsigned under_way; /* attempts */
    bool judging;       /* ACCEPT is being asked */
    bool hurried;       /* its answers are judged as a reader's */
    bool ended;         /* DONE was called, or is about to be */
    int broken;         /* the code with which it ends, if it must not go on */
    struct fetch *hedge_later, **hedge_link; /* in the list of those that may be hedged; hedge_link NULL: it is not */
    uint64_t hedge_ms;  /* when the reader has waited long enough */
    char path[];
};

struct mirrors {
    pthread_mutex_t lock; /* no callback under it; before the lock of the workers */
    pthread_cond_t timer_changed, idle;
    struct mirror all[MIRRORS_MAX];
    unsigned count;
    struct fetch *waiting;
    struct fetch *hedgeable;
    SLIST_HEAD(, damaged) damaged;
    unsigned damaged_count;
    struct fetch *last_fetch; /* of those under way, the one that began last */
    uint64_t timer_ms;  /* when the timer wakes by itself */
    unsigned under_way; /* fetches, waiting or not, and probes */
    uint64_t last_tag;
    struct allowance hedging, exploring;
    uint32_t dice;
    bool stopping;

    struct http_client *client;
    struct workers *workers;
    unsigned patience_ms;
    pthread_t timer;
};

static inline mirror_set mirror_bit(unsigned index)
{
    return UINT32_C(1) << index;
}

/* Nobody waits for what is asked for just now. */
static inline bool fetch_is_bulk(const struct fetch *fetch)
{
    return fetch->request.priority != PRIORITY_READER || fetch->request.data;
}

/* ---- mirrors.c ---- */

/* One thing less is under way. After this the mirrors may be gone. */
void mirrors_leave(struct mirrors *mirrors);
/* Let the timer look again if it would sleep longer than until MS. Under the lock. */
void mirrors_wake_timer(struct mirrors *mirrors, uint64_t ms);

/* ---- mirrors_fetch.c: the way of a request from mirror to mirror ---- */

/* Do what is to be done next for FETCH, until it ends. MAY_BLOCK: this thread may read from a disk. */
void fetch_proceed(struct fetch *fetch, bool may_block);
/* Tell the caller. Not again, and FETCH lives until its last attempt is over. */
void fetch_end(struct fetch *fetch, int code);
void fetch_release(struct fetch *fetch);
/* Of the mirrors in AMONG, the one to ask next; -1: none is worth it now. Under the lock. */
int fetch_choose(const struct fetch *fetch, mirror_set among, uint64_t now_ms);

/* ---- mirrors_attempt.c: one question and its answer ---- */

/* Ask the current mirror; under the lock. attempt_launch, not under it, follows. */
struct attempt *attempt_begin(struct fetch *fetch, uint64_t now_us);
void attempt_launch(struct attempt *attempt, bool may_block);
/* A reader has come to wait for FETCH. Under the lock. */
void attempt_hurry(struct fetch *fetch, uint64_t now_ms);
/*
 * Begin the hedges whose time has come: a list by NEXT, to be launched. *NEXT_MS: when others are due. Under the lock.
 */
struct attempt *attempt_hedge_due(struct mirrors *mirrors, uint64_t now_ms, uint64_t *next_ms);

/* ---- mirrors_standing.c: what answers mean for the mirror that gave them ---- */

/* The lower the earlier it is asked; at most STANDING_WORST. Under the lock, as those below. */
enum { STANDING_GOOD, STANDING_UNREACHABLE, STANDING_ASIDE, STANDING_WORST = STANDING_ASIDE };
int standing_of(const struct mirror *mirror, uint64_t now_ms);
/* The mirror is asked last for a while. True if that is news. */
bool standing_unreachable(struct mirror *mirror, uint64_t retry_after_ms, uint64_t now_ms);
/* It gave wrong bytes; a block's have no excuse. True if that is news. */
bool standing_aside(struct mirror *mirror, bool for_ever, uint64_t now_ms);
/* Those that are known to have the file at PATH damaged, which says nothing of their other files. */
mirror_set standing_damaged(const struct mirrors *mirrors, const char *path);
/* It has. The set as above; empty: it cannot be remembered. */
mirror_set standing_add_damaged(struct mirrors *mirrors, unsigned index, const char *path);
/* The standing of a mirror for FETCH. */
int standing_for(const struct fetch *fetch, unsigned index, uint64_t now_ms);
/* It answered. True if that is news; then those who wait for it are let go on. */
bool standing_reachable(struct mirrors *mirrors, unsigned index, uint64_t now_ms);
/* While the current mirror of FETCH serves, look after those that nobody has heard from. */
void standing_probe_others(const struct fetch *fetch, uint64_t now_ms);

#endif
