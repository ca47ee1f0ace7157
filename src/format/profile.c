/* Profiles: parsing, writing, appending and merging. */
#include "format/profile.h"

#include <stdlib.h>

static const char magic[8] = "OSCPROF1";

static int compare_runs_by_block(const void *a, const void *b)
{
    const struct profile_run *x = a, *y = b;

    return x->block < y->block ? -1 : x->block > y->block;
}

/* No block twice: sort a copy and look at the neighbours. */
static int check_overlap(const struct profile *profile, struct error *error)
{
    size_t size = profile->run_count * sizeof(*profile->runs);
    struct profile_run *sorted = malloc(size);
    int result = 0;

    if (!sorted)
        return error_set(error, ERROR_SYSTEM, "no memory for a profile of %u runs", profile->run_count);
    memcpy(sorted, profile->runs, size);
    qsort(sorted, profile->run_count, sizeof(*sorted), compare_runs_by_block);
    for (uint32_t i = 1; i < profile->run_count && !result; i++)
        if (sorted[i].block - sorted[i - 1].block < sorted[i - 1].count)
            result = error_set(error, ERROR_CORRUPT, "profile: block %llu occurs twice",
                               (unsigned long long)sorted[i].block);
    free(sorted);
    return result;
}

static int parse_run(const uint8_t *bytes, uint32_t index, struct profile *profile, struct error *error)
{
    struct profile_run *run = &profile->runs[index];
    uint64_t end;

    run->block = load_le64(bytes);
    run->time_ms = load_le32(bytes + 8);
    run->count = load_le32(bytes + 12);
    if (run->count == 0 || run->count > PROFILE_BLOCKS_MAX || !checked_add(run->block, run->count, &end))
        return error_set(error, ERROR_CORRUPT, "profile: run %u has an impossible length", index);
    if (index > 0 && run->time_ms < run[-1].time_ms)
        return error_set(error, ERROR_CORRUPT, "profile: the clock falls at run %u", index);
    profile->block_count += run->count;
    if (profile->block_count > PROFILE_BLOCKS_MAX)
        return error_set(error, ERROR_CORRUPT, "profile: more than %u blocks", (unsigned)PROFILE_BLOCKS_MAX);
    return 0;
}

static int parse_header(const uint8_t *bytes, size_t size, struct profile *profile, struct error *error)
{
    if (size < PROFILE_HEADER_SIZE || memcmp(bytes, magic, sizeof(magic)))
        return error_set(error, ERROR_CORRUPT, "profile: not a profile");
    if (load_le32(bytes + 8) != 1)
        return error_set(error, ERROR_CORRUPT, "profile: version %u, expected 1", load_le32(bytes + 8));
    profile->run_count = load_le32(bytes + 12);
    memcpy(profile->image.bytes, bytes + 16, DIGEST_SIZE);
    profile->block_size = load_le32(bytes + 48);
    profile->boot_count = load_le32(bytes + 52);
    if (profile->run_count == 0 || profile->run_count > PROFILE_RUNS_MAX)
        return error_set(error, ERROR_CORRUPT, "profile: %u runs", profile->run_count);
    if (size != PROFILE_HEADER_SIZE + (size_t)profile->run_count * PROFILE_RUN_SIZE)
        return error_set(error, ERROR_CORRUPT, "profile: %zu bytes do not hold %u runs", size,
                         profile->run_count);
    if (!is_power_of_two(profile->block_size) || profile->boot_count == 0 || load_le64(bytes + 56))
        return error_set(error, ERROR_CORRUPT, "profile: bad block size, boot count or reserved field");
    return 0;
}

/* Room for its runs, of a power of two, as profile_append expects. */
static int allocate_runs(struct profile *profile, struct error *error)
{
    size_t capacity = 1;

    while (capacity < profile->run_count)
        capacity *= 2;
    profile->runs = calloc(capacity, sizeof(*profile->runs));
    return profile->runs ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a profile of %u runs",
                                         profile->run_count);
}

int profile_parse(const uint8_t *bytes, size_t size, struct profile *profile_out, struct error *error)
{
    struct profile profile = {0};
    int result = parse_header(bytes, size, &profile, error);

    if (result)
        return result;
    result = allocate_runs(&profile, error);
    if (result)
        return result;
    for (uint32_t i = 0; i < profile.run_count && !result; i++)
        result = parse_run(bytes + PROFILE_HEADER_SIZE + (size_t)i * PROFILE_RUN_SIZE, i, &profile, error);
    if (!result)
        result = check_overlap(&profile, error);
    if (result) {
        profile_finish(&profile);
        return result;
    }
    *profile_out = profile;
    return 0;
}

int profile_format(const struct profile *profile, struct buffer *out, struct error *error)
{
    uint8_t bytes[PROFILE_HEADER_SIZE] = {0};
    bool fits;

    memcpy(bytes, magic, sizeof(magic));
    store_le32(bytes + 8, 1);
    store_le32(bytes + 12, profile->run_count);
    memcpy(bytes + 16, profile->image.bytes, DIGEST_SIZE);
    store_le32(bytes + 48, profile->block_size);
    store_le32(bytes + 52, profile->boot_count);
    out->size = 0;
    fits = buffer_append(out, bytes, PROFILE_HEADER_SIZE);
    for (uint32_t i = 0; i < profile->run_count && fits; i++) {
        store_le64(bytes, profile->runs[i].block);
        store_le32(bytes + 8, profile->runs[i].time_ms);
        store_le32(bytes + 12, profile->runs[i].count);
        fits = buffer_append(out, bytes, PROFILE_RUN_SIZE);
    }
    return fits ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a profile of %u runs", profile->run_count);
}

void profile_finish(struct profile *profile)
{
    free(profile->runs);
    *profile = (struct profile){0};
}

int profile_copy(const struct profile *profile, struct profile *copy_out, struct error *error)
{
    struct profile copy = *profile;
    int result = allocate_runs(&copy, error);

    if (result)
        return result;
    if (copy.run_count)
        memcpy(copy.runs, profile->runs, copy.run_count * sizeof(*copy.runs));
    *copy_out = copy;
    return 0;
}

#define JOIN_MS 100

static bool joins(const struct profile_run *run, uint64_t block, uint32_t time_ms)
{
    return run->block + run->count == block && time_ms - run->time_ms <= JOIN_MS;
}

int profile_append(struct profile *profile, uint64_t block, uint32_t time_ms, struct error *error)
{
    struct profile_run *last = profile->run_count ? &profile->runs[profile->run_count - 1] : NULL;

    if (profile->block_count >= PROFILE_BLOCKS_MAX || profile->run_count >= PROFILE_RUNS_MAX)
        return error_set(error, ERROR_NO_SPACE, "the profile is full");
    if (last && time_ms < last->time_ms) /* readers race by a millisecond; the clock must not fall */
        time_ms = last->time_ms;
    if (last && joins(last, block, time_ms)) {
        last->count++;
        profile->block_count++;
        return 0;
    }
    if ((profile->run_count & (profile->run_count - 1)) == 0) { /* grow at 0, 1, 2, 4, 8 ... */
        size_t capacity = profile->run_count ? 2 * (size_t)profile->run_count : 1;
        struct profile_run *runs = realloc(profile->runs, capacity * sizeof(*runs));

        if (!runs)
            return error_set(error, ERROR_SYSTEM, "no memory for the profile");
        profile->runs = runs;
    }
    profile->runs[profile->run_count++] = (struct profile_run){block, time_ms, 1};
    profile->block_count++;
    return 0;
}

/* A touch of one block in one of the boots; after sorting, one for each block. */
struct touch {
    uint64_t block;
    uint64_t time_sum_ms;
    uint32_t boots;
    bool rare;
};

static int compare_touches_by_block(const void *a, const void *b)
{
    const struct touch *x = a, *y = b;

    return x->block < y->block ? -1 : x->block > y->block;
}

static int compare_touches_by_time(const void *a, const void *b)
{
    const struct touch *x = a, *y = b;
    uint64_t tx = x->time_sum_ms / x->boots, ty = y->time_sum_ms / y->boots;

    if (x->rare != y->rare)
        return x->rare ? 1 : -1;
    if (tx != ty)
        return tx < ty ? -1 : 1;
    return compare_touches_by_block(a, b);
}

static size_t expand(const struct profile *profiles, size_t count, struct touch *touches)
{
    size_t total = 0;

    for (size_t p = 0; p < count; p++)
        for (uint32_t r = 0; r < profiles[p].run_count; r++)
            for (uint32_t i = 0; i < profiles[p].runs[r].count; i++)
                touches[total++] =
                    (struct touch){profiles[p].runs[r].block + i, profiles[p].runs[r].time_ms, 1, false};
    return total;
}

/* One touch a block, in the order of the mean time. */
static size_t fold(struct touch *touches, size_t total, size_t boots)
{
    size_t kept = 0;

    qsort(touches, total, sizeof(*touches), compare_touches_by_block);
    for (size_t i = 0; i < total; i++) {
        if (kept && touches[kept - 1].block == touches[i].block) {
            touches[kept - 1].time_sum_ms += touches[i].time_sum_ms;
            touches[kept - 1].boots++;
        } else {
            touches[kept++] = touches[i];
        }
    }
    for (size_t i = 0; i < kept; i++)
        touches[i].rare = 2 * (size_t)touches[i].boots < boots;
    qsort(touches, kept, sizeof(*touches), compare_touches_by_time);
    return kept;
}

int profile_merge(const struct profile *profiles, size_t count, struct profile *merged_out, struct error *error)
{
    struct profile merged = {0};
    struct touch *touches;
    size_t total = 0;
    int result = 0;

    for (size_t p = 0; p < count; p++) {
        if (!digest_equal(&profiles[p].image, &profiles[0].image))
            return error_set(error, ERROR_INVALID, "profiles of different images cannot be merged");
        total += profiles[p].block_count;
        merged.boot_count += profiles[p].boot_count;
    }
    touches = total ? malloc(total * sizeof(*touches)) : NULL;
    if (!touches)
        return error_set(error, total ? ERROR_SYSTEM : ERROR_INVALID, "no profile to merge, or no memory");
    merged.image = profiles[0].image;
    merged.block_size = profiles[0].block_size;
    total = fold(touches, expand(profiles, count, touches), count);
    for (size_t i = 0; i < total && !result; i++)
        result = profile_append(&merged, touches[i].block, (uint32_t)(touches[i].time_sum_ms / touches[i].boots),
                                error);
    free(touches);
    if (result) {
        profile_finish(&merged);
        return result;
    }
    *merged_out = merged;
    return 0;
}
