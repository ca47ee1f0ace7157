/* Statistics: see statistics.h. Which member goes where is a table for each object. */
#include "format/statistics.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "format/json.h"

#define FORMAT "circular-statistics-1"
#define WHAT   "statistics"

struct member {
    const char *name;
    size_t offset;
    size_t capacity; /* of a text; 0: a number */
};

#define NUMBER(type, member) {#member, offsetof(struct type, member), 0}
#define TEXT(type, member)   {#member, offsetof(struct type, member), sizeof(((struct type *)0)->member)}

static const struct member statistics_members[] = {
    TEXT(statistics, source),           NUMBER(statistics, process),        NUMBER(statistics, uptime_ms),
    NUMBER(statistics, reads),          NUMBER(statistics, read_bytes),     NUMBER(statistics, memory_hits),
    NUMBER(statistics, cache_hits),     NUMBER(statistics, misses),         NUMBER(statistics, failed),
    NUMBER(statistics, cache_corrupt),  NUMBER(statistics, fetched_blocks), NUMBER(statistics, fetched_bytes),
    NUMBER(statistics, resident_bytes), NUMBER(statistics, held_bytes),     NUMBER(statistics, wait_us),
    {0},
};

static const struct member class_members[] = {
    NUMBER(statistics_class, requests),
    NUMBER(statistics_class, bytes),
    {0},
};

static const struct member mirror_members[] = {
    TEXT(statistics_mirror, mirror),     TEXT(statistics_mirror, state),        TEXT(statistics_mirror, reason),
    NUMBER(statistics_mirror, requests), NUMBER(statistics_mirror, bytes),      NUMBER(statistics_mirror, errors),
    NUMBER(statistics_mirror, missing),  NUMBER(statistics_mirror, bad_blocks), NUMBER(statistics_mirror, hedges),
    NUMBER(statistics_mirror, hedges_won), NUMBER(statistics_mirror, first_byte_us),
    NUMBER(statistics_mirror, slow_us),  NUMBER(statistics_mirror, rate),
    {0},
};

static const struct member wait_members[] = {
    TEXT(statistics_wait, what),   NUMBER(statistics_wait, readers), NUMBER(statistics_wait, age_ms),
    TEXT(statistics_wait, mirror), TEXT(statistics_wait, reason),    {0},
};

const char *statistics_class_name(enum priority priority)
{
    static const char *const names[] = {
        [PRIORITY_READER] = "reader",
        [PRIORITY_READAHEAD] = "readahead",
        [PRIORITY_PROFILE] = "profile",
        [PRIORITY_FILL] = "fill",
    };

    return names[priority];
}

/* Names and reasons come from anywhere, and may have been cut within a character. */
static void put_printable(struct json_writer *writer, const char *member, const char *text)
{
    auto_free char *copy = strdup(text);

    if (copy && json_check_text(copy, NULL))
        for (char *at = copy; *at; at++)
            if ((unsigned char)*at < 0x20 || (unsigned char)*at >= 0x7f)
                *at = '?';
    json_put_text(writer, member, copy ? copy : "");
}

static void put_members(struct json_writer *writer, const struct member *members, const void *base)
{
    for (; members->name; members++) {
        const char *at = (const char *)base + members->offset;

        if (members->capacity)
            put_printable(writer, members->name, at);
        else
            json_put_number(writer, members->name, min_u64(*(const uint64_t *)(const void *)at, INT64_MAX));
    }
}

static void put_items(struct json_writer *writer, const char *name, const struct member *members, const void *items,
                      size_t item_size, size_t count)
{
    json_begin_array(writer, name);
    for (size_t i = 0; i < count; i++) {
        json_begin_item(writer);
        put_members(writer, members, (const char *)items + i * item_size);
        json_end(writer);
    }
    json_end(writer);
}

static void put_classes(struct json_writer *writer, const struct statistics_class *classes)
{
    json_begin_array(writer, "classes");
    for (int i = 0; i < PRIORITY_COUNT; i++) {
        json_begin_item(writer);
        json_put_text(writer, "class", statistics_class_name(i));
        put_members(writer, class_members, &classes[i]);
        json_end(writer);
    }
    json_end(writer);
}

char *statistics_format(const struct statistics *statistics)
{
    struct json_writer *writer = json_writer_create();

    json_put_text(writer, "format", FORMAT);
    put_members(writer, statistics_members, statistics);
    json_begin_array(writer, "waits");
    for (size_t i = 0; i < STATISTICS_BUCKETS; i++)
        json_put_number(writer, NULL, statistics->waits[i]);
    json_end(writer);
    put_classes(writer, statistics->classes);
    put_items(writer, "mirrors", mirror_members, statistics->mirrors, sizeof(statistics->mirrors[0]),
              statistics->mirror_count);
    put_items(writer, "waiting", wait_members, statistics->waiting, sizeof(statistics->waiting[0]),
              statistics->waiting_count);
    return json_print(writer);
}

static int get_members(const struct json_value *object, const struct member *members, void *base,
                       struct error *error)
{
    int result = 0;

    for (; members->name && !result; members++) {
        char *at = (char *)base + members->offset;

        if (members->capacity)
            result = json_get_text(object, members->name, JSON_OPTIONAL, at, members->capacity, error);
        else
            result = json_get_number(object, members->name, JSON_OPTIONAL, 0, INT64_MAX,
                                     (uint64_t *)(void *)at, error);
    }
    return result;
}

/* The objects of the array NAME into ITEMS, at most MOST. */
static int get_items(const struct json_value *document, const char *name, const struct member *members, void *items,
                     size_t item_size, size_t most, size_t *count_out, struct error *error)
{
    struct json_value array, item;
    int result = json_get_array(document, name, JSON_OPTIONAL, most, &array, count_out, error);

    for (size_t i = 0; i < *count_out && !result; i++) {
        result = json_item_object(&array, i, &item, error);
        if (!result)
            result = get_members(&item, members, (char *)items + i * item_size, error);
    }
    return result;
}

static int get_waits(const struct json_value *document, struct statistics *statistics, struct error *error)
{
    struct json_value array;
    size_t count = 0;
    int result = json_get_array(document, "waits", JSON_OPTIONAL, STATISTICS_BUCKETS, &array, &count, error);

    for (size_t i = 0; i < count && !result; i++)
        result = json_item_number(&array, i, 0, INT64_MAX, &statistics->waits[i], error);
    return result;
}

/* A class that this program does not know is passed over. */
static int get_class(const struct json_value *item, struct statistics *statistics, struct error *error)
{
    char name[16] = "";
    int result = json_get_text(item, "class", JSON_REQUIRED, name, sizeof(name), error);

    for (int i = 0; i < PRIORITY_COUNT && !result; i++)
        if (!strcmp(name, statistics_class_name(i)))
            result = get_members(item, class_members, &statistics->classes[i], error);
    return result;
}

static int get_classes(const struct json_value *document, struct statistics *statistics, struct error *error)
{
    struct json_value array, item;
    size_t count = 0;
    int result = json_get_array(document, "classes", JSON_OPTIONAL, 64, &array, &count, error);

    for (size_t i = 0; i < count && !result; i++) {
        result = json_item_object(&array, i, &item, error);
        if (!result)
            result = get_class(&item, statistics, error);
    }
    return result;
}

int statistics_parse(const void *bytes, size_t size, struct statistics *statistics_out, struct error *error)
{
    struct json_value document;
    int result;

    memset(statistics_out, 0, sizeof(*statistics_out));
    result = json_open(WHAT, bytes, size, STATISTICS_SIZE_MAX, &document, error);
    if (result)
        return result;
    result = json_check_format(&document, FORMAT, error);
    if (!result)
        result = get_members(&document, statistics_members, statistics_out, error);
    if (!result)
        result = get_waits(&document, statistics_out, error);
    if (!result)
        result = get_classes(&document, statistics_out, error);
    if (!result)
        result =
            get_items(&document, "mirrors", mirror_members, statistics_out->mirrors, sizeof(statistics_out->mirrors[0]),
                      STATISTICS_MIRRORS, &statistics_out->mirror_count, error);
    if (!result)
        result =
            get_items(&document, "waiting", wait_members, statistics_out->waiting, sizeof(statistics_out->waiting[0]),
                      STATISTICS_WAITING, &statistics_out->waiting_count, error);
    json_close(&document);
    return result;
}
