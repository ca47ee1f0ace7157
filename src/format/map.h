/*
 * The mapping table of an image: which digest each block has, as a Merkle tree
 * of 4 KiB pages that can be fetched and verified one by one. circular-map(5).
 *
 * File maps/<image id>.map:
 *   offset 0    header, 64 bytes
 *       0   8   magic "OSCMAP1\n"
 *       8   4   version, 1
 *      12   4   block size in bytes, a power of two, 4096 to 1048576
 *      16   8   disk size in bytes, 1 to 2^56
 *      24   8   reserved, 0
 *      32  32   root: the digest of page 0 (all-zero for a disk of zeros)
 *   offset 64   presence: one bit a page, least significant bit first, padded with 0 bits to a
 *               multiple of 8 bytes. Bit n is set if page n is stored. Not covered by any
 *               digest: a wrong bit leads to a wrong page, and that fails its digest.
 *   then        the stored pages, 4096 bytes each, in the order of their numbers
 *
 * Pages are numbered from the root (0) down, level by level. A page holds 128 entries of 32
 * bytes: digests of the next level's pages, and on the last level digests of blocks; unused
 * entries are zero. A page whose entries are all zero is not stored and its digest in the
 * level above is all-zero.
 * The image id is the SHA-256 of the 64 header bytes.
 */
#ifndef FORMAT_MAP_H
#define FORMAT_MAP_H

#include "base/error.h"
#include "base/hash.h"

#define MAP_HEADER_SIZE 64
#define MAP_PAGE_SIZE 4096
#define MAP_FANOUT 128
#define MAP_MAX_LEVELS 8
#define BLOCK_SIZE_MIN 4096
#define BLOCK_SIZE_MAX 1048576
#define BLOCK_SIZE_DEFAULT 65536
#define DISK_SIZE_MAX (UINT64_C(1) << 56)

/* The header, and the shape of the tree that follows from it. */
struct map {
    uint32_t block_size;
    uint64_t disk_size;
    struct digest root;

    uint64_t block_count;
    uint64_t page_count;
    unsigned level_count;                  /* at least 1 */
    uint64_t level_first[MAP_MAX_LEVELS];  /* number of the first page of each level, root first */
    uint64_t level_pages[MAP_MAX_LEVELS];  /* pages on each level */
};

/* Fill everything but ROOT (zeroed) from sizes. ERROR_INVALID if they are out of range. */
int map_init(struct map *map, uint32_t block_size, uint64_t disk_size, struct error *error);

/* Parse MAP_HEADER_SIZE bytes. ERROR_CORRUPT with what is wrong. */
int map_parse_header(const uint8_t *bytes, size_t size, struct map *map_out, struct error *error);
void map_format_header(const struct map *map, uint8_t bytes_out[MAP_HEADER_SIZE]);

/* SHA-256 of the header. */
void map_image_id(const struct map *map, struct digest *id_out);

/* Bytes of block BLOCK: the block size, less for the last one of an odd-sized disk. */
uint32_t map_block_length(const struct map *map, uint64_t block);

/* The last-level page that holds BLOCK's digest, and its entry there. */
uint64_t map_page_of_block(const struct map *map, uint64_t block, unsigned *entry_out);

/* The page one level up that holds PAGE's digest, and its entry. PAGE is not 0. */
uint64_t map_parent(const struct map *map, uint64_t page, unsigned *entry_out);

/* Bytes of the presence bits; file offset of the first stored page. */
uint64_t map_presence_size(const struct map *map);
uint64_t map_pages_offset(const struct map *map);

static inline const struct digest *map_page_entry(const uint8_t page[MAP_PAGE_SIZE], unsigned entry)
{
    return (const struct digest *)(const void *)(page + entry * DIGEST_SIZE);
}

/*
 * Presence bits with ranks: where in the file a stored page lies. Memory is the
 * bits plus 1/8 of that (for 1 TiB of 64 KiB blocks: 18 KiB).
 */
struct map_presence;
/* BITS: map_presence_size bytes, copied. NULL: no memory. */
struct map_presence *map_presence_create(const struct map *map, const uint8_t *bits);
void map_presence_destroy(struct map_presence *presence);
/* False if PAGE is not stored. OFFSET is from the start of the file. */
bool map_presence_find(const struct map_presence *presence, uint64_t page, uint64_t *offset_out);
uint64_t map_presence_file_size(const struct map_presence *presence);

/*
 * Builds the file of a map. Digests come in any order; a block never given is
 * zero. Memory is proportional to the pages that hold something. Not thread-safe.
 */
struct map_builder;
int map_builder_create(uint32_t block_size, uint64_t disk_size, struct map_builder **builder_out,
                       struct error *error);
void map_builder_destroy(struct map_builder *builder);
int map_builder_set(struct map_builder *builder, uint64_t block, const struct digest *digest, struct error *error);
/* The whole file into FILE (replaced) and the finished map (with root) into MAP_OUT. */
int map_builder_finish(struct map_builder *builder, struct buffer *file, struct map *map_out, struct error *error);

#endif
