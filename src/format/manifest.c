/* The manifest: JSON to struct and back. See manifest.h. */
#include "format/manifest.h"

#include "format/fields.h"

#define FORMAT "circular-manifest-1"

static int parse_head(const struct json_value *document, struct manifest *manifest, struct error *error)
{
    int result = json_check_format(document, FORMAT, error);

    if (!result)
        result = field_name(document, "name", JSON_REQUIRED, manifest->name, error);
    if (!result)
        result = field_name(document, "version", JSON_REQUIRED, manifest->version, error);
    if (!result)
        result = json_get_time(document, "published", JSON_REQUIRED, &manifest->published, error);
    if (!result)
        result = json_get_text(document, "architecture", JSON_OPTIONAL, manifest->architecture,
                               sizeof(manifest->architecture), error);
    if (!result)
        result = json_get_text(document, "description", JSON_OPTIONAL, manifest->description,
                               sizeof(manifest->description), error);
    return result;
}

static int parse_disk(const struct json_value *item, struct manifest_disk *disk, struct error *error)
{
    struct field_sizes sizes;
    int result = json_get_digest(item, "image", JSON_REQUIRED, &disk->image, error);

    if (!result)
        result = field_sizes_parse(item, &sizes, error);
    if (result)
        return result;
    disk->disk_size = sizes.disk_size;
    disk->block_size = sizes.block_size;
    disk->data_size = sizes.data_size;
    disk->stored_size = sizes.stored_size;
    return 0;
}

static int parse_disks(const struct json_value *document, struct manifest *manifest, struct error *error)
{
    struct json_value array, item;
    int result = json_get_array(document, "disks", JSON_REQUIRED, MANIFEST_DISKS_MAX, &array,
                                &manifest->disk_count, error);

    if (!result && manifest->disk_count == 0)
        result = json_fault(document, "disks", "has no disk", error);
    for (size_t i = 0; !result && i < manifest->disk_count; i++) {
        result = json_item_object(&array, i, &item, error);
        if (!result)
            result = parse_disk(&item, &manifest->disks[i], error);
    }
    return result;
}

int manifest_parse(const void *bytes, size_t size, struct manifest *manifest_out, struct error *error)
{
    struct json_value document;
    int result = json_open("manifest", bytes, size, MANIFEST_SIZE_MAX, &document, error);

    *manifest_out = (struct manifest){0};
    if (result)
        return result;
    result = parse_head(&document, manifest_out, error);
    if (!result)
        result = parse_disks(&document, manifest_out, error);
    json_close(&document);
    return result;
}

static void format_disk(struct json_writer *writer, const struct manifest_disk *disk)
{
    struct field_sizes sizes = {disk->disk_size, disk->block_size, disk->data_size, disk->stored_size};

    json_begin_item(writer);
    json_put_digest(writer, "image", &disk->image);
    field_sizes_put(writer, &sizes);
    json_end(writer);
}

char *manifest_format(const struct manifest *manifest)
{
    struct json_writer *writer = json_writer_create();

    json_put_text(writer, "format", FORMAT);
    json_put_text(writer, "name", manifest->name);
    json_put_text(writer, "version", manifest->version);
    json_put_time(writer, "published", manifest->published);
    if (*manifest->architecture)
        json_put_text(writer, "architecture", manifest->architecture);
    if (*manifest->description)
        json_put_text(writer, "description", manifest->description);
    json_begin_array(writer, "disks");
    for (size_t i = 0; i < manifest->disk_count; i++)
        format_disk(writer, &manifest->disks[i]);
    json_end(writer);
    return json_print(writer);
}
