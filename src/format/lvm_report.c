/* The lvm2 tools' reports: see lvm_report.h. */
#include "format/lvm_report.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define LINE_MAX_LENGTH 1000

/* The line at *AT, on to the next. It is cut where that helps nobody: then its fields do not fit. */
static void take_line(const char **at, const char *end, char *line)
{
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    size_t length = (size_t)((newline ? newline : end) - *at);
    size_t kept = (size_t)min_u64(length, LINE_MAX_LENGTH);

    memcpy(line, *at, kept);
    line[kept] = '\0';
    *at += length + (newline != NULL);
}

static int not_understood(char *line, struct error *error)
{
    for (char *c = line; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
    return error_set(error, ERROR_CORRUPT, "lvm says what is not understood: '%.200s'", line);
}

/*
 * One segment: "group name size type start size ranges extent-size", sizes in bytes. RANGES is
 * "/dev/loop1:25-37" for a segment in one piece. False: not understood.
 */
static bool parse_segment(const char *line, uint64_t area, struct lvm_volume *segment, uint64_t *start_out)
{
    char type[32], ranges[512];
    unsigned long long size, start, segment_size, first = 0, last, extent;
    const char *colon;
    uint64_t offset;

    if (sscanf(line, " %128s %128s %llu %31s %llu %llu %511s %llu", segment->group, segment->name, &size, type,
               &start, &segment_size, ranges, &extent) != 8)
        return false;
    colon = strrchr(ranges, ':');
    segment->contiguous = !strcmp(type, "linear") && colon && sscanf(colon, ":%llu-%llu", &first, &last) == 2 &&
                          last >= first && last - first + 1 == segment_size / (extent ? extent : 1);
    if (!checked_mul(first, extent, &offset) || !checked_add(offset, area, &segment->offset))
        return false;
    segment->size = segment_size;
    *start_out = start;
    return true;
}

/* Add a segment to the volume that it is the next part of, or begin a new one. */
static bool add_segment(struct lvm_volume *list, size_t *count, const struct lvm_volume *segment, uint64_t start)
{
    struct lvm_volume *last = *count ? &list[*count - 1] : NULL;
    uint64_t behind;

    if (start) {
        if (!last || strcmp(last->name, segment->name) || strcmp(last->group, segment->group) || last->size != start)
            return false;
        last->contiguous = last->contiguous && segment->contiguous &&
                           checked_add(last->offset, last->size, &behind) && behind == segment->offset;
        return checked_add(last->size, segment->size, &last->size);
    }
    if (*count == LVM_VOLUMES_MAX)
        return false;
    list[(*count)++] = *segment;
    return true;
}

int lvm_volumes_parse(const void *bytes, size_t size, uint64_t area, struct lvm_volume *list, size_t *count_out,
                      struct error *error)
{
    const char *at = bytes, *end = at + size;
    char line[LINE_MAX_LENGTH + 1];

    *count_out = 0;
    while (at < end) {
        struct lvm_volume segment = {0};
        uint64_t start;

        take_line(&at, end, line);
        if (!*line)
            continue;
        if (!parse_segment(line, area, &segment, &start) || !add_segment(list, count_out, &segment, start))
            return not_understood(line, error);
    }
    return 0;
}

int lvm_area_parse(const void *bytes, size_t size, uint64_t *area_out, struct error *error)
{
    const char *at = bytes;
    char line[LINE_MAX_LENGTH + 1] = "";
    unsigned long long area;

    if (size)
        take_line(&at, at + size, line);
    if (sscanf(line, " %llu", &area) != 1)
        return error_set(error, ERROR_CORRUPT, "lvm does not say where the volume group's extents begin");
    *area_out = area;
    return 0;
}
