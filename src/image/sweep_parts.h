/* The insides of a sweep, shared by sweep.c and sweep_packs.c only. */
#ifndef IMAGE_SWEEP_PARTS_H
#define IMAGE_SWEEP_PARTS_H

#include <pthread.h>

#include "image/sweep.h"

#define LOOKUP_BLOCKS 4096 /* digests asked for at a time: 32 pages of a map, in one request */

/* A block that is wanted and not asked for yet. */
struct wish {
    struct digest digest; /* first */
    uint64_t block;
    uint32_t length;
    bool claimed; /* a run of a pack brings it */
};

struct sweep {
    struct sweep_settings settings; /* of its pointers only the store is used once ABANDONED */
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

#endif
