/* LVM without device-mapper: runs `lvm pvs` and `lvm lvs` on loop devices of the physical volumes, all at once. */
#include "serve/lvm.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/process.h"
#include "serve/loop.h"

/* The physical volumes of a disk, attached. */
struct attached {
    struct lvm_physical list[PARTITIONS_MAX];
    int loops[PARTITIONS_MAX];
    size_t count;
    char devices[PARTITIONS_MAX * LOOP_PATH_MAX]; /* with commas between them */
};

static void detach(struct attached *attached)
{
    for (size_t i = 0; i < attached->count; i++)
        close(attached->loops[i]);
}

static int attach(int fd, const char *name, const struct partition *partition, struct attached *attached,
                  struct error *error)
{
    struct lvm_physical *physical = &attached->list[attached->count];
    size_t used = strlen(attached->devices);
    int loop;

    *physical = (struct lvm_physical){.offset = partition->offset, .size = partition->size};
    loop = loop_attach(fd, partition->offset, partition->size, name, physical->device, error);
    if (loop < 0)
        return loop;
    attached->loops[attached->count++] = loop;
    snprintf(attached->devices + used, sizeof(attached->devices) - used, "%s%s", used ? "," : "", physical->device);
    return 0;
}

/* Run one of lvm's reporting commands: read-only, on these devices alone, nothing that needs device-mapper. */
static int report(const char *command, const char *devices, const char *columns, struct buffer *output,
                  struct error *error)
{
    const char *arguments[] = {
        "lvm", command, "--readonly", "--driverloaded", "n", "--devices", devices, "--config",
        "backup{backup=0 archive=0}", "--noheadings", "--nosuffix", "--units", "b", "--separator", LVM_SEPARATOR, "-o",
        columns, strcmp(command, "lvs") ? NULL : "--segments", "--sort", "vg_name,lv_name,seg_start", NULL,
    };
    char path[PATH_MAX];

    if (!process_find(PROCESS_SYSTEM_PATH, "lvm", path))
        return error_set(error, ERROR_UNSUPPORTED,
                         "the disk holds LVM volumes, and the Debian package lvm2 is missing (apt install lvm2)");
    return process_run(path, arguments, output, error);
}

int lvm_list(int fd, const char *name, const struct partition *partitions, size_t count, struct lvm_volumes *volumes,
             struct error *error)
{
    cleanup(buffer_finish) struct buffer areas = {0}, segments = {0};
    cleanup(detach) struct attached attached = {0};
    int result = 0;

    for (size_t i = 0; !result && i < count; i++)
        if (!strcmp(partitions[i].type, LVM_PARTITION_TYPE))
            result = attach(fd, name, &partitions[i], &attached, error);
    if (result || !attached.count)
        return result;
    result = report("pvs", attached.devices, LVM_PHYSICAL_COLUMNS, &areas, error);
    if (!result)
        result = report("lvs", attached.devices, LVM_COLUMNS, &segments, error);
    if (!result)
        result = lvm_areas_parse(areas.bytes, areas.size, attached.list, attached.count, error);
    if (!result)
        result = lvm_volumes_parse(segments.bytes, segments.size, attached.list, attached.count, volumes, error);
    return result;
}
