/* A profile. What is taken is written and read again the same. */
#include "fuzz.h"

#include "format/profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct profile profile;
    struct buffer again = {0};
    uint64_t block_count = 0;
    int result = profile_parse(bytes, size, &profile, &error);

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    for (uint32_t i = 0; i < profile.run_count; i++)
        block_count += profile.runs[i].count;
    must(block_count == profile.block_count && block_count <= PROFILE_BLOCKS_MAX);
    must(!profile_format(&profile, &again, NULL));
    must(again.size == size && !memcmp(again.bytes, bytes, size));
    buffer_finish(&again);
    profile_finish(&profile);
    return 0;
}
