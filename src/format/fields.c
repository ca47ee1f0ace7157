/* Names and sizes as they stand in JSON: see fields.h. */
#include "format/fields.h"

#include "format/map.h"

int field_name(const struct json_value *object, const char *member, enum json_need need, char *text_out,
               struct error *error)
{
    struct error reason = ERROR_INIT;
    char text[NAME_MAX_LENGTH + 1] = "";
    int result = json_get_text(object, member, need, text, sizeof(text), error);

    if (result || (need == JSON_OPTIONAL && !json_has(object, member)))
        return result;
    if (name_check("it", text, &reason))
        return json_fault(object, member, reason.message, error);
    strcpy(text_out, text);
    return 0;
}

int field_sizes_parse(const struct json_value *object, struct field_sizes *sizes_out, struct error *error)
{
    struct error reason = ERROR_INIT;
    uint64_t block_size;
    struct map map;
    int result =
        json_get_number(object, "disk_size", JSON_REQUIRED, 1, DISK_SIZE_MAX, &sizes_out->disk_size, error);

    if (!result)
        result = json_get_number(object, "block_size", JSON_REQUIRED, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX,
                                 &block_size, error);
    if (result)
        return result;
    sizes_out->block_size = (uint32_t)block_size;
    if (map_init(&map, sizes_out->block_size, sizes_out->disk_size, &reason))
        return json_fault(object, "block_size", reason.message, error);
    result = json_get_number(object, "data_size", JSON_REQUIRED, 0, map.block_count * block_size,
                             &sizes_out->data_size, error);
    if (result)
        return result;
    return json_get_number(object, "stored_size", JSON_REQUIRED, 0, INT64_MAX, &sizes_out->stored_size,
                           error);
}

void field_sizes_put(struct json_writer *writer, const struct field_sizes *sizes)
{
    json_put_number(writer, "disk_size", sizes->disk_size);
    json_put_number(writer, "block_size", sizes->block_size);
    json_put_number(writer, "data_size", sizes->data_size);
    json_put_number(writer, "stored_size", sizes->stored_size);
}
