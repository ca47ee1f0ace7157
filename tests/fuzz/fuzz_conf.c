/* A configuration file. */
#include "fuzz.h"

#include "format/conf.h"

static int setting(void *user, unsigned line, const char *word, const char *value, struct error *error)
{
    unsigned *last = user;

    must(line > *last && *word && *value);
    must(word[strlen(word) - 1] != ' ' && *word != ' ' && *value != ' ' && value[strlen(value) - 1] != ' ');
    *last = line;
    return strcmp(word, "stop") ? 0 : error_set(error, ERROR_INVALID, "line %u: stop", line);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    unsigned last = 0;
    int result = conf_parse((const char *)bytes, size, setting, &last, &error);

    must(!result || result == ERROR_INVALID);
    if (result)
        must(result == error.code && error.message[0]);
    return 0;
}
