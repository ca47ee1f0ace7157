/* Pace: see pace.h. */
#include "image/pace.h"

#include "base/bytes.h"

/* So much longer than the quickest the average may take: blocks differ in size, and connections have to warm up. */
#define FACTOR 2.5
#define SLACK_US 5000
/* The quickest is forgotten slowly, a part of so many each round, so that a link that has changed is learned anew. */
#define FORGET 256

void pace_init(struct pace *pace, unsigned min, unsigned start, unsigned max)
{
    *pace = (struct pace){.limit = start, .min = min, .max = max};
}

static void end_round(struct pace *pace)
{
    bool queues = (double)pace->round_sum_us / pace->round_done > FACTOR * (double)pace->quickest_us + SLACK_US;
    unsigned step = pace->limit / (pace->cruising || queues ? 8 : 2) + 1;

    if (queues)
        pace->limit = pace->limit > pace->min + step ? pace->limit - step : pace->min;
    else
        pace->limit = pace->limit + step < pace->max ? pace->limit + step : pace->max;
    pace->cruising |= queues;
    pace->quickest_us += pace->quickest_us / FORGET + 1;
}

void pace_note(struct pace *pace, uint64_t took_us)
{
    if (!pace->quickest_us || took_us < pace->quickest_us)
        pace->quickest_us = max_u64(took_us, 1);
    pace->round_sum_us += took_us;
    if (++pace->round_done < pace->limit)
        return;
    end_round(pace);
    pace->round_done = 0;
    pace->round_sum_us = 0;
}
