/*
 * A sweep out of packs: what is wanted is divided into runs, each one request
 * that brings many frames; some are under way at a time. What no pack holds,
 * and what a stream does not bring, is fetched block by block.
 */
#include <stdlib.h>

#include "format/frame.h"
#include "image/sweep_parts.h"

#define STREAMS 6 /* as a boot pack has: enough that slow start takes few round trips */
#define RUN_MAX (8 * MIB) /* bytes of a stream: what is lost when it breaks, and who is late is late by no more */
#define RUN_MIN (1 * MIB)

/* ---- Dividing ---- */

/* What is to be asked for, and how. */
struct division {
    struct sweep *sweep;
    struct wish *wishes; /* sorted by digest */
    size_t count;
    struct wish *apart;  /* those of no pack; room for all */
    size_t apart_count, apart_next;
    struct planned {
        size_t pack;
        struct pack_run run;
    } *runs;
    size_t run_count, run_next, run_capacity;
};

static int compare_wishes(const void *a, const void *b)
{
    const struct wish *first = a, *second = b;
    int order = memcmp(first->digest.bytes, second->digest.bytes, DIGEST_SIZE);

    return order ? order : (first->block > second->block) - (first->block < second->block);
}

static int compare_places(const void *a, const void *b)
{
    const struct wish *first = a, *second = b;

    return (first->block > second->block) - (first->block < second->block);
}

/* The first wish for DIGEST, behind which the others for it are; NULL: there is none. */
static struct wish *find_wish(const struct division *division, const struct digest *digest)
{
    return digest_search(division->wishes, division->count, sizeof(*division->wishes), digest);
}

static bool is_last_for_digest(const struct division *division, const struct wish *wish)
{
    return wish + 1 == division->wishes + division->count || !digest_equal(&wish[0].digest, &wish[1].digest);
}

static void claim(const struct division *division, struct wish *wish, bool claimed)
{
    while (wish->claimed = claimed, !is_last_for_digest(division, wish))
        wish++;
}

/* Is the block of ENTRY wanted, and not here? A table is not trusted: it may name any lengths. */
static bool is_wanted(const struct division *division, const struct pack_entry *entry)
{
    const struct wish *wish = find_wish(division, &entry->digest);

    return wish && !wish->claimed && wish->length == entry->block_length &&
           entry->frame_size <= frame_bound(entry->block_length) &&
           !store_has(division->sweep->settings.store, &entry->digest);
}

/* A run of a single block is not worth a stream. */
static void add_run(struct division *division, size_t pack, const struct pack_run *run)
{
    const struct pack_entry *first = &division->sweep->settings.packs[pack].table.entries[run->first];
    struct planned *runs = NULL;

    if (run->limit - run->first > 1)
        runs = array_grow(division->runs, division->run_count, &division->run_capacity, sizeof(*runs));
    if (runs) {
        division->runs = runs;
        runs[division->run_count++] = (struct planned){pack, *run};
        return;
    }
    for (uint32_t e = run->first; e < run->limit; e++, first++) {
        struct wish *wish = find_wish(division, &first->digest);

        if (wish)
            claim(division, wish, false);
    }
}

static void divide_pack(struct division *division, size_t pack)
{
    const struct pack_table *table = &division->sweep->settings.packs[pack].table;
    bool *wanted = calloc(table->count, sizeof(*wanted));
    struct pack_run *runs = NULL;
    size_t count;

    for (uint32_t e = 0; wanted && e < table->count; e++) {
        wanted[e] = is_wanted(division, &table->entries[e]);
        if (wanted[e])
            claim(division, find_wish(division, &table->entries[e].digest), true);
    }
    count = wanted ? pack_plan(table, wanted, &runs) : 0;
    for (size_t i = 0; i < count; i++)
        add_run(division, pack, &runs[i]);
    /* Without memory for a plan nothing is claimed. */
    for (uint32_t e = 0; wanted && !count && e < table->count; e++)
        if (wanted[e])
            claim(division, find_wish(division, &table->entries[e].digest), false);
    free(runs);
    free(wanted);
}

static uint64_t span(const struct pack_entry *entries, uint32_t first, uint32_t limit)
{
    return entries[limit - 1].offset + entries[limit - 1].frame_size - entries[first].offset;
}

/* Cut all runs into parts of RUN_MAX at most; towards the end smaller, so that all streams have work until it. */
static void cut_runs(struct division *division)
{
    struct planned *parts = NULL;
    size_t count = 0, capacity = 0;
    uint64_t after = 0; /* bytes of the parts behind */

    for (size_t i = division->run_count; i-- > 0;) {
        const struct planned *planned = &division->runs[i];
        const struct pack_entry *entries = division->sweep->settings.packs[planned->pack].table.entries;
        uint32_t limit = planned->run.limit;

        while (limit > planned->run.first) {
            uint64_t most = max_u64(RUN_MIN, min_u64(RUN_MAX, after / STREAMS));
            uint64_t left = span(entries, planned->run.first, limit), size = left / ((left + most - 1) / most);
            struct planned *grown = array_grow(parts, count, &capacity, sizeof(*parts));
            uint32_t first = limit - 1;

            if (!grown) {
                free(parts); /* the runs remain whole */
                return;
            }
            while (first > planned->run.first && span(entries, first - 1, limit) <= size)
                first--;
            parts = grown;
            parts[count++] = (struct planned){planned->pack, {first, limit}};
            after += span(entries, first, limit);
            limit = first;
        }
    }
    for (size_t i = 0; i < count / 2; i++) {
        struct planned part = parts[i];

        parts[i] = parts[count - 1 - i];
        parts[count - 1 - i] = part;
    }
    free(division->runs);
    division->runs = parts;
    division->run_count = count;
    division->run_capacity = capacity;
}

static void divide(struct division *division)
{
    qsort(division->wishes, division->count, sizeof(*division->wishes), compare_wishes);
    for (size_t i = 0; i < division->sweep->settings.pack_count; i++)
        if (!sweep_leaves_alone(division->sweep, i))
            divide_pack(division, i);
    cut_runs(division);
    for (size_t i = 0; i < division->count; i++)
        if (!division->wishes[i].claimed)
            division->apart[division->apart_count++] = division->wishes[i];
    qsort(division->apart, division->apart_count, sizeof(*division->apart), compare_places);
}

/* ---- Asking ---- */

/* Call VISIT for each wish that PLANNED is to bring. */
static int each_wish(struct division *division, const struct planned *planned,
                     int (*visit)(struct division *division, struct run *run, const struct pack_entry *entry,
                                  struct wish *wish),
                     struct run *run)
{
    const struct pack_table *table = &division->sweep->settings.packs[planned->pack].table;
    int result = 0;

    for (uint32_t e = planned->run.first; e < planned->run.limit && !result; e++) {
        struct wish *wish = find_wish(division, &table->entries[e].digest);

        if (wish && wish->claimed && wish->length == table->entries[e].block_length &&
            table->entries[e].frame_size <= frame_bound(wish->length))
            result = visit(division, run, &table->entries[e], wish);
    }
    return result;
}

/* The pack has turned out to be no good. */
static int set_apart(struct division *division, struct run *run, const struct pack_entry *entry, struct wish *wish)
{
    (void)run;
    (void)entry;
    claim(division, wish, false);
    for (division->apart[division->apart_count++] = *wish; !is_last_for_digest(division, wish);)
        division->apart[division->apart_count++] = *++wish;
    return 0;
}

/* Expect the block of the stream, and ask for it wherever it is wanted. */
static int expect(struct division *division, struct run *run, const struct pack_entry *entry, struct wish *wish)
{
    struct sweep *sweep = division->sweep;
    int result = 0;

    run_expect(run, entry);
    for (bool last = false; !last && !result; wish++) {
        last = is_last_for_digest(division, wish);
        wish->claimed = false; /* a second entry for it is of no use */
        result = sweep_ask(sweep, wish, true);
    }
    return result;
}

static int start_run(struct division *division, const struct planned *planned)
{
    struct sweep *sweep = division->sweep;
    struct run *run = NULL;
    int result;

    if (!sweep_leaves_alone(sweep, planned->pack))
        run = run_begin(sweep, planned->pack, planned->run.limit - planned->run.first);
    if (!run)
        return each_wish(division, planned, set_apart, NULL);
    result = each_wish(division, planned, expect, run);
    if (result)
        run_end(run);
    else
        run_start(run);
    return result;
}

static int ask_for_all(struct division *division)
{
    struct sweep *sweep = division->sweep;
    int result = 0;

    while (!result && (division->run_next < division->run_count || division->apart_next < division->apart_count)) {
        bool runs = division->run_next < division->run_count, apart = division->apart_next < division->apart_count;
        bool stream;

        result = sweep_wait(sweep, apart, runs ? STREAMS : 0);
        pthread_mutex_lock(&sweep->lock);
        stream = runs && sweep->streams < STREAMS;
        apart = apart && sweep->under_way - sweep->streamed < sweep->window;
        pthread_mutex_unlock(&sweep->lock);
        if (!result && stream)
            result = start_run(division, &division->runs[division->run_next++]);
        else if (!result && apart)
            result = sweep_ask(sweep, &division->apart[division->apart_next++], false);
    }
    return result;
}

int sweep_gather(struct sweep *sweep)
{
    struct division division = {.sweep = sweep, .wishes = sweep->wishes, .count = sweep->wish_count};
    int result;

    division.apart = calloc(division.count + 1, sizeof(*division.apart));
    if (!division.apart)
        return sweep_fail_for_memory(sweep);
    divide(&division);
    result = ask_for_all(&division);
    free(division.apart);
    free(division.runs);
    sweep->wish_count = 0;
    return result;
}
