/* The map's header, and the arithmetic of the tree that follows from it. */
#include "format/map.h"

static const uint8_t magic[8] = "OSCMAP1\n";
#define VERSION 1

/* Field offsets in the header. */
enum { AT_VERSION = 8, AT_BLOCK_SIZE = 12, AT_DISK_SIZE = 16, AT_RESERVED = 24, AT_ROOT = 32 };

/* Number the pages: count them level by level from the blocks upward, then from the root down. */
static void shape(struct map *map)
{
    uint64_t pages[MAP_MAX_LEVELS];
    unsigned levels = 0;
    uint64_t count = map->block_count;

    do {
        count = divide_up(count, MAP_FANOUT);
        pages[levels++] = count;
    } while (count > 1);

    map->level_count = levels;
    map->page_count = 0;
    for (unsigned i = 0; i < levels; i++) {
        map->level_first[i] = map->page_count;
        map->level_pages[i] = pages[levels - 1 - i];
        map->page_count += map->level_pages[i];
    }
}

int map_init(struct map *map, uint32_t block_size, uint64_t disk_size, struct error *error)
{
    *map = (struct map){.block_size = block_size, .disk_size = disk_size};
    if (!is_power_of_two(block_size) || block_size < BLOCK_SIZE_MIN || block_size > BLOCK_SIZE_MAX)
        return error_set(error, ERROR_INVALID, "block size %u is not a power of two from %d to %d",
                         block_size, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
    if (disk_size == 0 || disk_size > DISK_SIZE_MAX)
        return error_set(error, ERROR_INVALID, "disk size %llu is not between 1 and 2^56 bytes",
                         (unsigned long long)disk_size);
    map->block_count = divide_up(disk_size, block_size);
    shape(map);
    return 0;
}

int map_parse_header(const uint8_t *bytes, size_t size, struct map *map_out, struct error *error)
{
    struct error reason = ERROR_INIT;

    if (size < MAP_HEADER_SIZE)
        return error_set(error, ERROR_CORRUPT, "map: header has %zu bytes of %d", size, MAP_HEADER_SIZE);
    if (memcmp(bytes, magic, sizeof(magic)))
        return error_set(error, ERROR_CORRUPT, "map: does not begin with OSCMAP1");
    if (load_le32(bytes + AT_VERSION) != VERSION)
        return error_set(error, ERROR_CORRUPT, "map: version %u is not known", load_le32(bytes + AT_VERSION));
    if (!bytes_are_zero(bytes + AT_RESERVED, AT_ROOT - AT_RESERVED))
        return error_set(error, ERROR_CORRUPT, "map: reserved bytes are not zero");
    if (map_init(map_out, load_le32(bytes + AT_BLOCK_SIZE), load_le64(bytes + AT_DISK_SIZE), &reason))
        return error_set(error, ERROR_CORRUPT, "map: %s", reason.message);
    memcpy(map_out->root.bytes, bytes + AT_ROOT, DIGEST_SIZE);
    return 0;
}

void map_format_header(const struct map *map, uint8_t bytes_out[MAP_HEADER_SIZE])
{
    memset(bytes_out, 0, MAP_HEADER_SIZE);
    memcpy(bytes_out, magic, sizeof(magic));
    store_le32(bytes_out + AT_VERSION, VERSION);
    store_le32(bytes_out + AT_BLOCK_SIZE, map->block_size);
    store_le64(bytes_out + AT_DISK_SIZE, map->disk_size);
    memcpy(bytes_out + AT_ROOT, map->root.bytes, DIGEST_SIZE);
}

void map_image_id(const struct map *map, struct digest *id_out)
{
    uint8_t header[MAP_HEADER_SIZE];

    map_format_header(map, header);
    digest_of(header, sizeof(header), id_out);
}

uint32_t map_block_length(const struct map *map, uint64_t block)
{
    uint64_t start = block * map->block_size;

    return (uint32_t)min_u64(map->block_size, map->disk_size - start);
}

uint64_t map_page_of_block(const struct map *map, uint64_t block, unsigned *entry_out)
{
    *entry_out = (unsigned)(block % MAP_FANOUT);
    return map->level_first[map->level_count - 1] + block / MAP_FANOUT;
}

uint64_t map_parent(const struct map *map, uint64_t page, unsigned *entry_out)
{
    unsigned level = map->level_count - 1;
    uint64_t index;

    while (map->level_first[level] > page)
        level--;
    index = page - map->level_first[level];
    *entry_out = (unsigned)(index % MAP_FANOUT);
    return map->level_first[level - 1] + index / MAP_FANOUT;
}

uint64_t map_presence_size(const struct map *map)
{
    return divide_up(map->page_count, 64) * 8;
}

uint64_t map_pages_offset(const struct map *map)
{
    return MAP_HEADER_SIZE + map_presence_size(map);
}
