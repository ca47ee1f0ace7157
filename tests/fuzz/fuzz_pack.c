/* A pack's header and table. Frames of a table that is taken lie inside the file and apart. */
#include "fuzz.h"

#include "format/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct pack_table table;
    struct buffer again = {0};
    struct digest name;
    uint64_t end = size;
    int result = pack_parse_table(bytes, size, &table, &error);

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    must(size == pack_table_size(table.count));
    for (uint32_t i = 0; i < table.count; i++) {
        must(table.entries[i].offset >= end);
        end = table.entries[i].offset + table.entries[i].frame_size;
        must(end <= table.file_size);
    }
    /* Written again, the frames lie without gaps, else all is the same. */
    must(!pack_format_table(&table, &again, &name, NULL) && again.size == size);
    buffer_finish(&again);
    pack_table_finish(&table);
    return 0;
}
