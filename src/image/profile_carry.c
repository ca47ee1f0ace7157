/*
 * Profiles of an archive folder: attached to a version, and carried over from
 * one version's blocks to the next one's.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "format/catalog.h"
#include "image/catalog_writer.h"
#include "image/map_file.h"
#include "image/pack.h"

/* The blocks of an image that hold something. */
struct content {
    struct digest digest; /* first */
    uint64_t block;
};

struct contents {
    struct content *items; /* in the order of blocks, or sorted by digest */
    size_t count, capacity;
};

static void contents_finish(struct contents *contents)
{
    free(contents->items);
}

static int contents_add(void *user, uint64_t block, const struct digest *digest)
{
    struct contents *contents = user;
    struct content *items = array_grow(contents->items, contents->count, &contents->capacity, sizeof(*items));

    if (!items)
        return ERROR_SYSTEM;
    contents->items = items;
    contents->items[contents->count++] = (struct content){*digest, block};
    return 0;
}

static int contents_read(int folder, const struct digest *image, struct contents *contents, struct error *error)
{
    cleanup(map_file_finish) struct map_file map = {0};
    int result = map_file_read(folder, image, &map, error);

    if (!result && map_file_each(&map, contents_add, contents))
        result = error_set(error, ERROR_SYSTEM, "no memory for the blocks of an image");
    return result;
}

static int contents_copy(struct contents *copy, const struct contents *contents, struct error *error)
{
    *copy = *contents;
    copy->items = malloc((contents->count + 1) * sizeof(*copy->items));
    if (!copy->items)
        return error_set(error, ERROR_SYSTEM, "no memory for the blocks of an image");
    memcpy(copy->items, contents->items, contents->count * sizeof(*copy->items));
    return 0;
}

static int compare_blocks(const void *a, const void *b)
{
    const struct content *x = a, *y = b;

    return x->block < y->block ? -1 : x->block > y->block;
}

static int compare_digests(const void *a, const void *b)
{
    const struct content *x = a, *y = b;
    int order = memcmp(x->digest.bytes, y->digest.bytes, DIGEST_SIZE);

    return order ? order : compare_blocks(a, b);
}

static const struct content *find_block(const struct contents *by_block, uint64_t block)
{
    const struct content wanted = {.block = block};

    return bsearch(&wanted, by_block->items, by_block->count, sizeof(wanted), compare_blocks);
}

/* The first block with this content. */
static const struct content *find_digest(const struct contents *by_digest, const struct digest *digest)
{
    return digest_search(by_digest->items, by_digest->count, sizeof(*by_digest->items), digest);
}

/* Where the old image's BLOCK is in the new one; NULL if it has nothing there any more. */
static const struct content *translate_block(uint64_t block, const struct contents *old,
                                             const struct contents *by_block, const struct contents *by_digest)
{
    const struct content *before = find_block(old, block), *same = find_block(by_block, block), *moved, *there;

    if (!before || (same && digest_equal(&same->digest, &before->digest)))
        return same;
    moved = find_digest(by_digest, &before->digest);
    if (!moved)
        return same;
    /* What was there before as well, like a block that is repeated all over the image, did not move there. */
    there = find_block(old, moved->block);
    return same && there && digest_equal(&there->digest, &moved->digest) ? same : find_block(by_block, moved->block);
}

static int translate(const struct profile *from, const struct contents *old, const struct contents *by_block,
                     const struct contents *by_digest, struct profile *to, struct error *error)
{
    /* Two old blocks may land on one new one, which is to be in the profile once. */
    auto_free bool *taken = calloc(by_block->count + 1, sizeof(*taken));
    int result = 0;

    if (!taken)
        return error_set(error, ERROR_SYSTEM, "no memory to carry a profile over");
    for (uint32_t r = 0; r < from->run_count; r++)
        for (uint32_t i = 0; i < from->runs[r].count && !result; i++) {
            const struct content *now = translate_block(from->runs[r].block + i, old, by_block, by_digest);

            if (!now || taken[now - by_block->items])
                continue;
            taken[now - by_block->items] = true;
            result = profile_append(to, now->block, from->runs[r].time_ms, error);
        }
    return result;
}

/* FROM as a profile of the image IMAGE of this archive. */
static int carry(int folder, const struct profile *from, const struct digest *image, uint32_t block_size,
                 struct profile *to, struct error *error)
{
    cleanup(contents_finish) struct contents old = {0};
    cleanup(contents_finish) struct contents by_block = {0};
    cleanup(contents_finish) struct contents by_digest = {0};
    int result;

    if (from->block_size != block_size)
        return error_set(error, ERROR_INVALID, "the profile is of %u-byte blocks, the image has %u-byte blocks",
                         from->block_size, block_size);
    result = contents_read(folder, &from->image, &old, error);
    if (result == ERROR_NOT_FOUND)
        return error_set(error, ERROR_INVALID, "the profile is of an image that this archive does not have");
    if (!result)
        result = contents_read(folder, image, &by_block, error);
    if (!result)
        result = contents_copy(&by_digest, &by_block, error);
    if (result)
        return result;
    qsort(by_digest.items, by_digest.count, sizeof(*by_digest.items), compare_digests);
    *to = (struct profile){.image = *image, .block_size = block_size, .boot_count = from->boot_count};
    result = translate(from, &old, &by_block, &by_digest, to, error);
    if (!result && !to->run_count)
        result = error_set(error, ERROR_INVALID, "nothing of the profile is left in the image");
    return result;
}

/* Write PROFILE to files/ and name it in the hints. */
static int attach(int folder, const struct catalog *catalog, const struct catalog_version *version,
                  const struct profile *profile, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    cleanup(hints_finish) struct hints hints = {0};
    char path[ARCHIVE_PATH_MAX];
    bool newest = catalog_find(catalog, version->name, NULL) == version;
    int result = profile_format(profile, &bytes, error);

    if (!result)
        result = hints_load(folder, version->name, version->version, &hints, error);
    if (result)
        return result;
    digest_of(bytes.bytes, bytes.size, &hints.profile);
    hints.image = version->image;
    strcpy(hints.version, version->version);
    result = file_write_atomic(folder, archive_path_file(&hints.profile, path), bytes.bytes, bytes.size,
                               FILE_DURABLE | FILE_MAKE_FOLDERS, error);
    return result ? result : hints_save(folder, version->name, version->version, newest, &hints, error);
}

static int attach_to(int folder, const struct catalog *catalog, const struct catalog_version *version,
                     const struct profile *profile, struct error *error)
{
    cleanup(profile_finish) struct profile carried = {0};
    int result;

    if (digest_equal(&profile->image, &version->image))
        return attach(folder, catalog, version, profile, error);
    result = carry(folder, profile, &version->image, version->block_size, &carried, error);
    return result ? result : attach(folder, catalog, version, &carried, error);
}

int profile_attach(const char *archive, const char *name, const char *version, const struct profile *profile,
                   struct error *error)
{
    cleanup(catalog_finish) struct catalog catalog = {0};
    auto_close int folder = file_open_folder(archive, false, error);
    auto_close int lock = folder < 0 ? folder : archive_lock(folder, true, error);
    const struct catalog_version *found;
    int result = lock < 0 ? lock : catalog_load(folder, &catalog, error);

    if (result)
        return result;
    found = catalog_find(&catalog, name, version);
    if (!found)
        return error_set(error, ERROR_NOT_FOUND, "%s: %s%s%s is not in the catalog", archive, name,
                         version && *version ? "@" : "", version ? version : "");
    return attach_to(folder, &catalog, found, profile, error);
}

int profile_carry_over(int folder, const struct catalog *catalog, const char *name, const char *version,
                       struct error *error)
{
    cleanup(profile_finish) struct profile profile = {0};
    cleanup(buffer_finish) struct buffer bytes = {0};
    cleanup(hints_finish) struct hints hints = {0};
    const struct catalog_version *newest = catalog_find(catalog, name, version), *before = NULL;
    char path[ARCHIVE_PATH_MAX];
    int result;

    for (size_t i = 0; i < catalog->version_count; i++)
        if (!strcmp(catalog->versions[i].name, name) && &catalog->versions[i] != newest)
            before = &catalog->versions[i];
    if (!newest || !before)
        return 0;
    result = hints_load(folder, name, before->version, &hints, error);
    if (result || digest_is_zero(&hints.profile))
        return result;
    result = file_read(folder, archive_path_file(&hints.profile, path), PROFILE_SIZE_MAX, &bytes, error);
    if (!result)
        result = profile_parse(bytes.bytes, bytes.size, &profile, error);
    return result ? result : attach_to(folder, catalog, newest, &profile, error);
}
