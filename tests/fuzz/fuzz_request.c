/* What an HTTP client sends: a target, a Range header, a date, a list of entity tags. All are tried on each input. */
#include "fuzz.h"

#include "format/request.h"

#define FILE_SIZE 1000000

/* A path never leaves the folder that is served. */
static void try_path(const char *text)
{
    struct error error = ERROR_INIT;
    char path[REQUEST_PATH_MAX];
    int result = request_path(text, path, &error);

    if (result) {
        must_explain(result, &error);
        return;
    }
    must(strlen(path) < sizeof(path) && path[0] != '/' && path[0] != '.');
    must(!strstr(path, "/.") && !strstr(path, "//"));
}

static void try_ranges(const char *text, uint64_t size)
{
    struct request_range ranges[REQUEST_RANGES_MAX];
    int count = request_ranges(text, size, ranges);

    must(count >= -1 && count <= REQUEST_RANGES_MAX);
    for (int i = 0; i < count; i++)
        must(ranges[i].length >= 1 && ranges[i].offset < size && ranges[i].length <= size - ranges[i].offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char *text = malloc(size + 1), date[REQUEST_DATE_TEXT];
    int64_t seconds, again;

    must(text);
    memcpy(text, bytes, size);
    text[size] = '\0';
    try_path(text);
    try_ranges(text, FILE_SIZE);
    try_ranges(text, 1);
    try_ranges(text, 0);
    try_ranges(text, UINT64_MAX);
    if (request_date_parse(text, &seconds)) {
        request_date_format(seconds, date);
        must(request_date_parse(date, &again) && again == seconds);
    }
    request_has_etag(text, "\"abc\"");
    free(text);
    return 0;
}
