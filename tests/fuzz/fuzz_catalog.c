/* A catalog. What is taken is written and read again the same. */
#include "fuzz.h"

#include "format/catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct catalog catalog, again;
    int result = catalog_parse(bytes, size, &catalog, &error);
    char *text, *text_again;

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    text = catalog_format(&catalog);
    must(text && !catalog_parse(text, strlen(text), &again, NULL));
    text_again = catalog_format(&again);
    must(text_again && !strcmp(text, text_again));
    for (size_t i = 0; i < catalog.version_count; i++) {
        const struct catalog_version *version = &catalog.versions[i];

        must(!name_check("name", version->name, NULL) && !name_check("version", version->version, NULL));
        must(catalog_find(&catalog, version->name, version->version) == version);
        must(catalog_find(&catalog, version->name, NULL) >= version);
    }
    free(text);
    free(text_again);
    catalog_finish(&catalog);
    catalog_finish(&again);
    return 0;
}
