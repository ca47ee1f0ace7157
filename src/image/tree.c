/*
 * The tree: see tree.h. A lookup finds its page in memory, or loads the pages
 * from the deepest known ancestor down: from the cache, or with a fetch for
 * which it waits in a list, not in a thread.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/latch.h"
#include "image/tree_internal.h"

/* Pages that one lookup may wait for without getting on; more means that memory is too small for anything. */
#define ROUNDS_MAX (8 * MAP_MAX_LEVELS)

int tree_open(struct store *store, const struct digest *image_id, struct tree **tree_out, struct error *error)
{
    struct tree *tree = calloc(1, sizeof(*tree));
    int result;

    if (!tree)
        return error_set(error, ERROR_SYSTEM, "no memory for a map");
    tree->store = store;
    tree->image_id = *image_id;
    archive_path_map(image_id, tree->path);
    pthread_mutex_init(&tree->lock, NULL);
    result = page_memory_init(&tree->pages, TREE_MEMORY, error);
    if (!result)
        result = tree_head_open(tree, error);
    if (result) {
        tree_close(tree);
        return result;
    }
    *tree_out = tree;
    return 0;
}

void tree_close(struct tree *tree)
{
    if (!tree)
        return;
    page_memory_finish(&tree->pages);
    map_presence_destroy(tree->presence);
    pthread_mutex_destroy(&tree->lock);
    free(tree);
}

const struct map *tree_map(const struct tree *tree)
{
    return &tree->map;
}

enum found { FOUND, EMPTY, MISSING };

/*
 * Find PAGE in memory. EMPTY: an entry above says that it holds only zeros. MISSING: the page that has to be
 * loaded first, whose parent is in memory, and its digest.
 */
static enum found find_page(struct tree *tree, uint64_t page, const uint8_t **bytes_out, uint64_t *missing_out,
                            struct digest *digest_out)
{
    const struct digest *digest = &tree->map.root;
    const uint8_t *parent;
    unsigned entry;

    *bytes_out = page_memory_find(&tree->pages, page);
    if (*bytes_out)
        return FOUND;
    while (page) {
        uint64_t above = map_parent(&tree->map, page, &entry);

        parent = page_memory_find(&tree->pages, above);
        if (parent) {
            digest = map_page_entry(parent, entry);
            break;
        }
        page = above;
    }
    *missing_out = page;
    *digest_out = *digest;
    return digest_is_zero(digest) ? EMPTY : MISSING;
}

/* With the lock held, released meanwhile: read PAGE from the cache and keep it in memory. False: not there, or bad. */
static bool load_cached(struct tree *tree, uint64_t page, const struct digest *expected)
{
    struct cache *cache = store_cache(tree->store);
    uint8_t bytes[MAP_PAGE_SIZE];
    struct digest digest;
    uint64_t offset;
    int result;

    if (!cache || !map_presence_find(tree->presence, page, &offset))
        return false;
    pthread_mutex_unlock(&tree->lock);
    result = cache_read_map(cache, &tree->image_id, offset, bytes, sizeof(bytes), NULL);
    if (!result) {
        digest_of(bytes, sizeof(bytes), &digest);
        result = digest_equal(&digest, expected) ? 0 : ERROR_CORRUPT;
    }
    pthread_mutex_lock(&tree->lock);
    if (!result)
        page_memory_keep(&tree->pages, page, bytes);
    return !result;
}

/* Copy the entries that the lookup wants of the page where it is now; BYTES NULL: a page of zeros. */
static void copy_entries(struct lookup *lookup, const uint8_t *bytes)
{
    unsigned entry = lookup->next % MAP_FANOUT;
    size_t count = min_u64(lookup->end - lookup->next, MAP_FANOUT - entry);

    if (bytes)
        memcpy(lookup->digests_out, map_page_entry(bytes, entry), count * DIGEST_SIZE);
    else
        memset(lookup->digests_out, 0, count * DIGEST_SIZE);
    lookup->digests_out += count;
    lookup->next += count;
    lookup->round_count = 0;
}

/* With the lock held: as far as memory goes. True: all is there. */
static bool advance_in_memory(struct lookup *lookup, uint64_t *missing_out, struct digest *digest_out)
{
    struct tree *tree = lookup->tree;

    while (lookup->next < lookup->end) {
        uint64_t page = tree->map.level_first[lookup->level] + lookup->next / MAP_FANOUT;
        const uint8_t *bytes;

        if (find_page(tree, page, &bytes, missing_out, digest_out) == MISSING)
            return false;
        copy_entries(lookup, bytes);
    }
    return true;
}

/* With the lock held, sometimes released: go on until all is there, or it failed (true), or it waits (false). */
static bool advance(struct lookup *lookup)
{
    struct tree *tree = lookup->tree;
    struct digest digest;
    uint64_t page;

    while (!lookup->error.code && !advance_in_memory(lookup, &page, &digest)) {
        if (++lookup->round_count > ROUNDS_MAX) {
            error_set(&lookup->error, ERROR_SYSTEM, "no memory for page %" PRIu64 " of %s", page, tree->path);
            break;
        }
        if (tree_fetch_join(tree, page, lookup))
            return false;
        if (load_cached(tree, page, &digest))
            continue;
        /* Another lookup may have begun to fetch it while the lock was released. */
        if (tree_fetch_join(tree, page, lookup))
            return false;
        if (tree_fetch_begin(tree, page, lookup->priority, lookup) && !lookup->again)
            return false;
        lookup->again = false;
    }
    return true;
}

void tree_lookup_resume(struct lookup *lookup)
{
    struct tree *tree = lookup->tree;
    bool over;

    pthread_mutex_lock(&tree->lock);
    if (lookup->running) {
        /* Its group arrived before the thread that asked for it came back: that thread goes on. */
        lookup->again = true;
        pthread_mutex_unlock(&tree->lock);
        return;
    }
    lookup->running = true;
    over = advance(lookup);
    lookup->running = false;
    pthread_mutex_unlock(&tree->lock);
    if (!over)
        return;
    lookup->done(lookup->user, lookup->error.code, lookup->error.code ? &lookup->error : NULL);
    free(lookup);
}

/* COUNT entries of LEVEL, see struct lookup. */
static void lookup_entries(struct tree *tree, unsigned level, uint64_t first, uint64_t count,
                           enum priority priority, struct digest *digests_out,
                           void (*done)(void *user, int code, const struct error *error), void *user)
{
    struct lookup *lookup = malloc(sizeof(*lookup));
    struct error error = ERROR_INIT;

    if (!lookup) {
        error_set(&error, ERROR_SYSTEM, "no memory to look blocks up");
        done(user, error.code, &error);
        return;
    }
    *lookup = (struct lookup){
        .tree = tree,
        .level = level,
        .next = first,
        .end = first + count,
        .digests_out = digests_out,
        .priority = priority,
        .done = done,
        .user = user,
    };
    tree_lookup_resume(lookup);
}

void tree_lookup_async(struct tree *tree, uint64_t first, uint32_t count, enum priority priority,
                       struct digest *digests_out, void (*done)(void *user, int code, const struct error *error),
                       void *user)
{
    struct error error = ERROR_INIT;

    if (first > tree->map.block_count || count > tree->map.block_count - first) {
        error_set(&error, ERROR_INVALID, "block %" PRIu64 " is behind the end of the disk", first + count - 1);
        done(user, error.code, &error);
        return;
    }
    lookup_entries(tree, tree->map.level_count - 1, first, count, priority, digests_out, done, user);
}

int tree_lookup(struct tree *tree, uint64_t first, uint32_t count, enum priority priority,
                struct digest *digests_out, struct error *error)
{
    struct latch latch;
    int result;

    latch_init(&latch);
    tree_lookup_async(tree, first, count, priority, digests_out, latch_set, &latch);
    result = latch_wait(&latch, error);
    latch_finish(&latch);
    return result;
}

/* Entries of LEVEL: the pages of the next, or the blocks. */
static uint64_t entry_count(const struct map *map, unsigned level)
{
    return level + 1 < map->level_count ? map->level_pages[level + 1] : map->block_count;
}

/* Blocks below one entry of LEVEL. */
static uint64_t entry_span(const struct map *map, unsigned level)
{
    uint64_t span = 1;

    while (++level < map->level_count)
        span *= MAP_FANOUT;
    return span;
}

/*
 * In the page of LEVEL that covers *BLOCK, move *BLOCK to the first block from there on that is below an entry that
 * is not zero. *FOUND_OUT false: none, and *BLOCK is behind the page.
 */
static int skip_zeros(struct tree *tree, unsigned level, uint64_t *block, bool *found_out, struct error *error)
{
    uint64_t span = entry_span(&tree->map, level);
    uint64_t first = *block / span;
    uint64_t count = min_u64(entry_count(&tree->map, level) - first, MAP_FANOUT - first % MAP_FANOUT);
    struct digest digests[MAP_FANOUT];
    struct latch latch;
    uint64_t i = 0;
    int result;

    latch_init(&latch);
    lookup_entries(tree, level, first, count, PRIORITY_READER, digests, latch_set, &latch);
    result = latch_wait(&latch, error);
    latch_finish(&latch);
    if (result)
        return result;
    while (i < count && digest_is_zero(&digests[i]))
        i++;
    if (i)
        *block = (first + i) * span;
    *found_out = i < count;
    return 0;
}

int tree_next_data(struct tree *tree, uint64_t first, uint64_t limit, uint64_t *block_out, struct error *error)
{
    const struct map *map = &tree->map;
    uint64_t block = first;

    limit = min_u64(limit, map->block_count);
    while (block < limit) {
        bool found = true;

        for (unsigned level = 0; level < map->level_count && found; level++) {
            int result = skip_zeros(tree, level, &block, &found, error);

            if (result)
                return result;
        }
        if (found)
            break;
    }
    *block_out = min_u64(block, limit);
    return 0;
}
