/* The store's insides, shared by store.c (asking for a block) and flight.c (getting it) only. */
#ifndef STORE_STORE_PARTS_H
#define STORE_STORE_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/memory.h"

#define BUCKET_COUNT 256 /* a power of two */
#define SPARE_FRAMES 8

enum flight_state {
    FLIGHT_QUEUED,   /* waits for a worker, or for a reader who does it himself */
    FLIGHT_READING,  /* somebody looks into the cache folder */
    FLIGHT_FETCHING, /* a mirror was asked */
    FLIGHT_EXPECTED, /* a stream will bring it */
    FLIGHT_LANDED,   /* delivered; out of the table, unless a stream still owes it */
};

struct waiter {
    void (*done)(void *user, int code, struct block *block, const struct error *error);
    void *user;
    uint64_t since_us;      /* for readers: */
    enum priority priority; /* only their waits are counted */
    struct waiter *next;
};

/* A worker's order to resolve a flight, unless someone else has begun to. */
struct errand {
    struct job job; /* first */
    struct flight *flight;
};

struct flight {
    struct store *store;
    struct digest digest;
    uint32_t length;
    struct errand errands[PRIORITY_COUNT]; /* one each time it gets more urgent */
    /* All below under the store's lock. */
    enum flight_state state;
    enum priority priority; /* the most urgent that was asked for */
    bool cached;            /* it came out of the cache folder */
    bool passing;           /* a stream of PRIORITY_FILL brings it */
    unsigned references;
    unsigned fetches; /* not answered yet */
    struct waiter first;
    struct waiter *waiters;
    const struct store_stream *stream;  /* that owes it; NULL: none. It holds a reference */
    unsigned askers;                    /* are just calling the stream */
    struct flight *chain;               /* of its bucket */
    struct flight *earlier, *later;     /* of those fetching */
};

struct store {
    struct cache *cache;
    struct mirrors *mirrors;
    struct workers *workers;
    struct memory *memory;

    /* Taken before the memory's lock. Neither the cache nor the mirrors nor a callback is called under it. */
    pthread_mutex_t lock;
    pthread_cond_t idle; /* no flights any more; nobody asks a flight's stream any more */
    size_t flight_count;
    struct flight *buckets[BUCKET_COUNT];
    struct flight *first_fetching, *last_fetching;
    struct buffer frames[SPARE_FRAMES]; /* for reading cached frames into */
    unsigned frame_count;

    atomic_uint_fast64_t memory_hits[PRIORITY_COUNT], cache_hits[PRIORITY_COUNT];
    atomic_uint_fast64_t fetched_blocks, fetched_bytes, cache_corrupt, failed;
    atomic_uint_fast64_t reads, read_bytes, wait_us, waits[STATISTICS_BUCKETS];
};

/*
 * What a stream owes; see store.h. Takes the reference of the stream, under the lock, which is let go while it waits
 * for those who ask the stream; NULL: it is not expected.
 */
struct flight *flight_unexpect(struct store *store, const struct digest *digest, uint32_t length);
/* The stream's frame for a flight that flight_unexpect gave; consumes the reference. */
int flight_offer(struct flight *flight, const struct store_frame *frame, bool *blamed_out, struct error *error);
/* No frame will come for it; fetched FOR_ALL, or not for a mere PRIORITY_FILL. Consumes the reference. */
void flight_abandon(struct flight *flight, bool for_all);

/* The flight of a block, under the store's lock; NULL if there is none. */
struct flight *flight_find(struct store *store, const struct digest *digest, uint32_t length);
/* The one that a stream owes, also if it has landed otherwise; at most one for a digest. */
struct flight *flight_find_owed(struct store *store, const struct digest *digest, uint32_t length);
/* Begin one, under the lock, with one reference for the caller. NULL: no memory. */
struct flight *flight_create(struct store *store, const struct digest *digest, uint32_t length,
                             enum priority priority, const struct waiter *waiter);
/* Wait for it too, under the lock. False: no memory. */
bool flight_join(struct flight *flight, const struct waiter *waiter);

/* The end of WAITER's wait for FLIGHT, in the statistics. */
void flight_count_wait(const struct flight *flight, const struct waiter *waiter);
/* See store_each_waiting; under the lock. */
void flight_each_waiting(struct store *store, void (*visit)(void *user, const struct store_wait *wait), void *user);

/* What one who asks has to do, besides waiting. */
enum flight_step { STEP_NOTHING, STEP_RESOLVE, STEP_ERRAND, STEP_FETCH, STEP_HURRY, STEP_WANTED };

/* Somebody more urgent has joined. Under the lock; a step other than STEP_NOTHING comes with a reference. */
enum flight_step flight_hurry(struct flight *flight, enum priority priority);
/* Not under the lock. Consumes the reference that the step came with. */
void flight_step(struct flight *flight, enum flight_step step, enum priority priority);

#endif
