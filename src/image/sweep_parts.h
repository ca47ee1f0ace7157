/* The insides of a sweep, shared by sweep.c, sweep_packs.c and sweep_stream.c only. */
#ifndef IMAGE_SWEEP_PARTS_H
#define IMAGE_SWEEP_PARTS_H

#include <pthread.h>
#include <sys/queue.h>

#include "image/sweep.h"

#define LOOKUP_BLOCKS 4096 /* digests asked for at a time: 32 pages of a map, in one request */

/* A block that is wanted and not asked for yet. */
struct wish {
    struct digest digest; /* first */
    uint64_t block;
    uint32_t length;
    bool claimed; /* a run of a pack brings it */
};

struct run;

struct sweep {
    struct sweep_settings settings; /* its pointers are not used any more once sweep_run has returned */
    struct digest digests[LOOKUP_BLOCKS];
    unsigned window;
    uint64_t progress_at_ms;
    struct wish *wishes; /* with packs: collected to be divided among them */
    size_t wish_count, wish_capacity;

    pthread_mutex_t fault_lock; /* around settings.failed; before lock */
    pthread_mutex_t lock;       /* a leaf; guards the rest */
    pthread_cond_t changed;
    unsigned under_way; /* requests without an answer */
    unsigned streamed;  /* of these, those that a stream is to answer */
    unsigned wake_at;   /* the thread that walks is woken when so few others are under way */
    unsigned inside;    /* answers that are being dealt with */
    unsigned streams;   /* of packs, under way */
    unsigned runs;      /* streams, and what has come of them and is not dealt with yet */
    LIST_HEAD(, run) expecting; /* of these streams the store expects blocks; left alone once ABANDONED */
    size_t batch_bytes; /* that workers have not dealt with */
    unsigned *faults;   /* by pack */
    uint64_t done_bytes;
    bool abandoned; /* answers are dropped */
    bool returned;  /* the caller is gone: the last answer frees the memory */
    struct error error; /* the first one */
};

/* ---- sweep.c ---- */

void sweep_destroy(struct sweep *sweep);
void sweep_fail(struct sweep *sweep, const struct error *error);
int sweep_fail_for_memory(struct sweep *sweep); /* ERROR_SYSTEM */
/* Ask for a block: of its own, or one that is expected of a stream. Fails only for want of memory. */
int sweep_ask(struct sweep *sweep, const struct wish *wish, bool streamed);
/*
 * Wait until, with ROOM, the window has some for requests that no stream answers, or until fewer than STREAMS streams
 * are under way. Returns the sweep's error.
 */
int sweep_wait(struct sweep *sweep, bool room, unsigned streams);

/* ---- sweep_packs.c ---- */

/* Ask for all wishes: in streams of the packs that hold them, and the others one by one. They are then forgotten. */
int sweep_gather(struct sweep *sweep);

/* ---- sweep_stream.c ---- */

/* A stream of part of PACK, which is to bring MOST frames at most. NULL: no memory. */
struct run *run_begin(struct sweep *sweep, size_t pack, uint32_t most);
/* From now on the store expects the block of ENTRY of it, if nobody fetches it already; in the order of the pack. */
void run_expect(struct run *run, const struct pack_entry *entry);
/* One of these ends what run_begin began: ask for what is expected; or do without. */
void run_start(struct run *run);
void run_end(struct run *run);
/* Was the pack found to be damaged, or out of reach? */
bool sweep_leaves_alone(struct sweep *sweep, size_t pack);
/* Once ABANDONED: what streams were still to bring is not expected any more, so that others can ask for it. */
void sweep_call_off(struct sweep *sweep);

#endif
