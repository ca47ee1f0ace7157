/*
 * Fetching the pages of a tree that are in neither memory nor cache: aligned
 * groups of pages, one range request a group however many lookups wait for it.
 *
 * Where a page lies follows from the presence bits, which no digest covers. If
 * a group's pages are not where the bits say, the bits are fetched once more,
 * from a mirror that has others.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "image/tree_internal.h"

/* Other presence bits are looked for at most so often a group. */
#define REPAIRS_MAX 3

DEFINE_CLEANUP(map_presence_destroy, struct map_presence *)

struct group {
    struct tree *tree;
    uint64_t first;                     /* page */
    unsigned count;                     /* pages, at most GROUP_PAGES */
    struct digest digests[GROUP_PAGES]; /* what they must be, zero: not stored */
    enum priority priority;

    uint64_t offset, length;       /* where the presence bits say that the stored ones lie */
    struct digest presence_digest; /* of those bits */
    unsigned repair_count;
    struct error refused;          /* why the pages were not accepted, if they were not */

    struct group *next;      /* the tree's; with its lock */
    struct lookup *waiters;  /* likewise */
};

unsigned tree_level_of(const struct map *map, uint64_t page)
{
    unsigned level = map->level_count - 1;

    while (level && page < map->level_first[level])
        level--;
    return level;
}

static uint64_t group_first(const struct map *map, uint64_t page)
{
    uint64_t level_first = map->level_first[tree_level_of(map, page)];

    return level_first + (page - level_first) / GROUP_PAGES * GROUP_PAGES;
}

static void group_wait(struct group *group, struct lookup *lookup)
{
    lookup->next_waiter = group->waiters;
    group->waiters = lookup;
}

bool tree_fetch_join(struct tree *tree, uint64_t page, struct lookup *lookup)
{
    uint64_t first = group_first(&tree->map, page);
    struct group *group = tree->groups;

    while (group && group->first != first)
        group = group->next;
    if (group)
        group_wait(group, lookup);
    return group != NULL;
}

/* The group is over: its waiters go on, with the pages or with ERROR. */
static void group_end(struct group *group, int code, const struct error *error)
{
    struct tree *tree = group->tree;
    struct lookup *waiters;

    pthread_mutex_lock(&tree->lock);
    for (struct group **link = &tree->groups; *link; link = &(*link)->next)
        if (*link == group) {
            *link = group->next;
            break;
        }
    waiters = group->waiters;
    for (struct lookup *waiter = waiters; code && waiter; waiter = waiter->next_waiter)
        error_set(&waiter->error, code, "%s", error->message);
    pthread_mutex_unlock(&tree->lock);
    free(group);
    while (waiters) {
        struct lookup *waiter = waiters;

        waiters = waiter->next_waiter;
        tree_lookup_resume(waiter);
    }
}

/* Do the bits and the digests say the same of every page of the group? If so, say where it lies. */
static bool group_place(struct group *group, const struct map_presence *presence)
{
    uint64_t offset = 0;

    group->length = 0;
    for (unsigned i = 0; i < group->count; i++) {
        bool stored = map_presence_find(presence, group->first + i, &offset);

        if (stored == digest_is_zero(&group->digests[i]))
            return false;
        if (stored && !group->length)
            group->offset = offset;
        group->length += stored ? MAP_PAGE_SIZE : 0;
    }
    return true;
}

static int pages_accept(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct group *group = user;
    struct tree *tree = group->tree;
    struct cache *cache = store_cache(tree->store);
    const uint8_t *page = bytes;
    struct digest digest;

    if (size != group->length)
        return error_set(error, ERROR_CORRUPT, "%s is truncated at byte %" PRIu64, tree->path,
                         group->offset + size);
    for (unsigned i = 0; i < group->count; i++) {
        if (digest_is_zero(&group->digests[i]))
            continue;
        digest_of(page, MAP_PAGE_SIZE, &digest);
        if (!digest_equal(&digest, &group->digests[i]))
            return error_set(error, ERROR_CORRUPT, "page %" PRIu64 " of %s does not match its digest",
                             group->first + i, tree->path);
        page += MAP_PAGE_SIZE;
    }
    if (cache)
        cache_write_map(cache, &tree->image_id, group->offset, bytes, size);
    page = bytes;
    pthread_mutex_lock(&tree->lock);
    for (unsigned i = 0; i < group->count; i++) {
        if (digest_is_zero(&group->digests[i]))
            continue;
        page_memory_keep(&tree->pages, group->first + i, page);
        page += MAP_PAGE_SIZE;
    }
    pthread_mutex_unlock(&tree->lock);
    return 0;
}

static void group_fetch(struct group *group);

/* Accept a head whose presence bits are others than those at hand and agree with the group's digests. */
static int repair_accept(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct group *group = user;
    struct tree *tree = group->tree;
    struct cache *cache = store_cache(tree->store);
    cleanup(cleanup_map_presence_destroy) struct map_presence *presence = NULL, *old = NULL;
    struct digest digest;
    struct map map;
    int result = tree_head_parse(tree, bytes, size, &map, &presence, error);

    if (result)
        return result;
    if (!presence)
        return error_set(error, ERROR_CORRUPT, "%s is truncated to %zu bytes", tree->path, size);
    tree_presence_digest(&map, bytes, &digest);
    if (digest_equal(&digest, &group->presence_digest) || !group_place(group, presence))
        return error_set(error, ERROR_CORRUPT, "pages %" PRIu64 " to %" PRIu64 " of %s are not where its "
                         "presence bits say", group->first, group->first + group->count - 1, tree->path);
    if (cache)
        cache_write_map(cache, &tree->image_id, 0, bytes, map_pages_offset(&map));
    pthread_mutex_lock(&tree->lock);
    old = tree->presence;
    tree->presence = steal_pointer(&presence);
    tree->presence_digest = digest;
    pthread_mutex_unlock(&tree->lock);
    return 0;
}

static void repair_done(void *user, int code, const struct error *error)
{
    struct group *group = user;

    if (!code)
        group_fetch(group);
    else if (code == ERROR_CORRUPT && group->refused.code)
        group_end(group, group->refused.code, &group->refused);
    else
        group_end(group, code, error);
}

static void repair(struct group *group)
{
    const struct mirrors_request request = {
        .path = group->tree->path,
        .length = map_pages_offset(&group->tree->map),
        .size_limit = map_pages_offset(&group->tree->map),
        .priority = group->priority,
        .fresh = true,
        .accept = repair_accept,
        .done = repair_done,
        .user = group,
    };

    group->repair_count++;
    mirrors_fetch(store_mirrors(group->tree->store), &request);
}

static void pages_done(void *user, int code, const struct error *error)
{
    struct group *group = user;
    bool sure;

    pthread_mutex_lock(&group->tree->lock);
    sure = group->tree->presence_sure;
    pthread_mutex_unlock(&group->tree->lock);
    if (code == ERROR_CORRUPT && !sure && group->repair_count < REPAIRS_MAX) {
        error_copy(&group->refused, error);
        repair(group);
    } else {
        group_end(group, code, error);
    }
}

static void group_fetch(struct group *group)
{
    struct tree *tree = group->tree;
    struct mirrors_request request = {
        .path = tree->path,
        .priority = group->priority,
        .accept = pages_accept,
        .done = pages_done,
        .user = group,
    };
    struct error error = ERROR_INIT;
    bool placed;

    if (!store_mirrors(tree->store)) {
        error_set(&error, ERROR_UNAVAILABLE, "page %" PRIu64 " of %s is not in the cache", group->first,
                  tree->path);
        group_end(group, error.code, &error);
        return;
    }
    pthread_mutex_lock(&tree->lock);
    placed = group_place(group, tree->presence);
    group->presence_digest = tree->presence_digest;
    pthread_mutex_unlock(&tree->lock);
    if (placed) {
        request.offset = group->offset;
        request.length = request.size_limit = group->length;
        mirrors_fetch(store_mirrors(tree->store), &request);
    } else if (group->repair_count < REPAIRS_MAX) {
        repair(group);
    } else {
        error_set(&error, ERROR_CORRUPT, "every mirror's presence bits of %s are wrong", tree->path);
        group_end(group, error.code, &error);
    }
}

/* What the group's pages must be, from their parent. False if that is not in memory. */
static bool group_expect(struct group *group)
{
    struct tree *tree = group->tree;
    const uint8_t *parent;
    unsigned entry;

    if (group->first == 0) {
        group->digests[0] = tree->map.root;
        return true;
    }
    parent = page_memory_find(&tree->pages, map_parent(&tree->map, group->first, &entry));
    if (!parent)
        return false;
    memcpy(group->digests, map_page_entry(parent, entry), group->count * DIGEST_SIZE);
    return true;
}

bool tree_fetch_begin(struct tree *tree, uint64_t page, enum priority priority, struct lookup *lookup)
{
    const struct map *map = &tree->map;
    unsigned level = tree_level_of(map, page);
    struct group *group = calloc(1, sizeof(*group));

    if (!group)
        return false;
    group->tree = tree;
    group->priority = priority;
    group->first = group_first(map, page);
    group->count = (unsigned)min_u64(GROUP_PAGES, map->level_first[level] + map->level_pages[level] -
                                                      group->first);
    if (!group_expect(group)) {
        free(group);
        return false;
    }
    group->next = tree->groups;
    tree->groups = group;
    group_wait(group, lookup);
    pthread_mutex_unlock(&tree->lock);
    group_fetch(group);
    pthread_mutex_lock(&tree->lock);
    return true;
}
