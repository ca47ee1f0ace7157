/* A frame, taken for a block of 4096 bytes. */
#include "fuzz.h"

#include "format/frame.h"

#define BLOCK 4096

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    uint8_t *out = malloc(BLOCK), *again = malloc(BLOCK), *frame = malloc(frame_bound(BLOCK));
    int result = frame_decompress(bytes, size, out, BLOCK, &error);

    if (result) {
        must_explain(result, &error);
    } else {
        size_t frame_size = frame_compress(out, BLOCK, 3, frame, frame_bound(BLOCK));

        must(frame_size && !frame_decompress(frame, frame_size, again, BLOCK, NULL));
        must(!memcmp(out, again, BLOCK));
    }
    free(out);
    free(again);
    free(frame);
    return 0;
}
