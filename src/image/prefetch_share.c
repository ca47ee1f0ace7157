/* Streams of a pack that help each other: see prefetch_parts.h. */
#include "base/clock.h"
#include "image/prefetch_parts.h"

/* So often, if all is then over so much sooner: each costs a request, and what is under way when the other is cut. */
#define SHARES_MAX 2
#define SHARE_GAIN_US 30000

uint32_t prefetch_entry_at(const struct pack_table *table, uint64_t offset)
{
    uint32_t low = 0, high = table->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (table->entries[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The stream that will be the last to end; NULL: none is left of which that is known. Under the lock. */
static struct segment *find_last(struct prefetch *prefetch, double *left_us_out)
{
    struct segment *last = NULL;

    *left_us_out = 0;
    for (size_t i = 0; i < prefetch->segment_count; i++) {
        struct segment *segment = &prefetch->segments[i];
        double left_us = segment->rate > 0 ? (double)(segment->end - segment->received) / segment->rate : 0;

        if (!segment->ended && segment->received < segment->end && left_us > *left_us_out) {
            *left_us_out = left_us;
            last = segment;
        }
    }
    return last;
}

/* A segment for the entries of LAST from LIMIT on, which that one gives up. Under the lock. */
static struct segment *divide(struct segment *last, uint32_t limit, const struct segment *ended)
{
    struct prefetch *prefetch = last->prefetch;
    struct segment *segment = &prefetch->segments[prefetch->segment_count++];
    uint64_t start = prefetch->table.entries[limit].offset;

    *segment = (struct segment){
        .prefetch = prefetch,
        .start = start,
        .received = start,
        .end = last->end,
        .asked_end = last->end,
        .started_us = clock_us(),
        .rate = ended->rate,
        .first = limit,
        .next = limit,
        .limit = last->limit,
    };
    last->end = start;
    last->limit = limit;
    prefetch->under_way++;
    prefetch->share_count++;
    return segment;
}

struct segment *prefetch_share(const struct segment *ended)
{
    struct prefetch *prefetch = ended->prefetch;
    double left_us, both_us, delay_us = (double)ended->first_byte_us;
    struct segment *last = find_last(prefetch, &left_us);
    uint32_t limit;

    if (!last || ended->received != ended->asked_end || ended->rate <= 0 || prefetch->stopping ||
        !prefetch->has_table || prefetch->share_count == SHARES_MAX ||
        prefetch->segment_count == PREFETCH_RANGES_MAX)
        return NULL;
    both_us = ((double)(last->end - last->received) + ended->rate * delay_us) / (last->rate + ended->rate);
    if (both_us + SHARE_GAIN_US > left_us || both_us < delay_us)
        return NULL;
    limit = prefetch_entry_at(&prefetch->table, last->received + (uint64_t)(last->rate * both_us));
    return limit < last->limit ? divide(last, limit, ended) : NULL;
}
