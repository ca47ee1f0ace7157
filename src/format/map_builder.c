/*
 * Builds a map's file. The tree is kept as it will be written, a node a page,
 * and only nodes under which a digest was set exist.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/map.h"

struct node {
    uint8_t page[MAP_PAGE_SIZE];
    struct node *children[]; /* MAP_FANOUT of them, but none on the last level */
};

struct map_builder {
    struct map map;
    struct node *root; /* NULL: nothing set yet */
};

static bool is_last(const struct map_builder *builder, unsigned level)
{
    return level + 1 == builder->map.level_count;
}

static struct node *make_node(const struct map_builder *builder, unsigned level)
{
    size_t children = is_last(builder, level) ? 0 : MAP_FANOUT;

    return calloc(1, sizeof(struct node) + children * sizeof(struct node *));
}

static void destroy_node(const struct map_builder *builder, struct node *node, unsigned level)
{
    if (!node)
        return;
    if (!is_last(builder, level))
        for (unsigned i = 0; i < MAP_FANOUT; i++)
            destroy_node(builder, node->children[i], level + 1);
    free(node);
}

int map_builder_create(uint32_t block_size, uint64_t disk_size, struct map_builder **builder_out,
                       struct error *error)
{
    auto_free struct map_builder *builder = calloc(1, sizeof(*builder));
    int result;

    if (!builder)
        return error_set(error, ERROR_SYSTEM, "no memory for a map");
    result = map_init(&builder->map, block_size, disk_size, error);
    if (result)
        return result;
    *builder_out = steal_pointer(&builder);
    return 0;
}

void map_builder_destroy(struct map_builder *builder)
{
    if (!builder)
        return;
    destroy_node(builder, builder->root, 0);
    free(builder);
}

/* Which child of a node on LEVEL the way to BLOCK goes through. */
static unsigned entry_of(const struct map_builder *builder, unsigned level, uint64_t block)
{
    for (unsigned below = builder->map.level_count - 1 - level; below > 0; below--)
        block /= MAP_FANOUT;
    return (unsigned)(block % MAP_FANOUT);
}

/* The last-level node of BLOCK. With MAKE, NULL means no memory; without, that nothing is set there. */
static struct node *find_leaf(struct map_builder *builder, uint64_t block, bool make)
{
    struct node **slot = &builder->root;

    for (unsigned level = 0;; level++) {
        if (!*slot && make)
            *slot = make_node(builder, level);
        if (!*slot || is_last(builder, level))
            return *slot;
        slot = &(*slot)->children[entry_of(builder, level, block)];
    }
}

int map_builder_set(struct map_builder *builder, uint64_t block, const struct digest *digest,
                    struct error *error)
{
    bool zero = digest_is_zero(digest);
    struct node *leaf;

    if (block >= builder->map.block_count)
        return error_set(error, ERROR_INVALID, "block %llu is past the last of %llu",
                         (unsigned long long)block, (unsigned long long)builder->map.block_count);
    leaf = find_leaf(builder, block, !zero);
    if (!leaf)
        return zero ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a map");
    memcpy(leaf->page + block % MAP_FANOUT * DIGEST_SIZE, digest->bytes, DIGEST_SIZE);
    return 0;
}

/* Fill NODE's page from its children, bottom up; DIGEST_OUT is the page's, zero if nothing is under it. */
static void seal(const struct map_builder *builder, struct node *node, unsigned level,
                 struct digest *digest_out)
{
    *digest_out = (struct digest){0};
    if (!node)
        return;
    if (!is_last(builder, level))
        for (unsigned i = 0; i < MAP_FANOUT; i++) {
            struct digest child;

            seal(builder, node->children[i], level + 1, &child);
            memcpy(node->page + i * DIGEST_SIZE, child.bytes, DIGEST_SIZE);
        }
    if (!bytes_are_zero(node->page, MAP_PAGE_SIZE))
        digest_of(node->page, MAP_PAGE_SIZE, digest_out);
}

/* Append the pages of level TARGET that lie under NODE, in order, and set their presence bits. INDEX: NODE's
 * on LEVEL. */
static bool emit(const struct map_builder *builder, const struct node *node, unsigned level, uint64_t index,
                 unsigned target, struct buffer *file)
{
    uint64_t page = builder->map.level_first[level] + index;

    if (!node || bytes_are_zero(node->page, MAP_PAGE_SIZE))
        return true;
    if (level == target) {
        file->bytes[MAP_HEADER_SIZE + page / 8] |= (uint8_t)(1U << page % 8);
        return buffer_append(file, node->page, MAP_PAGE_SIZE);
    }
    for (unsigned i = 0; i < MAP_FANOUT; i++)
        if (!emit(builder, node->children[i], level + 1, index * MAP_FANOUT + i, target, file))
            return false;
    return true;
}

/* Header and unset presence bits. */
static bool begin_file(const struct map *map, struct buffer *file)
{
    uint64_t size = map_pages_offset(map);

    file->size = 0;
    if (size > SIZE_MAX / 2 || !buffer_reserve(file, (size_t)size))
        return false;
    memset(file->bytes, 0, (size_t)size);
    map_format_header(map, file->bytes);
    file->size = (size_t)size;
    return true;
}

int map_builder_finish(struct map_builder *builder, struct buffer *file, struct map *map_out,
                       struct error *error)
{
    bool fits;

    seal(builder, builder->root, 0, &builder->map.root);
    fits = begin_file(&builder->map, file);
    for (unsigned level = 0; fits && level < builder->map.level_count; level++)
        fits = emit(builder, builder->root, 0, 0, level, file);
    if (!fits)
        return error_set(error, ERROR_SYSTEM, "no memory for a map of %llu pages",
                         (unsigned long long)builder->map.page_count);
    *map_out = builder->map;
    return 0;
}
