/* A rate limit: bytes may be spent as long as the account is not overdrawn; time fills it. For one thread. */
#ifndef NET_METER_H
#define NET_METER_H

#include "base/bytes.h"

struct meter {
    uint64_t bytes_per_second; /* 0: no limit */
    int64_t account;           /* bytes; below zero after a large piece */
    uint64_t filled_us;        /* when time was last counted */
};

/* Nothing saved while idle beyond a twentieth of a second. */
static inline void meter_fill(struct meter *meter, uint64_t now_us)
{
    uint64_t elapsed_us = min_u64(now_us - meter->filled_us, 1000000);
    uint64_t earned = meter->bytes_per_second / 1000 * elapsed_us / 1000;
    int64_t most = (int64_t)(meter->bytes_per_second / 20);

    if (earned == 0 && elapsed_us < 1000000)
        return; /* count the time later, else a slow rate earns nothing */
    meter->filled_us = now_us;
    meter->account += (int64_t)earned;
    if (meter->account > most)
        meter->account = most;
}

static inline bool meter_spend(struct meter *meter, size_t size)
{
    if (meter->bytes_per_second == 0)
        return true;
    if (meter->account < 0)
        return false;
    meter->account -= (int64_t)size;
    return true;
}

/* Milliseconds until something may be spent. */
static inline uint64_t meter_wait_ms(const struct meter *meter)
{
    if (meter->account >= 0)
        return 0;
    return divide_up((uint64_t)-meter->account * 1000, meter->bytes_per_second);
}

#endif
