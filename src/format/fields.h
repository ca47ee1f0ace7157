/* Groups of JSON members that several formats share. */
#ifndef FORMAT_FIELDS_H
#define FORMAT_FIELDS_H

#include "format/json.h"
#include "format/name.h"

/* A member that passes name_check. TEXT_OUT holds NAME_MAX_LENGTH + 1. */
int field_name(const struct json_value *object, const char *member, enum json_need need, char *text_out,
               struct error *error);

/* disk_size, block_size, data_size, stored_size of an image, in the ranges that circular-map(5) allows. */
struct field_sizes {
    uint64_t disk_size;
    uint32_t block_size;
    uint64_t data_size;
    uint64_t stored_size;
};

int field_sizes_parse(const struct json_value *object, struct field_sizes *sizes_out, struct error *error);
void field_sizes_put(struct json_writer *writer, const struct field_sizes *sizes);

#endif
