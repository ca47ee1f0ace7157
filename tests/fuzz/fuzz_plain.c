/* The index of a plain file, and what its location is taken for. */
#include "fuzz.h"

#include "format/plain.h"

static void check_location(const uint8_t *bytes, size_t size)
{
    char name[PLAIN_NAME_SIZE], *text = malloc(size + 1);

    must(text);
    memcpy(text, bytes, size);
    text[size] = '\0';
    plain_is_location(text);
    plain_file_name(text, name);
    must(*name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, ".."));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    uint8_t again[PLAIN_HEADER_SIZE];
    struct error error = ERROR_INIT;
    struct plain_header header;
    char name[DIGEST_TEXT];
    int result;

    check_location(bytes, size);
    result = plain_header_parse(bytes, size, &header, &error);
    if (result) {
        must_explain(result, &error);
        return 0;
    }
    must(plain_slice_count(&header) > 0);
    plain_folder_name(&header, name);
    plain_header_format(&header, again);
    must(!memcmp(again, bytes, PLAIN_HEADER_SIZE));
    return 0;
}
