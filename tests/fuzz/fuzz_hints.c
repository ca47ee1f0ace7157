/* Hints. What is taken is written and read again the same, and no mirror is a local file. */
#include "fuzz.h"

#include "format/hints.h"
#include "format/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct hints hints, again;
    int result = hints_parse(bytes, size, &hints, &error);
    char *text, *text_again;

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    must(!*hints.version || !name_check("version", hints.version, NULL));
    for (size_t i = 0; i < hints.pack_count; i++)
        for (size_t j = 0; j < hints.packs[i].segment_count; j++)
            must(hints.packs[i].segments[j] >= hints.packs[i].table_size &&
                 hints.packs[i].segments[j] < hints.packs[i].size);
    for (size_t i = 0; i < hints.mirror_count; i++)
        must(location_is_http(hints.mirrors[i]));
    text = hints_format(&hints);
    must(text && !hints_parse(text, strlen(text), &again, NULL));
    text_again = hints_format(&again);
    must(text_again && !strcmp(text, text_again));
    free(text);
    free(text_again);
    hints_finish(&hints);
    hints_finish(&again);
    return 0;
}
