/* The beginning of a disk image of another program, or of what no image is. */
#include "fuzz.h"

#include "format/foreign.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    size_t tail_size = size < FOREIGN_TAIL_SIZE ? size : FOREIGN_TAIL_SIZE;
    const struct foreign_format *format = foreign_recognise(bytes, size, bytes + size - tail_size, tail_size);

    must(foreign_find(format->name) == format);
    must(foreign_vdi_size(bytes, size) == 0 || !strcmp(foreign_recognise(bytes, size, bytes, 0)->name, "vdi") ||
         memcmp(bytes + 64, "\x7f\x10\xda\xbe", 4) == 0);
    must(foreign_mistake(bytes, size) == NULL || size >= 3);
    return 0;
}
