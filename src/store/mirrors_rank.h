/*
 * Ranking: what the traffic of a mirror tells of its first byte, its waits and
 * its rate, and which mirror to ask next. Pure; the caller holds a lock.
 *
 * A mirror's rate is known once its limit was seen: while answers come hardly
 * later than from an idle mirror, it could give more, and nobody knows how much.
 */
#ifndef STORE_MIRRORS_RANK_H
#define STORE_MIRRORS_RANK_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RANK_WAITS = 64,           /* that are remembered */
    RANK_WAITS_MIN = 8,        /* before a percentile of them means anything */
    RANK_STALE_MS = 10 * 1000, /* a mirror that gave nothing for so long is worth a probe */
};

struct measure {
    uint64_t first_byte_us;  /* average; 0: never measured */
    uint64_t deviation_us;   /* of it, average */
    uint64_t least_us;       /* the shortest first byte, slowly forgotten: that of an idle mirror */
    uint64_t measured_ms;    /* when it last gave an answer or was given the chance to */
    uint32_t waits_us[RANK_WAITS];
    unsigned wait_count;     /* ever; the last RANK_WAITS are kept */
    unsigned missing;        /* share of the answers that are NOT_FOUND, of 1024 */

    unsigned under_way;      /* requests */
    uint64_t outstanding;    /* bytes that they are to bring */
    uint64_t window_us;      /* when the window began over which the rate is being measured */
    uint64_t window_bytes;
    bool window_limited;     /* something in it took longer than from an idle mirror */
    uint64_t rate;           /* bytes a second at its limit; 0: not seen */
    uint64_t throughput;     /* bytes a second that it gave, at its limit or not; 0: not measured */
};

/* A request for SIZE bytes (a guess will do) is sent. */
void measure_begin(struct measure *measure, uint64_t size, uint64_t now_us);
/* Part of a stream has come. */
void measure_bytes(struct measure *measure, uint64_t size, uint64_t now_us);

/* How a request ended. */
struct measured {
    uint64_t size;          /* as given to measure_begin */
    uint64_t bytes;         /* that came and were not told to measure_bytes */
    uint64_t first_byte_us; /* from the sending; 0: none came */
    uint64_t total_us;
    bool reader;            /* somebody waited for it */
    bool answered;          /* at all, if only with NOT_FOUND: otherwise nothing is learnt but that it is over */
    bool missing;
};
void measure_end(struct measure *measure, const struct measured *measured, uint64_t now_us);
/* It was given up after ELAPSED_US without an answer because another one answered: it would have taken longer. */
void measure_given_up(struct measure *measure, uint64_t elapsed_us, bool reader);

/* The 95th percentile of the last waits of readers; 0: too few. */
uint64_t measure_slow_us(const struct measure *measure);

enum rank_kind {
    RANK_DEMAND, /* the soonest answer */
    RANK_BULK,   /* spread in proportion to the rates */
};

#define RANK_MAX 32 /* mirrors */

/*
 * Which of the ELIGIBLE (by bit, not empty) of COUNT mirrors is to be asked for SIZE bytes. As long as nothing is
 * measured, and between mirrors that differ by little, the first one.
 */
unsigned rank_choose(const struct measure *const *measures, unsigned count, uint32_t eligible, enum rank_kind kind,
                     uint64_t size);
/* The one of ELIGIBLE that was measured longest ago, if that is RANK_STALE_MS or never; else -1. */
int rank_stale(const struct measure *const *measures, unsigned count, uint32_t eligible, uint64_t now_ms);

/* A budget of extra requests: ordinary ones earn it. */
struct allowance {
    unsigned parts; /* of a request */
};
enum { ALLOWANCE_PARTS = 16, ALLOWANCE_MAX = 4 * ALLOWANCE_PARTS };
/* An ordinary request was made: a sixteenth of an extra one is earned. */
void allowance_earn(struct allowance *allowance);
/* May an extra one be made? Then it is counted. */
bool allowance_spend(struct allowance *allowance);

#endif
