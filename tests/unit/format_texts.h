/*
 * For tests of text formats: a good text, and what must be said when one part
 * of it is replaced by another.
 */
#ifndef TESTS_FORMAT_TEXTS_H
#define TESTS_FORMAT_TEXTS_H

#include <stdlib.h>
#include <string.h>

struct text_change {
    const char *part;        /* occurs once in the good text; NULL: the end of the text */
    const char *replacement; /* in its place */
    const char *refusal;     /* part of the message; NULL: the text stays good */
};

/* GOOD with CHANGE made; heap. Fails the test if the part does not occur exactly once. */
static inline char *change_text(const char *good, const struct text_change *change)
{
    const char *at = change->part ? strstr(good, change->part) : good + strlen(good);
    size_t before, part = change->part ? strlen(change->part) : 0;
    char *text;

    if (!at || (part && strstr(at + 1, change->part)))
        fail_msg("'%s' does not occur once", change->part);
    before = (size_t)(at - good);
    text = malloc(strlen(good) + strlen(change->replacement) + 1);
    memcpy(text, good, before);
    strcpy(text + before, change->replacement);
    strcat(text, at + part);
    return text;
}

/* PARSE (0 or an error code) must take or refuse each changed text as its row says. */
static inline void check_changes(const char *good, const struct text_change *changes, size_t count,
                                 int (*parse)(const void *bytes, size_t size, struct error *error))
{
    for (size_t i = 0; i < count; i++) {
        char *text = change_text(good, &changes[i]);
        struct error error = {0};
        int result = parse(text, strlen(text), &error);

        if (!changes[i].refusal) {
            if (result)
                fail_msg("row %zu ('%s') is refused: %s", i, changes[i].replacement, error.message);
        } else if (result != ERROR_CORRUPT || !strstr(error.message, changes[i].refusal)) {
            fail_msg("row %zu ('%s'): %d '%s', not '%s'", i, changes[i].replacement, result, error.message,
                     changes[i].refusal);
        }
        free(text);
    }
}

#endif
