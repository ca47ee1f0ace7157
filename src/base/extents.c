/* Extents: see extents.h. */
#include "base/extents.h"

#include <stdlib.h>

#include "base/bytes.h"

static bool add_places(struct extents *extents, const uint64_t *places, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t *grown = array_grow(extents->places, extents->place_count, &extents->place_capacity, sizeof(*grown));

        if (!grown)
            return false;
        extents->places = grown;
        grown[extents->place_count++] = places[i];
    }
    return true;
}

/* One place right behind that of the last run, which is in one place too. */
static bool goes_on(const struct extents *extents, const uint64_t *places, size_t place_count)
{
    const struct extent_run *last = extents->run_count ? &extents->runs[extents->run_count - 1] : NULL;

    return last && place_count == 1 && last->place_count == 1 &&
           extents->places[last->first_place] + last->size == places[0];
}

bool extents_append(struct extents *extents, uint64_t size, uint64_t turn, const uint64_t *places, size_t place_count)
{
    struct extent_run *runs;
    uint64_t row, end;

    if (!checked_mul(turn, place_count, &row) || !row || !size || size % row || !checked_add(extents->size, size, &end))
        return false;
    for (size_t i = 0; i < place_count; i++)
        if (!checked_add(places[i], size / place_count, &(uint64_t){0}))
            return false;
    if (goes_on(extents, places, place_count)) {
        extents->runs[extents->run_count - 1].size += size;
        extents->size = end;
        return true;
    }
    runs = array_grow(extents->runs, extents->run_count, &extents->run_capacity, sizeof(*runs));
    if (!runs)
        return false;
    extents->runs = runs;
    runs[extents->run_count] = (struct extent_run){extents->size, size, turn, place_count, extents->place_count};
    if (!add_places(extents, places, place_count))
        return false;
    extents->run_count++;
    extents->size = end;
    return true;
}

/* The run that byte OFFSET is in. */
static const struct extent_run *find_run(const struct extents *extents, uint64_t offset)
{
    size_t low = 0, high = extents->run_count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (extents->runs[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &extents->runs[low];
}

uint64_t extents_find(const struct extents *extents, uint64_t offset, uint64_t *length_out)
{
    const struct extent_run *run = find_run(extents, offset);
    const uint64_t *places = extents->places + run->first_place;
    uint64_t inside = offset - run->start, turn = inside / run->turn;

    if (run->place_count == 1) {
        *length_out = run->size - inside;
        return places[0] + inside;
    }
    *length_out = run->turn - inside % run->turn;
    return places[turn % run->place_count] + turn / run->place_count * run->turn + inside % run->turn;
}

bool extents_are_one(const struct extents *extents, uint64_t *offset_out)
{
    if (extents->run_count != 1 || extents->runs[0].place_count != 1)
        return false;
    *offset_out = extents->places[extents->runs[0].first_place];
    return true;
}

void extents_finish(struct extents *extents)
{
    free(extents->runs);
    free(extents->places);
    *extents = (struct extents){0};
}
