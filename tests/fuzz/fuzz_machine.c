/* machine.json. What is taken is written and read again the same. */
#include "fuzz.h"

#include "format/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct machine_record record, again;
    struct error error = ERROR_INIT;
    int result = machine_record_parse(bytes, size, &record, &error);
    char *text, *text_again;

    if (result) {
        must_explain(result, &error);
    } else {
        text = machine_record_format(&record);
        must(text && !machine_record_parse(text, strlen(text), &again, NULL));
        text_again = machine_record_format(&again);
        must(text_again && !strcmp(text, text_again));
        machine_record_finish(&again);
        free(text);
        free(text_again);
    }
    machine_record_finish(&record);
    return 0;
}
