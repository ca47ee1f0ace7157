/* Configuration files: one pass, one line at a time. */
#include "format/conf.h"

#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"

static bool is_blank(char letter)
{
    return letter == ' ' || letter == '\t';
}

/* Cut blanks off both ends of TEXT, in place. */
static char *trim(char *text)
{
    size_t length = strlen(text);

    while (length && (is_blank(text[length - 1]) || text[length - 1] == '\r'))
        text[--length] = '\0';
    while (is_blank(*text))
        text++;
    return text;
}

static int check_characters(const char *text, size_t length, unsigned line, struct error *error)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char letter = (unsigned char)text[i];
        bool line_end = letter == '\r' && i + 1 == length;

        if ((letter < 0x20 && letter != '\t' && !line_end) || letter == 0x7f)
            return error_set(error, ERROR_INVALID, "line %u: the control character 0x%02x", line, letter);
    }
    return 0;
}

/* TEXT is one line without its newline; it is written to. */
static int parse_line(char *text, unsigned line, conf_setting *setting, void *user, struct error *error)
{
    char *word = trim(text), *value = strchr(word, '=');

    if (!*word || *word == '#')
        return 0;
    if (!value)
        return error_set(error, ERROR_INVALID, "line %u: not of the form 'word = value'", line);
    *value++ = '\0';
    word = trim(word);
    value = trim(value);
    if (!*word)
        return error_set(error, ERROR_INVALID, "line %u: no word before '='", line);
    if (!*value)
        return error_set(error, ERROR_INVALID, "line %u: no value for '%.100s'", line, word);
    return setting(user, line, word, value, error);
}

int conf_parse(const char *bytes, size_t size, conf_setting *setting, void *user, struct error *error)
{
    const char *end = size ? bytes + size : bytes;

    if (size > CONF_SIZE_MAX)
        return error_set(error, ERROR_INVALID, "larger than %d bytes", CONF_SIZE_MAX);
    for (unsigned line = 1; bytes < end; line++) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        size_t length = (size_t)((newline ? newline : end) - bytes);
        auto_free char *text = NULL;
        int result = check_characters(bytes, length, line, error);

        if (result)
            return result;
        text = strndup(bytes, length);
        if (!text)
            return error_set(error, ERROR_SYSTEM, "no memory for line %u", line);
        result = parse_line(text, line, setting, user, error);
        if (result)
            return result;
        bytes += length + (newline != NULL);
    }
    return 0;
}
