/*
 * The head of a map: header and presence bits, and with them in one request
 * the upper levels of the tree. What the cache holds of it is used first.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "image/tree_internal.h"

/* Asked for at once: header, bits and upper levels of any usual disk, often most of its map. */
#define HEAD_SIZE (512 * KIB)

DEFINE_CLEANUP(map_presence_destroy, struct map_presence *)

/* A page of the file in file order, and what it must be. */
struct stored {
    uint64_t number;
    struct digest digest;
};

struct head {
    struct tree *tree;
    uint64_t wanted;      /* bytes that were asked for */
    struct buffer bytes;  /* of the accepted answer */
    struct map map;
    struct map_presence *presence; /* NULL: the answer ends within the bits, ask for more */
    struct stored *pages; /* those that lie in BYTES, verified */
    size_t page_count;
    bool sure;            /* every presence bit was checked */
};

void tree_presence_digest(const struct map *map, const uint8_t *bytes, struct digest *digest_out)
{
    digest_of(bytes + MAP_HEADER_SIZE, map_presence_size(map), digest_out);
}

int tree_head_parse(const struct tree *tree, const uint8_t *bytes, size_t size, struct map *map_out,
                    struct map_presence **presence_out, struct error *error)
{
    struct digest id;
    uint64_t ignored;
    int result;

    *presence_out = NULL;
    if (size < MAP_HEADER_SIZE)
        return error_set(error, ERROR_CORRUPT, "%s is truncated to %zu bytes", tree->path, size);
    digest_of(bytes, MAP_HEADER_SIZE, &id);
    if (!digest_equal(&id, &tree->image_id))
        return error_set(error, ERROR_CORRUPT, "the header of %s is not that of the image", tree->path);
    result = map_parse_header(bytes, MAP_HEADER_SIZE, map_out, error);
    if (result)
        return error_prefix(error, "%s", tree->path);
    if (map_presence_size(map_out) > PRESENCE_MAX)
        return error_set(error, ERROR_UNSUPPORTED, "%s: a disk of %" PRIu64 " blocks is too large", tree->path,
                         map_out->block_count);
    if (size < map_pages_offset(map_out))
        return 0;
    *presence_out = map_presence_create(map_out, bytes + MAP_HEADER_SIZE);
    if (!*presence_out)
        return error_set(error, ERROR_SYSTEM, "no memory for the presence bits of %s", tree->path);
    if (map_presence_find(*presence_out, 0, &ignored) == digest_is_zero(&map_out->root)) {
        map_presence_destroy(*presence_out);
        *presence_out = NULL;
        return error_set(error, ERROR_CORRUPT, "the presence bits of %s contradict its root", tree->path);
    }
    return 0;
}

/*
 * Walk of the stored pages in the order of the file, which is that of their numbers: each verified inner page says
 * which pages come later, and so what all presence bits must be.
 */
struct walk {
    const struct head *head;
    struct stored *pages;
    size_t capacity;       /* pages that lie wholly in the answer */
    size_t count;          /* of them, known so far */
    uint64_t stored_count; /* pages of the whole file, known so far */
    bool complete;         /* no inner page lies behind the answer's end */
};

static int walk_add(struct walk *walk, uint64_t number, bool inner, const struct digest *digest,
                    struct error *error)
{
    const struct head *head = walk->head;
    bool want = !digest_is_zero(digest);
    uint64_t offset = 0;

    if (map_presence_find(head->presence, number, &offset) != want)
        return error_set(error, ERROR_CORRUPT, "presence bit %" PRIu64 " of %s is wrong", number,
                         head->tree->path);
    if (!want)
        return 0;
    /* Behind an inner page that is not here, the count is only a lower bound. */
    if (walk->complete && offset != map_pages_offset(&head->map) + walk->stored_count * MAP_PAGE_SIZE)
        return error_set(error, ERROR_CORRUPT, "a presence bit before %" PRIu64 " of %s is wrong", number,
                         head->tree->path);
    walk->stored_count++;
    if (walk->count < walk->capacity)
        walk->pages[walk->count++] = (struct stored){number, *digest};
    else if (inner)
        walk->complete = false;
    return 0;
}

static int walk_children(struct walk *walk, uint64_t page, const uint8_t *bytes, struct error *error)
{
    const struct map *map = &walk->head->map;
    unsigned level = tree_level_of(map, page);
    uint64_t index = (page - map->level_first[level]) * MAP_FANOUT;
    int result = 0;

    if (level + 1 == map->level_count)
        return 0;
    for (unsigned i = 0; i < MAP_FANOUT && index + i < map->level_pages[level + 1] && !result; i++)
        result = walk_add(walk, map->level_first[level + 1] + index + i, level + 2 < map->level_count,
                          map_page_entry(bytes, i), error);
    return result;
}

/* Verify every page that lies in the answer. */
static int verify_pages(struct head *head, const uint8_t *bytes, size_t size, struct error *error)
{
    uint64_t pages_offset = map_pages_offset(&head->map);
    uint64_t file_size = map_presence_file_size(head->presence);
    struct walk walk = {.head = head, .complete = true};
    int result;

    if (size < min_u64(file_size, head->wanted))
        return error_set(error, ERROR_CORRUPT, "%s is truncated to %zu of %" PRIu64 " bytes", head->tree->path,
                         size, file_size);
    walk.capacity = (min_u64(size, file_size) - pages_offset) / MAP_PAGE_SIZE;
    free(head->pages);
    head->pages = walk.pages = calloc(walk.capacity + 1, sizeof(*walk.pages));
    if (!walk.pages)
        return error_set(error, ERROR_SYSTEM, "no memory for %s", head->tree->path);
    result = walk_add(&walk, 0, head->map.level_count > 1, &head->map.root, error);
    for (size_t i = 0; i < walk.count && !result; i++) {
        const uint8_t *page = bytes + pages_offset + i * MAP_PAGE_SIZE;
        struct digest digest;

        digest_of(page, MAP_PAGE_SIZE, &digest);
        if (!digest_equal(&digest, &walk.pages[i].digest))
            return error_set(error, ERROR_CORRUPT, "page %" PRIu64 " of %s does not match its digest",
                             walk.pages[i].number, head->tree->path);
        result = walk_children(&walk, walk.pages[i].number, page, error);
    }
    head->page_count = walk.count;
    if (!result && walk.complete && pages_offset + walk.stored_count * MAP_PAGE_SIZE != file_size)
        return error_set(error, ERROR_CORRUPT, "presence bits of %s that should be clear are set",
                         head->tree->path);
    head->sure = walk.complete;
    return result;
}

static int head_accept(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct head *head = user;
    int result;

    map_presence_destroy(head->presence);
    result = tree_head_parse(head->tree, bytes, size, &head->map, &head->presence, error);
    if (result)
        return result;
    if (!head->presence)
        return size < head->wanted ? error_set(error, ERROR_CORRUPT, "%s is truncated to %zu bytes",
                                               head->tree->path, size)
                                   : 0;
    result = verify_pages(head, bytes, size, error);
    if (result)
        return result;
    head->bytes.size = 0;
    if (!buffer_append(&head->bytes, bytes, map_pages_offset(&head->map) + head->page_count * MAP_PAGE_SIZE))
        return error_set(error, ERROR_SYSTEM, "no memory for %s", head->tree->path);
    return 0;
}

static int head_fetch(struct head *head, uint64_t wanted, struct error *error)
{
    const struct mirrors_request request = {
        .path = head->tree->path,
        .length = wanted,
        .size_limit = wanted,
        .priority = PRIORITY_READER,
        .accept = head_accept,
        .user = head,
    };
    int result;

    head->wanted = wanted;
    result = mirrors_fetch_wait(store_mirrors(head->tree->store), &request, error);
    return result == ERROR_NOT_FOUND ? error_prefix(error, "the image's map is missing") : result;
}

static void head_finish(struct head *head)
{
    map_presence_destroy(head->presence);
    buffer_finish(&head->bytes);
    free(head->pages);
}

/* Take over what HEAD holds, and keep it in memory and cache. */
static void tree_take_head(struct tree *tree, struct head *head)
{
    uint64_t pages_offset = map_pages_offset(&head->map);
    struct cache *cache = store_cache(tree->store);

    tree->map = head->map;
    tree->presence = steal_pointer(&head->presence);
    tree->presence_sure = head->sure;
    tree_presence_digest(&tree->map, head->bytes.bytes, &tree->presence_digest);
    for (size_t i = 0; i < head->page_count; i++)
        page_memory_keep(&tree->pages, head->pages[i].number,
                         head->bytes.bytes + pages_offset + i * MAP_PAGE_SIZE);
    if (cache)
        cache_write_map(cache, &tree->image_id, 0, head->bytes.bytes, head->bytes.size);
}

static int open_fetched(struct tree *tree, struct error *error)
{
    cleanup(head_finish) struct head head = {.tree = tree};
    int result;

    if (!store_mirrors(tree->store))
        return error_set(error, ERROR_UNAVAILABLE, "%s is not in the cache", tree->path);
    result = head_fetch(&head, HEAD_SIZE, error);
    /* The bits of a huge disk are longer than that. */
    if (!result && !head.presence)
        result = head_fetch(&head, map_pages_offset(&head.map) + HEAD_SIZE, error);
    if (!result)
        tree_take_head(tree, &head);
    return result;
}

/* Header and bits from the cache. Pages are read from there when they are wanted. */
static int open_cached(struct tree *tree)
{
    struct cache *cache = store_cache(tree->store);
    cleanup(cleanup_map_presence_destroy) struct map_presence *presence = NULL;
    cleanup(buffer_finish) struct buffer bytes = {0};
    struct map map;
    int result;

    if (!cache || !buffer_reserve(&bytes, MAP_HEADER_SIZE))
        return ERROR_NOT_FOUND;
    result = cache_read_map(cache, &tree->image_id, 0, bytes.bytes, MAP_HEADER_SIZE, NULL);
    if (!result)
        result = tree_head_parse(tree, bytes.bytes, MAP_HEADER_SIZE, &map, &presence, NULL);
    if (result)
        return result;
    bytes.size = map_pages_offset(&map);
    if (!buffer_reserve(&bytes, 0))
        return ERROR_SYSTEM;
    result = cache_read_map(cache, &tree->image_id, 0, bytes.bytes, bytes.size, NULL);
    if (!result)
        result = tree_head_parse(tree, bytes.bytes, bytes.size, &map, &presence, NULL);
    if (result || !presence)
        return result ? result : ERROR_CORRUPT;
    tree->map = map;
    tree_presence_digest(&map, bytes.bytes, &tree->presence_digest);
    tree->presence = steal_pointer(&presence);
    return 0;
}

int tree_head_open(struct tree *tree, struct error *error)
{
    return open_cached(tree) ? open_fetched(tree, error) : 0;
}
