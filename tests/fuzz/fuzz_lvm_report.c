/* The reports of the lvm2 tools. */
#include "fuzz.h"

#include "format/lvm_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct lvm_physical list[] = {
        {"/dev/loop0", 1048576, UINT64_C(1) << 40, 0},
        {"/dev/loop1", UINT64_MAX - 65536, 65536, 0},
    };
    struct lvm_volumes volumes = {0};
    struct error error = ERROR_INIT;
    int result = lvm_areas_parse(bytes, size, list, 2, &error);

    if (result) {
        must_explain(result, &error);
        list[0].area = list[1].area = 512;
    }
    result = lvm_volumes_parse(bytes, size, list, 2, &volumes, &error);
    if (result)
        must_explain(result, &error);
    for (size_t i = 0; !result && i < volumes.count; i++) {
        const struct lvm_volume *volume = &volumes.list[i];
        uint64_t length, offset;

        must(*volume->group && *volume->name);
        if (*volume->obstacle)
            continue;
        must(volume->extents.size == volume->size);
        for (uint64_t at = 0; at < volume->size; at += 1 + (volume->size - 1) / 7) {
            offset = extents_find(&volume->extents, at, &length);
            must(length && length <= volume->size - at);
            must((offset >= 1048576 && length <= (UINT64_C(1) << 40) + 1048576 - offset) ||
                 offset >= UINT64_MAX - 65536);
        }
    }
    lvm_volumes_finish(&volumes);
    return 0;
}
