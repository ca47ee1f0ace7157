/* A pack's header and table. See pack.h. */
#include "format/pack.h"

#include <stdlib.h>

#include "format/frame.h"
#include "format/map.h"

static const uint8_t magic[8] = {'O', 'S', 'C', 'P', 'A', 'C', 'K', '1'};
#define VERSION 1

/* Field offsets in the header and in an entry. */
enum { AT_VERSION = 8, AT_COUNT = 12, AT_FILE_SIZE = 16, AT_RESERVED = 24 };
enum { ENTRY_OFFSET = 32, ENTRY_FRAME = 40, ENTRY_BLOCK = 44 };

uint64_t pack_table_size(uint32_t count)
{
    return PACK_HEADER_SIZE + (uint64_t)count * PACK_ENTRY_SIZE;
}

int pack_parse_header(const uint8_t *bytes, size_t size, uint64_t *table_size_out, struct error *error)
{
    uint32_t count;

    if (size < PACK_HEADER_SIZE)
        return error_set(error, ERROR_CORRUPT, "pack: header has %zu bytes of %d", size, PACK_HEADER_SIZE);
    if (memcmp(bytes, magic, sizeof(magic)) != 0)
        return error_set(error, ERROR_CORRUPT, "pack: does not begin with OSCPACK1");
    if (load_le32(bytes + AT_VERSION) != VERSION)
        return error_set(error, ERROR_CORRUPT, "pack: version %u is not known",
                         load_le32(bytes + AT_VERSION));
    if (!bytes_are_zero(bytes + AT_RESERVED, PACK_HEADER_SIZE - AT_RESERVED))
        return error_set(error, ERROR_CORRUPT, "pack: reserved bytes are not zero");
    count = load_le32(bytes + AT_COUNT);
    if (count == 0 || count > PACK_ENTRIES_MAX)
        return error_set(error, ERROR_CORRUPT, "pack: %u entries, not 1 to %d", count, PACK_ENTRIES_MAX);
    if (load_le64(bytes + AT_FILE_SIZE) <= pack_table_size(count))
        return error_set(error, ERROR_CORRUPT, "pack: %llu bytes have no room for %u entries",
                         (unsigned long long)load_le64(bytes + AT_FILE_SIZE), count);
    *table_size_out = pack_table_size(count);
    return 0;
}

/* What is wrong with an entry whose frame may lie from FREE_FROM to FILE_SIZE; NULL: nothing. */
static const char *fault_of_entry(const struct pack_entry *entry, uint64_t free_from, uint64_t file_size)
{
    if (digest_is_zero(&entry->digest))
        return "the digest is all zero";
    if (entry->block_length == 0 || entry->block_length > BLOCK_SIZE_MAX)
        return "the block's length is out of range";
    if (entry->frame_size == 0 || entry->frame_size > frame_bound(entry->block_length))
        return "the frame's length is out of range";
    if (entry->offset < free_from)
        return "lies over what is before it";
    if (entry->offset > file_size || entry->frame_size > file_size - entry->offset)
        return "reaches past the end of the file";
    return NULL;
}

static int parse_entries(const uint8_t *bytes, struct pack_table *table, struct error *error)
{
    uint64_t free_from = pack_table_size(table->count);

    for (uint32_t i = 0; i < table->count; i++, bytes += PACK_ENTRY_SIZE) {
        struct pack_entry *entry = &table->entries[i];
        const char *fault;

        memcpy(entry->digest.bytes, bytes, DIGEST_SIZE);
        entry->offset = load_le64(bytes + ENTRY_OFFSET);
        entry->frame_size = load_le32(bytes + ENTRY_FRAME);
        entry->block_length = load_le32(bytes + ENTRY_BLOCK);
        fault = fault_of_entry(entry, free_from, table->file_size);
        if (fault)
            return error_set(error, ERROR_CORRUPT, "pack: entry %u: %s", i, fault);
        free_from = entry->offset + entry->frame_size;
    }
    return 0;
}

int pack_parse_table(const uint8_t *bytes, size_t size, struct pack_table *table_out, struct error *error)
{
    uint64_t table_size;
    int result = pack_parse_header(bytes, size, &table_size, error);

    *table_out = (struct pack_table){0};
    if (result)
        return result;
    if (size != table_size)
        return error_set(error, ERROR_CORRUPT, "pack: header and table have %zu bytes where %llu belong",
                         size, (unsigned long long)table_size);
    table_out->count = load_le32(bytes + AT_COUNT);
    table_out->file_size = load_le64(bytes + AT_FILE_SIZE);
    table_out->entries = calloc(table_out->count, sizeof(table_out->entries[0]));
    if (!table_out->entries)
        return error_set(error, ERROR_SYSTEM, "pack: no memory for %u entries", table_out->count);
    result = parse_entries(bytes + PACK_HEADER_SIZE, table_out, error);
    if (result)
        pack_table_finish(table_out);
    return result;
}

int pack_parse_table_of(const struct digest *name, const uint8_t *bytes, size_t size, struct pack_table *table_out,
                        struct error *error)
{
    struct digest found;

    digest_of(bytes, size, &found);
    if (digest_equal(&found, name))
        return pack_parse_table(bytes, size, table_out, error);
    *table_out = (struct pack_table){0};
    return error_set(error, ERROR_CORRUPT, "the table's digest is not the pack's name");
}

void pack_table_finish(struct pack_table *table)
{
    free(table->entries);
    *table = (struct pack_table){0};
}

/* Lay the frames one after the other behind the table. */
static int place_frames(struct pack_table *table, struct error *error)
{
    uint64_t at = pack_table_size(table->count);

    if (table->count == 0 || table->count > PACK_ENTRIES_MAX)
        return error_set(error, ERROR_INVALID, "a pack has 1 to %d entries, not %u", PACK_ENTRIES_MAX,
                         table->count);
    table->file_size = UINT64_MAX;
    for (uint32_t i = 0; i < table->count; i++) {
        const char *fault;

        table->entries[i].offset = at;
        fault = fault_of_entry(&table->entries[i], at, table->file_size);
        if (fault)
            return error_set(error, ERROR_INVALID, "pack: entry %u: %s", i, fault);
        at += table->entries[i].frame_size;
    }
    table->file_size = at;
    return 0;
}

static void write_entry(const struct pack_entry *entry, uint8_t bytes[PACK_ENTRY_SIZE])
{
    memcpy(bytes, entry->digest.bytes, DIGEST_SIZE);
    store_le64(bytes + ENTRY_OFFSET, entry->offset);
    store_le32(bytes + ENTRY_FRAME, entry->frame_size);
    store_le32(bytes + ENTRY_BLOCK, entry->block_length);
}

int pack_format_table(struct pack_table *table, struct buffer *out, struct digest *name_out,
                      struct error *error)
{
    int result = place_frames(table, error);
    size_t size = (size_t)pack_table_size(table->count);

    if (result)
        return result;
    out->size = 0;
    if (!buffer_reserve(out, size))
        return error_set(error, ERROR_SYSTEM, "pack: no memory for %u entries", table->count);
    memset(out->bytes, 0, PACK_HEADER_SIZE);
    memcpy(out->bytes, magic, sizeof(magic));
    store_le32(out->bytes + AT_VERSION, VERSION);
    store_le32(out->bytes + AT_COUNT, table->count);
    store_le64(out->bytes + AT_FILE_SIZE, table->file_size);
    for (uint32_t i = 0; i < table->count; i++)
        write_entry(&table->entries[i], out->bytes + pack_table_size(i));
    out->size = size;
    digest_of(out->bytes, size, name_out);
    return 0;
}
