/* A whole map: read, verified from the root down, and walked. */
#include "image/map_file.h"

#include "base/file.h"
#include "format/name.h"

/* One walk over the tree. */
struct walk {
    const struct map_file *file;
    bool verify; /* compare each page with its digest */
    int (*found)(void *user, uint64_t block, const struct digest *digest);
    void *user;
    struct error *error;
};

/* The bytes of a stored page; NULL if it is not stored, or would lie past the end. */
static const uint8_t *find_page(const struct map_file *file, uint64_t page)
{
    uint64_t offset;

    if (!map_presence_find(file->presence, page, &offset) || offset + MAP_PAGE_SIZE > file->bytes.size)
        return NULL;
    return file->bytes.bytes + offset;
}

static const uint8_t *take_page(const struct walk *walk, uint64_t page, const struct digest *digest)
{
    const uint8_t *bytes = find_page(walk->file, page);
    struct digest actual;

    if (!walk->verify)
        return bytes;
    if (!bytes) {
        error_set(walk->error, ERROR_CORRUPT, "page %llu is missing", (unsigned long long)page);
        return NULL;
    }
    digest_of(bytes, MAP_PAGE_SIZE, &actual);
    if (digest_equal(&actual, digest))
        return bytes;
    error_set(walk->error, ERROR_CORRUPT, "page %llu does not match its digest", (unsigned long long)page);
    return NULL;
}

/* PAGE is the INDEXth of LEVEL. */
static int walk_page(const struct walk *walk, unsigned level, uint64_t index, const struct digest *digest)
{
    const struct map *map = &walk->file->map;
    bool last = level + 1 == map->level_count;
    uint64_t below = last ? map->block_count : map->level_pages[level + 1];
    const uint8_t *page = take_page(walk, map->level_first[level] + index, digest);
    int result = 0;

    if (!page)
        return ERROR_CORRUPT;
    for (unsigned entry = 0; !result && entry < MAP_FANOUT; entry++) {
        const struct digest *child = map_page_entry(page, entry);
        uint64_t number = index * MAP_FANOUT + entry;

        if (digest_is_zero(child))
            continue;
        if (number >= below)
            return error_set(walk->error, ERROR_CORRUPT, "page %llu has an entry past the end of the disk",
                             (unsigned long long)(map->level_first[level] + index));
        if (!last)
            result = walk_page(walk, level + 1, number, child);
        else if (walk->found)
            result = walk->found(walk->user, number, child);
    }
    return result;
}

static int walk_map(const struct walk *walk)
{
    return digest_is_zero(&walk->file->map.root) ? 0 : walk_page(walk, 0, 0, &walk->file->map.root);
}

static int check(struct map_file *file, const struct digest *image_id, struct error *error)
{
    struct walk walk = {.file = file, .verify = true, .error = error};
    struct digest id;
    int result;

    if (file->bytes.size < MAP_HEADER_SIZE)
        return error_set(error, ERROR_CORRUPT, "it has only %zu bytes", file->bytes.size);
    digest_of(file->bytes.bytes, MAP_HEADER_SIZE, &id);
    if (!digest_equal(&id, image_id))
        return error_set(error, ERROR_CORRUPT, "its header does not match the image id");
    result = map_parse_header(file->bytes.bytes, file->bytes.size, &file->map, error);
    if (result)
        return result;
    if (file->bytes.size < map_pages_offset(&file->map))
        return error_set(error, ERROR_CORRUPT, "it is truncated to %zu bytes", file->bytes.size);
    file->presence = map_presence_create(&file->map, file->bytes.bytes + MAP_HEADER_SIZE);
    if (!file->presence)
        return error_set(error, ERROR_SYSTEM, "no memory for a map");
    if (map_presence_file_size(file->presence) != file->bytes.size)
        return error_set(error, ERROR_CORRUPT, "it has %zu bytes instead of %llu", file->bytes.size,
                         (unsigned long long)map_presence_file_size(file->presence));
    return walk_map(&walk);
}

int map_file_read(int folder, const struct digest *image_id, struct map_file *file_out, struct error *error)
{
    char path[ARCHIVE_PATH_MAX];
    int result;

    *file_out = (struct map_file){0};
    archive_path_map(image_id, path);
    result = file_read(folder, path, SIZE_MAX / 4, &file_out->bytes, error);
    if (!result) {
        result = check(file_out, image_id, error);
        if (result)
            error_prefix(error, "%s", path);
    }
    if (result)
        map_file_finish(file_out);
    return result;
}

void map_file_finish(struct map_file *file)
{
    map_presence_destroy(file->presence);
    file->presence = NULL;
    buffer_finish(&file->bytes);
}

int map_file_each(const struct map_file *file, int (*found)(void *user, uint64_t block, const struct digest *digest),
                  void *user)
{
    struct walk walk = {.file = file, .found = found, .user = user};

    return walk_map(&walk);
}
