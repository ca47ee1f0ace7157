/*
 * Pace: how many requests to have under way so that a link is full and its queue
 * is short. More are sent as long as answers take about as long as the quickest
 * of late, fewer when they queue. Only arithmetic; whoever uses it locks.
 */
#ifndef IMAGE_PACE_H
#define IMAGE_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    unsigned limit; /* how many may be under way */
    unsigned min, max;
    bool cruising;         /* the link was full once: go on in small steps */
    uint64_t quickest_us;  /* of late; 0: no answer yet */
    unsigned round_done;   /* answers in this round, which is as many as may be under way */
    uint64_t round_sum_us; /* what they took */
};

void pace_init(struct pace *pace, unsigned min, unsigned start, unsigned max);

/* An answer has come TOOK_US after its request was sent. */
void pace_note(struct pace *pace, uint64_t took_us);

#endif
