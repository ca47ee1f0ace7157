/* A manifest. What is taken is written and read again the same. */
#include "fuzz.h"

#include "format/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct manifest manifest, again;
    int result = manifest_parse(bytes, size, &manifest, &error);
    char *text, *text_again;

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    must(manifest.disk_count >= 1 && manifest.disk_count <= MANIFEST_DISKS_MAX);
    text = manifest_format(&manifest);
    must(text && !manifest_parse(text, strlen(text), &again, NULL));
    text_again = manifest_format(&again);
    must(text_again && !strcmp(text, text_again));
    free(text);
    free(text_again);
    return 0;
}
