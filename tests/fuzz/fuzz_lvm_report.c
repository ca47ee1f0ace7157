/* The reports of the lvm2 tools. */
#include "fuzz.h"

#include "format/lvm_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct lvm_volume list[LVM_VOLUMES_MAX];
    struct error error = ERROR_INIT;
    uint64_t area = 0;
    size_t count;
    int result = lvm_area_parse(bytes, size, &area, &error);

    if (result)
        must_explain(result, &error);
    result = lvm_volumes_parse(bytes, size, area, list, &count, &error);
    if (result)
        must_explain(result, &error);
    must(count <= LVM_VOLUMES_MAX);
    for (size_t i = 0; i < count; i++)
        must(*list[i].group && *list[i].name);
    return 0;
}
