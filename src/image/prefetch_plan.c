/* Which parts of a pack are streamed: see prefetch_plan.h. */
#include "image/prefetch_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/packs.h"

static size_t plan_segments(const struct hints_pack *pack, struct pack_range *ranges)
{
    uint64_t start = 0;
    size_t count = 0;

    while (count < pack->segment_count && count < PREFETCH_RANGES_MAX - 1) {
        ranges[count] = (struct pack_range){start, pack->segments[count]};
        start = ranges[count++].end;
    }
    ranges[count++] = (struct pack_range){start, pack->size};
    return count;
}

/* Add what is LACKING of SEGMENT to RANGES, in pieces. False: no more room for them. */
static bool narrow(const struct pack_table *table, const struct pack_range *segment, const bool *lacking, bool *within,
                   struct pack_range *ranges, size_t *count)
{
    auto_free struct pack_run *runs = NULL;
    size_t run_count;

    for (uint32_t e = 0; e < table->count; e++)
        within[e] = lacking[e] && table->entries[e].offset >= segment->start &&
                    table->entries[e].offset + table->entries[e].frame_size <= segment->end;
    run_count = pack_plan(table, within, &runs);
    for (size_t i = 0; i < run_count; i++) {
        const struct pack_entry *last = &table->entries[runs[i].limit - 1];

        if (*count == PREFETCH_RANGES_MAX)
            return false;
        ranges[(*count)++] =
            (struct pack_range){table->entries[runs[i].first].offset, last->offset + last->frame_size};
    }
    return true;
}

size_t prefetch_plan(const struct hints_pack *pack, const struct pack_table *table, struct store *store,
                     struct pack_range *ranges_out)
{
    struct pack_range narrowed[PREFETCH_RANGES_MAX];
    size_t count = plan_segments(pack, ranges_out), narrowed_count = 0;
    auto_free bool *lacking = table ? calloc(table->count, sizeof(*lacking)) : NULL;
    auto_free bool *within = table ? calloc(table->count, sizeof(*within)) : NULL;

    if (!lacking || !within)
        return count;
    for (uint32_t e = 0; e < table->count; e++)
        lacking[e] = !store_has(store, &table->entries[e].digest);
    for (size_t i = 0; i < count; i++)
        if (!narrow(table, &ranges_out[i], lacking, within, narrowed, &narrowed_count))
            return count;
    memcpy(ranges_out, narrowed, narrowed_count * sizeof(*narrowed));
    return narrowed_count;
}
