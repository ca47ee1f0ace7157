/* Statistics. What is taken is written and read again the same. */
#include "fuzz.h"

#include "format/statistics.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct statistics statistics, again;
    struct error error = ERROR_INIT;
    int result = statistics_parse(bytes, size, &statistics, &error);
    char *text, *text_again;

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    must(statistics.mirror_count <= STATISTICS_MIRRORS && statistics.waiting_count <= STATISTICS_WAITING);
    text = statistics_format(&statistics);
    must(text);
    /* Indented it may be longer than what was read. */
    if (strlen(text) <= STATISTICS_SIZE_MAX) {
        must(!statistics_parse(text, strlen(text), &again, NULL));
        text_again = statistics_format(&again);
        must(text_again && !strcmp(text, text_again));
        free(text_again);
    }
    free(text);
    return 0;
}
