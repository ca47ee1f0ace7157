/* The map's header and presence bits, as a client reads the head of a map file. */
#include "fuzz.h"

#include "format/map.h"

#define PAGES_LOOKED_AT 2048

/* Pages that are present lie inside the file in the order of their numbers, and hang from a page above. */
static void check_pages(const struct map *map, const struct map_presence *presence)
{
    uint64_t step = map->page_count / PAGES_LOOKED_AT + 1;
    uint64_t least = map_pages_offset(map), offset;
    unsigned entry;

    for (uint64_t page = 0; page < map->page_count; page += step) {
        if (page)
            must(map_parent(map, page, &entry) < page && entry < MAP_FANOUT);
        if (!map_presence_find(presence, page, &offset))
            continue;
        must(offset >= least && (step > 1 || offset == least));
        must(offset + MAP_PAGE_SIZE <= map_presence_file_size(presence));
        least = offset + MAP_PAGE_SIZE;
    }
    must(step > 1 || map_presence_file_size(presence) == least);
    must(!map_presence_find(presence, map->page_count, &offset));
}

static void check_shape(const struct map *map)
{
    unsigned entry;
    uint64_t last = map->block_count - 1;

    must(map->level_count >= 1 && map->level_count <= MAP_MAX_LEVELS && map->level_pages[0] == 1);
    must(map_page_of_block(map, last, &entry) == map->page_count - 1);
    must(last * map->block_size + map_block_length(map, last) == map->disk_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct map map;
    struct map_presence *presence;
    uint8_t again[MAP_HEADER_SIZE];
    int result = map_parse_header(bytes, size, &map, &error);

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    map_format_header(&map, again);
    must(!memcmp(again, bytes, sizeof(again)));
    check_shape(&map);
    if (size - MAP_HEADER_SIZE < map_presence_size(&map))
        return 0;
    presence = map_presence_create(&map, bytes + MAP_HEADER_SIZE);
    must(presence);
    check_pages(&map, presence);
    map_presence_destroy(presence);
    return 0;
}
