/* Hints in an archive folder: reading and replacing them. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "format/name.h"
#include "image/pack.h"

int hints_load(int folder, const char *name, const char *version, struct hints *hints_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    char path[ARCHIVE_PATH_MAX];
    int result;

    *hints_out = (struct hints){0};
    archive_path_hints(name, version, path);
    result = file_read(folder, path, HINTS_SIZE_MAX, &text, error);
    if (result == ERROR_NOT_FOUND)
        return 0;
    if (!result)
        result = hints_parse(text.bytes, text.size, hints_out, error);
    if (result == ERROR_CORRUPT) { /* They are only hints: begin anew rather than fail for ever. */
        log_warning("%s is damaged and is written anew", path);
        return 0;
    }
    return result;
}

int hints_save(int folder, const char *name, const char *version, bool newest, const struct hints *hints,
               struct error *error)
{
    auto_free char *text = hints_format(hints);
    char path[ARCHIVE_PATH_MAX];
    int result;

    if (!text)
        return error_set(error, ERROR_SYSTEM, "no memory for the hints");
    archive_path_hints(name, version, path);
    result = file_write_atomic(folder, path, text, strlen(text), FILE_DURABLE | FILE_MAKE_FOLDERS, error);
    if (result || !newest)
        return result;
    archive_path_newest_hints(name, path);
    return file_write_atomic(folder, path, text, strlen(text), FILE_DURABLE, error);
}
