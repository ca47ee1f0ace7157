/* LVM without device-mapper: runs `lvm pvs` and `lvm lvs` on one device. */
#include "serve/lvm.h"

#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/process.h"

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
    uint64_t area = 0;
    int result = report("pvs", device, "pe_start", &area_text, error);

    *count_out = 0;
    if (!result)
        result = lvm_area_parse(area_text.bytes, area_text.size, &area, error);
    if (!result)
        result = report("lvs", device, LVM_COLUMNS, &segments, error);
    return result ? result : lvm_volumes_parse(segments.bytes, segments.size, area, list, count_out, error);
}
