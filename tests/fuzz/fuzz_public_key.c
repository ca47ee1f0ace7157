/* A .pub file or bare key. */
#include "fuzz.h"

#include "format/signature.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct public_key key, again;
    int result = public_key_parse((const char *)bytes, size, &key, &error);
    char *text;

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    text = public_key_format(&key);
    must(text && !public_key_parse(text, strlen(text), &again, NULL) && !memcmp(&key, &again, sizeof(key)));
    free(text);
    return 0;
}
