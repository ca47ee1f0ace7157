/* What a person types for an archive or an image. */
#include "fuzz.h"

#include "format/name.h"

/* ARCHIVE parses to itself, has no slash too many, and is printed without its password. */
static void check_archive(const char *archive)
{
    struct location again;
    char *redacted = location_redact(archive);
    const char *folder = location_folder(archive);

    must(*archive && redacted);
    must(!location_parse_archive(archive, &again, NULL) && !strcmp(again.archive, archive));
    must(location_is_http(archive) ? !folder : folder && *folder);
    if (location_is_http(archive))
        must(archive[strlen(archive) - 1] != '/');
    location_finish(&again);
    free(redacted);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct location location;
    char *text = malloc(size + 1), *redacted;
    int result;

    must(text);
    memcpy(text, bytes, size);
    text[size] = '\0';
    result = location_parse(text, &location, &error);
    if (result) {
        must_explain(result, &error);
        must(!location.archive);
    } else {
        must(!name_check("name", location.name, NULL));
        must(!*location.version || !name_check("version", location.version, NULL));
        check_archive(location.archive);
    }
    location_finish(&location);
    if (!location_parse_archive(text, &location, NULL))
        check_archive(location.archive);
    location_finish(&location);
    redacted = location_redact(text);
    must(redacted);
    free(redacted);
    free(text);
    return 0;
}
