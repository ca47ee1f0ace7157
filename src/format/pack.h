/*
 * A pack: many frames in one file, in a chosen order. circular-pack(5).
 * packs/<digest of the table>.pack, so its name says which blocks it holds and where.
 *
 *   offset 0    header, 32 bytes
 *       0   8   magic "OSCPACK1"
 *       8   4   version, 1
 *      12   4   entry count, 1 to 16777216
 *      16   8   file size in bytes
 *      24   8   reserved, 0
 *   offset 32   table: an entry of 48 bytes for each frame, in the order of the frames
 *       0  32   digest of the block
 *      32   8   offset of the frame from the start of the file; entries do not overlap and rise
 *      40   4   length of the frame in bytes, at least 1
 *      44   4   length of the block in bytes (the frame's content), at most 1048576
 *   then        the frames
 * The pack's name is the SHA-256 of header and table together.
 */
#ifndef FORMAT_PACK_H
#define FORMAT_PACK_H

#include "base/error.h"
#include "base/hash.h"

#define PACK_HEADER_SIZE 32
#define PACK_ENTRY_SIZE 48
#define PACK_ENTRIES_MAX 16777216

struct pack_entry {
    struct digest digest;
    uint64_t offset;
    uint32_t frame_size;
    uint32_t block_length;
};

struct pack_table {
    struct pack_entry *entries;
    uint32_t count;
    uint64_t file_size;
};

/* Bytes of header and table for COUNT entries. */
uint64_t pack_table_size(uint32_t count);

/* Size of header and table from the first PACK_HEADER_SIZE bytes. ERROR_CORRUPT. */
int pack_parse_header(const uint8_t *bytes, size_t size, uint64_t *table_size_out, struct error *error);

/* Parse header and table (exactly pack_table_size bytes); checks order, overlap and bounds. */
int pack_parse_table(const uint8_t *bytes, size_t size, struct pack_table *table_out, struct error *error);

/* The same of the pack NAME: ERROR_CORRUPT also if it is not. */
int pack_parse_table_of(const struct digest *name, const uint8_t *bytes, size_t size, struct pack_table *table_out,
                        struct error *error);
void pack_table_finish(struct pack_table *table);

/*
 * Write header and table into OUT (replaced). Offsets and file size are computed here from the
 * frame sizes: the caller fills digest, frame_size and block_length. NAME_OUT: the digest.
 */
int pack_format_table(struct pack_table *table, struct buffer *out, struct digest *name_out, struct error *error);

#endif
