/* The lvm2 tools' reports: see lvm_report.h. */
#include "format/lvm_report.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define LINE_MAX_LENGTH 8000
#define COLUMNS         11
#define STRIPES_MAX     128 /* as many as lvm2 makes */
#define SECTOR          512 /* all sizes are multiples of it */

/* A line of the report, still text where it was not needed yet. */
struct segment {
    char *group, *name, *attributes, *type, *ranges;
    uint64_t volume_size, stripes, stripe_size, start, size, extent;
};

/* The line at *AT without spaces around it, on to the next. False: it is longer than any should be. */
static bool take_line(const char **at, const char *end, char *line)
{
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *from = *at, *to = newline ? newline : end;
    size_t length;

    *at = newline ? newline + 1 : end;
    while (from < to && *from == ' ')
        from++;
    while (to > from && to[-1] == ' ')
        to--;
    length = (size_t)min_u64((uint64_t)(to - from), LINE_MAX_LENGTH);
    memcpy(line, from, length);
    line[length] = '\0';
    return length == (size_t)(to - from) && strlen(line) == length;
}

static int not_understood(const char *line, struct error *error)
{
    char shown[201];

    snprintf(shown, sizeof(shown), "%.200s", line);
    for (char *c = shown; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
    return error_set(error, ERROR_CORRUPT, "lvm says what is not understood: '%s'", shown);
}

/* Cut LINE at its separators. False: they are not COUNT fields. */
static bool split(char *line, char **fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fields[i] = line ? strsep(&line, LVM_SEPARATOR) : NULL;
        if (!fields[i])
            return false;
    }
    return !line;
}

static bool parse_number(const char *text, uint64_t *number_out)
{
    uint64_t number = 0;

    if (!*text)
        return false;
    for (; *text; text++)
        if (!isdigit((unsigned char)*text) || !checked_mul(number, 10, &number) ||
            !checked_add(number, (uint64_t)(*text - '0'), &number))
            return false;
    *number_out = number;
    return true;
}

/* What the tools say is ASCII, and parts of it are shown. */
static bool is_printable(const char *text)
{
    while (isprint((unsigned char)*text))
        text++;
    return !*text;
}

static bool parse_segment(char *line, struct segment *segment)
{
    char *f[COLUMNS];

    if (!is_printable(line) || !split(line, f, COLUMNS))
        return false;
    *segment = (struct segment){.group = f[0], .name = f[1], .attributes = f[2], .type = f[4], .ranges = f[9]};
    return *f[0] && strlen(f[0]) < LVM_NAME_TEXT && *f[1] && strlen(f[1]) < LVM_NAME_TEXT && strlen(f[2]) >= 9 &&
           *f[4] && parse_number(f[3], &segment->volume_size) && parse_number(f[5], &segment->stripes) &&
           parse_number(f[6], &segment->stripe_size) && parse_number(f[7], &segment->start) &&
           parse_number(f[8], &segment->size) && parse_number(f[10], &segment->extent) && segment->size;
}

/* Linear and striped are all that is bytes on a disk; the first attribute tells what a volume is made of besides. */
static void find_obstacle(const struct segment *segment, struct lvm_volume *volume)
{
    char kind = segment->attributes[0];
    bool plain = !strcmp(segment->type, "linear") || !strcmp(segment->type, "striped");

    if (!plain)
        snprintf(volume->obstacle, sizeof(volume->obstacle), "is of type %.60s", segment->type);
    else if (kind == 's' || kind == 'S')
        snprintf(volume->obstacle, sizeof(volume->obstacle), "is a snapshot");
    else if (kind == 'O')
        snprintf(volume->obstacle, sizeof(volume->obstacle), "is being merged with its snapshot");
    else if (kind != '-' && kind != 'o')
        snprintf(volume->obstacle, sizeof(volume->obstacle), "is being moved or converted (lv_attr %.20s)",
                 segment->attributes);
}

static const struct lvm_physical *find_physical(const struct lvm_physical *list, size_t count, const char *device)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].device, device))
            return &list[i];
    return NULL;
}

/*
 * "DEVICE:FIRST-LAST", both extents of a physical volume, into PLACE_OUT; the SIZE that they hold is known. False: not
 * understood. What lies elsewhere is an obstacle.
 */
static bool parse_range(char *text, const struct segment *segment, uint64_t size, const struct lvm_physical *list,
                        size_t count, struct lvm_volume *volume, uint64_t *place_out)
{
    char *colon = strrchr(text, ':'), *dash = colon ? strchr(colon, '-') : NULL;
    const struct lvm_physical *physical;
    uint64_t first, last, offset, length, end;

    *place_out = 0;
    if (!dash)
        return false;
    *colon = *dash = '\0';
    if (!parse_number(colon + 1, &first) || !parse_number(dash + 1, &last) || last < first ||
        !checked_mul(last - first, segment->extent, &length) || !checked_add(length, segment->extent, &length) ||
        length != size)
        return false;
    physical = find_physical(list, count, text);
    if (!physical)
        snprintf(volume->obstacle, sizeof(volume->obstacle), "lies partly on %.100s, which this disk does not hold",
                 strcmp(text, "[unknown]") ? text : "a physical volume");
    else if (!checked_mul(first, segment->extent, &offset) || !checked_add(offset, physical->area, &offset) ||
             !checked_add(offset, size, &end) || end > physical->size)
        snprintf(volume->obstacle, sizeof(volume->obstacle), "lies partly behind the end of its physical volume");
    else
        *place_out = physical->offset + offset;
    return true;
}

/* Add where SEGMENT lies to VOLUME. False: not understood. */
static bool add_places(struct segment *segment, const struct lvm_physical *list, size_t count,
                       struct lvm_volume *volume)
{
    uint64_t places[STRIPES_MAX], turn = segment->stripes == 1 ? segment->size : segment->stripe_size;
    char *ranges = segment->ranges, *range;
    size_t place_count = 0;

    if (!segment->stripes || segment->stripes > STRIPES_MAX || segment->size % segment->stripes || !turn ||
        turn % SECTOR)
        return false;
    while ((range = strsep(&ranges, " ")))
        if (place_count == segment->stripes ||
            !parse_range(range, segment, segment->size / segment->stripes, list, count, volume, &places[place_count++]))
            return false;
    if (place_count != segment->stripes)
        return false;
    return *volume->obstacle || extents_append(&volume->extents, segment->size, turn, places, place_count);
}

/* The volume that SEGMENT is a part of: the last one, or a new one. NULL: no memory. */
static struct lvm_volume *take_volume(struct lvm_volumes *volumes, const struct segment *segment)
{
    struct lvm_volume *last = volumes->count ? &volumes->list[volumes->count - 1] : NULL;
    struct lvm_volume *list;

    if (last && !strcmp(last->group, segment->group) && !strcmp(last->name, segment->name))
        return last;
    list = array_grow(volumes->list, volumes->count, &volumes->capacity, sizeof(*list));
    if (!list)
        return NULL;
    volumes->list = list;
    last = &list[volumes->count++];
    *last = (struct lvm_volume){.size = segment->volume_size};
    snprintf(last->group, sizeof(last->group), "%s", segment->group);
    snprintf(last->name, sizeof(last->name), "%s", segment->name);
    return last;
}

/* *COVERED_OUT: how much of the volume the segments so far are. */
static int add_segment(struct segment *segment, const char *line, const struct lvm_physical *list, size_t count,
                       struct lvm_volumes *volumes, uint64_t *covered, struct error *error)
{
    size_t count_before = volumes->count;
    struct lvm_volume *volume = take_volume(volumes, segment);

    if (!volume)
        return error_set(error, ERROR_SYSTEM, "no memory for %zu logical volumes", count_before);
    if (volumes->count != count_before)
        *covered = 0;
    if (segment->start != *covered || volume->size != segment->volume_size ||
        !checked_add(*covered, segment->size, covered) || *covered > volume->size)
        return not_understood(line, error);
    if (!*volume->obstacle)
        find_obstacle(segment, volume);
    if (!*volume->obstacle && !add_places(segment, list, count, volume))
        return not_understood(line, error);
    return 0;
}

/* Segments that a report lacks would be bytes of nowhere. */
static int check_whole(const struct lvm_volumes *volumes, struct error *error)
{
    for (size_t i = 0; i < volumes->count; i++) {
        const struct lvm_volume *volume = &volumes->list[i];

        if (!*volume->obstacle && volume->extents.size != volume->size)
            return error_set(error, ERROR_CORRUPT, "lvm tells where %llu of the %llu bytes of %s/%s lie",
                             (unsigned long long)volume->extents.size, (unsigned long long)volume->size,
                             volume->group, volume->name);
    }
    return 0;
}

int lvm_volumes_parse(const void *bytes, size_t size, const struct lvm_physical *list, size_t count,
                      struct lvm_volumes *volumes, struct error *error)
{
    const char *at = bytes, *end = at + size;
    char line[LINE_MAX_LENGTH + 1], copy[LINE_MAX_LENGTH + 1];
    uint64_t covered = 0;
    int result = 0;

    while (!result && at < end) {
        struct segment segment;

        if (!take_line(&at, end, line))
            return not_understood(line, error);
        if (!*line)
            continue;
        memcpy(copy, line, sizeof(copy));
        if (!parse_segment(copy, &segment))
            return not_understood(line, error);
        result = add_segment(&segment, line, list, count, volumes, &covered, error);
    }
    return result ? result : check_whole(volumes, error);
}

void lvm_volumes_finish(struct lvm_volumes *volumes)
{
    for (size_t i = 0; i < volumes->count; i++)
        extents_finish(&volumes->list[i].extents);
    free(volumes->list);
    *volumes = (struct lvm_volumes){0};
}

int lvm_areas_parse(const void *bytes, size_t size, struct lvm_physical *list, size_t count, struct error *error)
{
    const char *at = bytes, *end = at + size;
    char line[LINE_MAX_LENGTH + 1], copy[LINE_MAX_LENGTH + 1], *fields[2];

    for (size_t i = 0; i < count; i++)
        list[i].area = UINT64_MAX; /* nothing lies on one that the tools do not name */
    while (at < end) {
        uint64_t area;

        if (!take_line(&at, end, line))
            return not_understood(line, error);
        memcpy(copy, line, sizeof(copy));
        if (!*line)
            continue;
        if (!split(copy, fields, 2) || !parse_number(fields[1], &area))
            return not_understood(line, error);
        for (size_t i = 0; i < count; i++)
            if (!strcmp(list[i].device, fields[0]))
                list[i].area = area;
    }
    return 0;
}
