/* What QEMU says over QMP, what is said to it, and what qemu-img map prints. */
#include "fuzz.h"

#include "format/foreign.h"
#include "format/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct qmp_message message;
    struct qmp_block blocks[QMP_BLOCKS_MAX];
    char status[QMP_WORD];
    size_t count;
    uint64_t id;
    bool empty;
    int result = qmp_parse(bytes, size, &message, &error);

    if (result)
        must_explain(result, &error);
    else
        must(message.kind <= QMP_EVENT && strlen(message.word) < sizeof(message.word));
    result = qmp_parse_status(bytes, size, status, &error);
    if (result)
        must_explain(result, &error);
    result = qmp_parse_blocks(bytes, size, blocks, &count, &error);
    if (result)
        must_explain(result, &error);
    must(count <= QMP_BLOCKS_MAX);
    must(qmp_command_length(bytes, size) <= size);
    result = qmp_parse_command(bytes, size, status, &id, &error);
    if (result)
        must_explain(result, &error);
    result = foreign_map_is_empty(bytes, size, &empty, &error);
    if (result)
        must_explain(result, &error);
    return 0;
}
