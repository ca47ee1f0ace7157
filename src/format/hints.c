/* Hints: JSON to struct and back. See hints.h. */
#include "format/hints.h"

#include <stdlib.h>

#include "format/fields.h"
#include "format/name.h"
#include "format/pack.h"

#define FORMAT    "circular-hints-1"
#define KIND_TEXT 8

static int parse_mirror(const struct json_value *array, size_t index, char **mirror_out, struct error *error)
{
    struct error reason = ERROR_INIT;
    struct location location;
    const char *text;
    int result = json_item_text(array, index, &text, error);

    if (result)
        return result;
    if (location_parse_archive(text, &location, &reason))
        return json_item_fault(array, index, reason.message, error);
    /* Unsigned text from the network must not make a client read local files. */
    if (!location_is_http(location.archive)) {
        location_finish(&location);
        return json_item_fault(array, index, "not an http or https URL", error);
    }
    *mirror_out = location.archive;
    return 0;
}

static int parse_mirrors(const struct json_value *document, struct hints *hints, struct error *error)
{
    struct json_value array;
    size_t count;
    int result = json_get_array(document, "mirrors", JSON_OPTIONAL, HINTS_MIRRORS_MAX, &array, &count, error);

    if (result || count == 0)
        return result;
    hints->mirrors = calloc(count, sizeof(hints->mirrors[0]));
    if (!hints->mirrors)
        return error_set(error, ERROR_SYSTEM, "hints: no memory for %zu mirrors", count);
    for (; !result && hints->mirror_count < count; hints->mirror_count += !result)
        result = parse_mirror(&array, hints->mirror_count, &hints->mirrors[hints->mirror_count], error);
    return result;
}

/* Could a pack be TABLE_SIZE bytes of header and table, and SIZE in all? */
static bool sizes_fit(uint64_t size, uint64_t table_size)
{
    return table_size >= pack_table_size(1) && table_size <= pack_table_size(PACK_ENTRIES_MAX) &&
           (table_size - PACK_HEADER_SIZE) % PACK_ENTRY_SIZE == 0 && table_size < size;
}

static int parse_segments(const struct json_value *item, struct hints_pack *pack, struct error *error)
{
    struct json_value array;
    uint64_t last = 0;
    int result = json_get_array(item, "segments", JSON_OPTIONAL, HINTS_SEGMENTS_MAX, &array,
                                &pack->segment_count, error);

    if (result || pack->segment_count == 0)
        return result;
    pack->segments = calloc(pack->segment_count, sizeof(pack->segments[0]));
    if (!pack->segments)
        return error_set(error, ERROR_SYSTEM, "hints: no memory for %zu segments", pack->segment_count);
    for (size_t i = 0; !result && i < pack->segment_count; i++) {
        result = json_item_number(&array, i, 1, INT64_MAX, &pack->segments[i], error);
        if (!result && (pack->segments[i] < pack->table_size || pack->segments[i] <= last ||
                        pack->segments[i] >= pack->size))
            result = json_item_fault(&array, i, "not a rising offset of a frame", error);
        last = pack->segments[i];
    }
    return result;
}

static int parse_pack(const struct json_value *item, struct hints_pack *pack, struct error *error)
{
    char kind[KIND_TEXT];
    int result = json_get_digest(item, "pack", JSON_REQUIRED, &pack->table, error);

    if (!result)
        result = json_get_text(item, "kind", JSON_REQUIRED, kind, sizeof(kind), error);
    if (!result)
        result = json_get_number(item, "size", JSON_REQUIRED, 0, INT64_MAX, &pack->size, error);
    if (!result)
        result = json_get_number(item, "table_size", JSON_REQUIRED, 0, INT64_MAX, &pack->table_size, error);
    if (result)
        return result;
    if (!sizes_fit(pack->size, pack->table_size))
        return json_fault(item, "table_size", "not the size of a table in such a pack", error);
    pack->boot = !strcmp(kind, "boot");
    if (!pack->boot && strcmp(kind, "rest") != 0)
        return json_fault(item, "kind", "neither boot nor rest", error);
    return parse_segments(item, pack, error);
}

static int parse_packs(const struct json_value *document, struct hints *hints, struct error *error)
{
    struct json_value array, item;
    size_t count;
    int result = json_get_array(document, "packs", JSON_OPTIONAL, HINTS_PACKS_MAX, &array, &count, error);

    if (result || count == 0)
        return result;
    hints->packs = calloc(count, sizeof(hints->packs[0]));
    if (!hints->packs)
        return error_set(error, ERROR_SYSTEM, "hints: no memory for %zu packs", count);
    hints->pack_count = count;
    for (size_t i = 0; !result && i < count; i++) {
        result = json_item_object(&array, i, &item, error);
        if (!result)
            result = parse_pack(&item, &hints->packs[i], error);
    }
    return result;
}

int hints_parse(const void *bytes, size_t size, struct hints *hints_out, struct error *error)
{
    struct json_value document;
    int result = json_open("hints", bytes, size, HINTS_SIZE_MAX, &document, error);

    *hints_out = (struct hints){0};
    if (result)
        return result;
    result = json_check_format(&document, FORMAT, error);
    if (!result)
        result = field_name(&document, "version", JSON_OPTIONAL, hints_out->version, error);
    if (!result)
        result = json_get_digest(&document, "image", JSON_OPTIONAL, &hints_out->image, error);
    if (!result)
        result = parse_mirrors(&document, hints_out, error);
    if (!result)
        result = parse_packs(&document, hints_out, error);
    if (!result)
        result = json_get_digest(&document, "profile", JSON_OPTIONAL, &hints_out->profile, error);
    json_close(&document);
    if (result)
        hints_finish(hints_out);
    return result;
}

static void format_pack(struct json_writer *writer, const struct hints_pack *pack)
{
    json_begin_item(writer);
    json_put_digest(writer, "pack", &pack->table);
    json_put_text(writer, "kind", pack->boot ? "boot" : "rest");
    json_put_number(writer, "size", pack->size);
    json_put_number(writer, "table_size", pack->table_size);
    if (pack->segment_count) {
        json_begin_array(writer, "segments");
        for (size_t i = 0; i < pack->segment_count; i++)
            json_put_number(writer, NULL, pack->segments[i]);
        json_end(writer);
    }
    json_end(writer);
}

char *hints_format(const struct hints *hints)
{
    struct json_writer *writer = json_writer_create();

    json_put_text(writer, "format", FORMAT);
    if (hints->version[0])
        json_put_text(writer, "version", hints->version);
    if (!digest_is_zero(&hints->image))
        json_put_digest(writer, "image", &hints->image);
    if (hints->mirror_count) {
        json_begin_array(writer, "mirrors");
        for (size_t i = 0; i < hints->mirror_count; i++)
            json_put_text(writer, NULL, hints->mirrors[i]);
        json_end(writer);
    }
    if (hints->pack_count) {
        json_begin_array(writer, "packs");
        for (size_t i = 0; i < hints->pack_count; i++)
            format_pack(writer, &hints->packs[i]);
        json_end(writer);
    }
    if (!digest_is_zero(&hints->profile))
        json_put_digest(writer, "profile", &hints->profile);
    return json_print(writer);
}

void hints_finish(struct hints *hints)
{
    for (size_t i = 0; i < hints->mirror_count; i++)
        free(hints->mirrors[i]);
    free(hints->mirrors);
    for (size_t i = 0; i < hints->pack_count; i++)
        free(hints->packs[i].segments);
    free(hints->packs);
    *hints = (struct hints){0};
}
