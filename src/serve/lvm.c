/* LVM without device-mapper: runs `lvm lvs` on one device and reads its report. */
#include "serve/lvm.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/process.h"

#define COLUMNS "vg_name,lv_name,lv_size,segtype,seg_start,seg_size,seg_pe_ranges,vg_extent_size"

/*
 * One segment: "group name size type start size ranges extent-size", sizes in bytes. RANGES is
 * "/dev/loop1:25-37" for a segment in one piece; extents begin at AREA. False: not understood.
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

    if (start) {
        if (!last || strcmp(last->name, segment->name) || strcmp(last->group, segment->group) || last->size != start)
            return false;
        last->contiguous = last->contiguous && segment->contiguous && last->offset + last->size == segment->offset;
        last->size += segment->size;
        return true;
    }
    if (*count == LVM_VOLUMES_MAX)
        return false;
    list[(*count)++] = *segment;
    return true;
}

static int parse_report(char *report, uint64_t area, struct lvm_volume *list, size_t *count_out, struct error *error)
{
    char *save = NULL;

    *count_out = 0;
    for (char *line = strtok_r(report, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct lvm_volume segment = {0};
        uint64_t start;

        if (!parse_segment(line, area, &segment, &start) || !add_segment(list, count_out, &segment, start))
            return error_set(error, ERROR_CORRUPT, "lvm says what is not understood: '%.200s'", line);
    }
    return 0;
}

/* Run one of lvm's reporting commands: read-only, on this device alone, nothing that needs device-mapper. */
static int report(const char *command, const char *device, const char *columns, struct buffer *output,
                  struct error *error)
{
    const char *arguments[] = {
        "lvm", command, "--readonly", "--driverloaded", "n", "--devices", device, "--config",
        "backup{backup=0 archive=0}", "--noheadings", "--nosuffix", "--units", "b", "--separator", " ", "-o", columns,
        strcmp(command, "lvs") ? NULL : "--segments", "--sort", "vg_name,lv_name,seg_start", NULL,
    };
    char path[PATH_MAX];

    if (!process_find(PROCESS_SYSTEM_PATH, "lvm", path))
        return error_set(error, ERROR_UNSUPPORTED,
                         "the disk holds LVM volumes, and the Debian package lvm2 is missing (apt install lvm2)");
    return process_run(path, arguments, output, error);
}

int lvm_list(const char *device, struct lvm_volume *list, size_t *count_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer area_text = {0}, segments = {0};
    unsigned long long area;
    int result = report("pvs", device, "pe_start", &area_text, error);

    if (!result && (!area_text.size || sscanf((char *)area_text.bytes, " %llu", &area) != 1))
        result = error_set(error, ERROR_CORRUPT, "lvm does not say where the volume group's extents begin");
    if (!result)
        result = report("lvs", device, COLUMNS, &segments, error);
    *count_out = 0;
    if (result || !segments.size) /* a volume group without volumes */
        return result;
    return parse_report((char *)segments.bytes, area, list, count_out, error);
}
