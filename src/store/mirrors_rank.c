/* Ranking: see mirrors_rank.h. */
#include "store/mirrors_rank.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum {
    WINDOW_US = 250 * 1000,     /* of a measurement of the rate */
    WINDOW_BYTES_MIN = 4096,    /* fewer say nothing about a rate */
    LIMITED_US = 20 * 1000,     /* so much later than from an idle mirror is still no limit */
    NOMINAL_US = 50 * 1000,     /* first byte of a mirror that nobody has asked yet, beyond that of the best */
    CLOSE_US = 2000,            /* a difference that is none */
};
#define NOMINAL_RATE (16 * MIB) /* a second, where no limit has been seen anywhere */

/* ---- Measuring ---- */

static void begin_window(struct measure *measure, uint64_t now_us)
{
    measure->window_us = now_us;
    measure->window_bytes = 0;
    measure->window_limited = false;
}

static uint64_t blend(uint64_t old, uint64_t sample)
{
    return old ? (old + sample) / 2 : sample;
}

/* What the window tells, if it is long enough or the mirror has become idle. */
static void close_window(struct measure *measure, uint64_t now_us)
{
    uint64_t length_us = now_us - measure->window_us, sample;

    if (length_us < WINDOW_US && measure->under_way)
        return;
    if (measure->window_bytes >= WINDOW_BYTES_MIN && length_us) {
        sample = max_u64((uint64_t)((double)measure->window_bytes * 1e6 / (double)length_us), 1);
        measure->throughput = blend(measure->throughput, sample);
        if (measure->window_limited)
            measure->rate = blend(measure->rate, sample);
        else if (measure->rate)
            measure->rate = max_u64(measure->rate, 2 * sample); /* it could give more than we thought */
    }
    begin_window(measure, now_us);
}

void measure_begin(struct measure *measure, uint64_t size, uint64_t now_us)
{
    if (measure->under_way++ == 0)
        begin_window(measure, now_us);
    measure->outstanding += size;
    measure->measured_ms = now_us / 1000;
}

void measure_bytes(struct measure *measure, uint64_t size, uint64_t now_us)
{
    measure->window_bytes += size;
    measure->window_limited = true; /* a stream flows as fast as it can */
    close_window(measure, now_us);
}

static void note_first_byte(struct measure *measure, uint64_t sample_us)
{
    uint64_t distance;

    sample_us = max_u64(sample_us, 1);
    if (measure->first_byte_us == 0) {
        measure->first_byte_us = measure->least_us = sample_us;
        measure->deviation_us = sample_us / 2;
        return;
    }
    distance = sample_us > measure->first_byte_us ? sample_us - measure->first_byte_us
                                                  : measure->first_byte_us - sample_us;
    measure->deviation_us = (3 * measure->deviation_us + distance) / 4;
    measure->first_byte_us = max_u64((7 * measure->first_byte_us + sample_us) / 8, 1);
    measure->least_us = min_u64(sample_us, measure->least_us + measure->least_us / 512 + 1);
}

static void note_wait(struct measure *measure, uint64_t wait_us)
{
    measure->waits_us[measure->wait_count++ % RANK_WAITS] = (uint32_t)min_u64(wait_us, UINT32_MAX);
}

void measure_end(struct measure *measure, const struct measured *measured, uint64_t now_us)
{
    measure->under_way--;
    measure->outstanding -= min_u64(measure->outstanding, measured->size);
    if (measured->answered) {
        measure->measured_ms = now_us / 1000;
        measure->missing = (7 * measure->missing + (measured->missing ? 1024 : 0)) / 8;
        if (measured->first_byte_us)
            note_first_byte(measure, measured->first_byte_us);
        if (measured->reader)
            note_wait(measure, measured->total_us);
        measure->window_bytes += measured->bytes;
        if (measured->total_us > 2 * measure->least_us + LIMITED_US)
            measure->window_limited = true;
    }
    close_window(measure, now_us);
}

void measure_given_up(struct measure *measure, uint64_t elapsed_us, bool reader)
{
    if (elapsed_us > measure->first_byte_us)
        note_first_byte(measure, elapsed_us);
    if (reader)
        note_wait(measure, elapsed_us);
}

static int compare_waits(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return left < right ? -1 : left > right;
}

uint64_t measure_slow_us(const struct measure *measure)
{
    unsigned count = measure->wait_count < RANK_WAITS ? measure->wait_count : RANK_WAITS;
    uint32_t waits[RANK_WAITS];

    if (count < RANK_WAITS_MIN)
        return 0;
    memcpy(waits, measure->waits_us, sizeof(waits));
    qsort(waits, count, sizeof(waits[0]), compare_waits);
    return waits[count - 1 - count / 20];
}

/* ---- Choosing ---- */

/* What the others of a choice tell of a mirror that is not measured. */
struct reference {
    uint64_t first_byte_us;
    uint64_t rate;
};

static struct reference make_reference(const struct measure *const *measures, unsigned count, uint32_t eligible)
{
    struct reference reference = {.first_byte_us = UINT64_MAX};

    for (unsigned i = 0; i < count; i++) {
        if (!(eligible >> i & 1))
            continue;
        if (measures[i]->first_byte_us)
            reference.first_byte_us = min_u64(reference.first_byte_us, measures[i]->first_byte_us);
        reference.rate = max_u64(reference.rate, measures[i]->rate);
    }
    if (reference.first_byte_us == UINT64_MAX)
        reference.first_byte_us = 0;
    if (!reference.rate)
        reference.rate = NOMINAL_RATE;
    return reference;
}

/* In how many microseconds SIZE bytes are expected from the mirror. */
static double expected_us(const struct measure *measure, const struct reference *reference, enum rank_kind kind,
                          uint64_t size)
{
    bool known = measure->first_byte_us != 0;
    double wait = known ? (double)measure->first_byte_us : (double)reference->first_byte_us + NOMINAL_US;
    double rate = measure->rate ? (double)measure->rate : (double)reference->rate;
    double bytes = (double)size;

    if (kind == RANK_DEMAND) {
        wait += known ? (double)measure->deviation_us : 0;
    } else {
        /* What is outstanding says already how long the queue is. */
        wait = known ? (double)measure->least_us : wait;
        bytes += (double)measure->outstanding;
    }
    if (!known && measure->under_way)
        return 1e15; /* it may be dead: one request is enough to find out */
    /* What it does not have has to be asked for again elsewhere. */
    return (wait + bytes * 1e6 / rate) * 1024 / (1025.0 - measure->missing);
}

unsigned rank_choose(const struct measure *const *measures, unsigned count, uint32_t eligible, enum rank_kind kind,
                     uint64_t size)
{
    struct reference reference = make_reference(measures, count, eligible);
    double times[RANK_MAX], best = 0;
    unsigned first = RANK_MAX;

    for (unsigned i = 0; i < count; i++) {
        if (!(eligible >> i & 1))
            continue;
        times[i] = expected_us(measures[i], &reference, kind, size);
        if (first == RANK_MAX || times[i] < best)
            best = times[i];
        if (first == RANK_MAX)
            first = i;
    }
    /* Readers stay with a mirror, and its open connections, unless another one is clearly better. */
    if (kind == RANK_DEMAND)
        best = best * 5 / 4 + CLOSE_US;
    for (unsigned i = first; i < count; i++)
        if (eligible >> i & 1 && times[i] <= best)
            return i;
    return first;
}

int rank_stale(const struct measure *const *measures, unsigned count, uint32_t eligible, uint64_t now_ms)
{
    int stalest = -1;

    for (unsigned i = 0; i < count; i++) {
        if (!(eligible >> i & 1) || measures[i]->under_way ||
            (measures[i]->measured_ms && measures[i]->measured_ms + RANK_STALE_MS > now_ms))
            continue;
        if (stalest < 0 || measures[i]->measured_ms < measures[stalest]->measured_ms)
            stalest = (int)i;
    }
    return stalest;
}

/* ---- Budgets ---- */

void allowance_earn(struct allowance *allowance)
{
    if (allowance->parts < ALLOWANCE_MAX)
        allowance->parts++;
}

bool allowance_spend(struct allowance *allowance)
{
    if (allowance->parts < ALLOWANCE_PARTS)
        return false;
    allowance->parts -= ALLOWANCE_PARTS;
    return true;
}
