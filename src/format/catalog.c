/* The catalog: JSON to struct and back, and the list's few operations. See catalog.h. */
#include "format/catalog.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "format/fields.h"

#define FORMAT "circular-catalog-1"

static int parse_archive(const struct json_value *document, struct catalog *catalog, struct error *error)
{
    uint8_t id[(ARCHIVE_ID_TEXT - 1) / 2];
    int result = json_get_text(document, "archive", JSON_REQUIRED, catalog->archive, ARCHIVE_ID_TEXT, error);

    if (result)
        return result;
    if (strlen(catalog->archive) != ARCHIVE_ID_TEXT - 1 || !hex_decode(catalog->archive, id, sizeof(id)))
        return json_fault(document, "archive", "not 32 hexadecimal digits", error);
    return 0;
}

static int parse_head(const struct json_value *document, struct catalog *catalog, struct error *error)
{
    int result = json_check_format(document, FORMAT, error);

    if (!result)
        result = parse_archive(document, catalog, error);
    if (!result)
        result = json_get_number(document, "serial", JSON_REQUIRED, 1, INT64_MAX, &catalog->serial, error);
    if (!result)
        result = json_get_time(document, "published", JSON_REQUIRED, &catalog->published, error);
    if (!result)
        result = json_get_time(document, "expires", JSON_REQUIRED, &catalog->expires, error);
    if (!result && catalog->expires < catalog->published)
        result = json_fault(document, "expires", "is before it was published", error);
    return result;
}

static int parse_version(const struct json_value *item, struct catalog_version *version, struct error *error)
{
    struct field_sizes sizes;
    int result = field_name(item, "name", JSON_REQUIRED, version->name, error);

    if (!result)
        result = field_name(item, "version", JSON_REQUIRED, version->version, error);
    if (!result)
        result = json_get_digest(item, "manifest", JSON_REQUIRED, &version->manifest, error);
    if (!result)
        result = json_get_digest(item, "image", JSON_REQUIRED, &version->image, error);
    if (!result)
        result = field_sizes_parse(item, &sizes, error);
    if (!result)
        result = json_get_time(item, "published", JSON_REQUIRED, &version->published, error);
    if (result)
        return result;
    version->disk_size = sizes.disk_size;
    version->block_size = sizes.block_size;
    version->data_size = sizes.data_size;
    version->stored_size = sizes.stored_size;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct catalog_version *x = *(const struct catalog_version *const *)a;
    const struct catalog_version *y = *(const struct catalog_version *const *)b;
    int order = strcmp(x->name, y->name);

    return order ? order : strcmp(x->version, y->version);
}

/* A version may stand only once; sorted, since a hostile list may be long. */
static int check_unique(const struct catalog *catalog, struct error *error)
{
    auto_free const struct catalog_version **sorted = calloc(catalog->version_count + 1, sizeof(*sorted));

    if (!sorted)
        return error_set(error, ERROR_SYSTEM, "catalog: no memory");
    for (size_t i = 0; i < catalog->version_count; i++)
        sorted[i] = &catalog->versions[i];
    qsort(sorted, catalog->version_count, sizeof(*sorted), compare);
    for (size_t i = 1; i < catalog->version_count; i++)
        if (!compare(&sorted[i - 1], &sorted[i]))
            return error_set(error, ERROR_CORRUPT, "catalog: versions: %s@%s stands twice", sorted[i]->name,
                             sorted[i]->version);
    return 0;
}

static int parse_versions(const struct json_value *document, struct catalog *catalog, struct error *error)
{
    struct json_value array, item;
    size_t count;
    int result = json_get_array(document, "versions", JSON_REQUIRED, CATALOG_SIZE_MAX, &array, &count, error);

    if (result || count == 0)
        return result;
    catalog->versions = calloc(count, sizeof(catalog->versions[0]));
    if (!catalog->versions)
        return error_set(error, ERROR_SYSTEM, "catalog: no memory for %zu versions", count);
    for (size_t i = 0; !result && i < count; i++) {
        result = json_item_object(&array, i, &item, error);
        if (!result)
            result = parse_version(&item, &catalog->versions[i], error);
    }
    catalog->version_count = count;
    return result ? result : check_unique(catalog, error);
}

int catalog_parse(const void *bytes, size_t size, struct catalog *catalog_out, struct error *error)
{
    struct json_value document;
    int result = json_open("catalog", bytes, size, CATALOG_SIZE_MAX, &document, error);

    *catalog_out = (struct catalog){0};
    if (result)
        return result;
    result = parse_head(&document, catalog_out, error);
    if (!result)
        result = parse_versions(&document, catalog_out, error);
    json_close(&document);
    if (result)
        catalog_finish(catalog_out);
    return result;
}

static void format_version(struct json_writer *writer, const struct catalog_version *version)
{
    struct field_sizes sizes = {version->disk_size, version->block_size, version->data_size,
                                version->stored_size};

    json_begin_item(writer);
    json_put_text(writer, "name", version->name);
    json_put_text(writer, "version", version->version);
    json_put_digest(writer, "manifest", &version->manifest);
    json_put_digest(writer, "image", &version->image);
    field_sizes_put(writer, &sizes);
    json_put_time(writer, "published", version->published);
    json_end(writer);
}

char *catalog_format(const struct catalog *catalog)
{
    struct json_writer *writer = json_writer_create();

    json_put_text(writer, "format", FORMAT);
    json_put_text(writer, "archive", catalog->archive);
    json_put_number(writer, "serial", catalog->serial);
    json_put_time(writer, "published", catalog->published);
    json_put_time(writer, "expires", catalog->expires);
    json_begin_array(writer, "versions");
    for (size_t i = 0; i < catalog->version_count; i++)
        format_version(writer, &catalog->versions[i]);
    json_end(writer);
    return json_print(writer);
}

void catalog_finish(struct catalog *catalog)
{
    free(catalog->versions);
    *catalog = (struct catalog){0};
}

void catalog_make_id(char id[ARCHIVE_ID_TEXT])
{
    uint8_t bytes[(ARCHIVE_ID_TEXT - 1) / 2];

    /* So few bytes come whole; before the kernel's pool is ready the call waits. */
    while (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        ;
    hex_encode(bytes, sizeof(bytes), id);
}

const struct catalog_version *catalog_find(const struct catalog *catalog, const char *name,
                                           const char *version)
{
    for (size_t i = catalog->version_count; i > 0; i--) {
        const struct catalog_version *candidate = &catalog->versions[i - 1];

        if (!strcmp(candidate->name, name) && (!version || !*version || !strcmp(candidate->version, version)))
            return candidate;
    }
    return NULL;
}

int catalog_add(struct catalog *catalog, const struct catalog_version *version, struct error *error)
{
    struct catalog_version *versions;

    if (catalog_find(catalog, version->name, version->version))
        return error_set(error, ERROR_EXISTS, "%s@%s is published already", version->name, version->version);
    versions = reallocarray(catalog->versions, catalog->version_count + 1, sizeof(*versions));
    if (!versions)
        return error_set(error, ERROR_SYSTEM, "no memory for another version");
    catalog->versions = versions;
    versions[catalog->version_count++] = *version;
    return 0;
}

int catalog_remove(struct catalog *catalog, const char *name, const char *version, struct error *error)
{
    const struct catalog_version *found = *version ? catalog_find(catalog, name, version) : NULL;
    size_t index;

    if (!found)
        return error_set(error, ERROR_NOT_FOUND, "there is no %s@%s", name, version);
    index = (size_t)(found - catalog->versions);
    catalog->version_count--;
    memmove(catalog->versions + index, catalog->versions + index + 1,
            (catalog->version_count - index) * sizeof(catalog->versions[0]));
    return 0;
}
