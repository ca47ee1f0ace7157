/* A list of texts that grows: the arguments of another program. */
#ifndef BASE_ARGUMENTS_H
#define BASE_ARGUMENTS_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise. A failure is remembered: check it once, at the end. */
struct arguments {
    char **items; /* COUNT texts and a NULL; NULL if there are none */
    size_t count;
    bool failed; /* no memory: something is missing */
};

void arguments_add(struct arguments *arguments, const char *text);
__attribute__((format(printf, 2, 3))) void arguments_add_format(struct arguments *arguments, const char *format, ...);
/* OPTION, and its value as a further argument. */
__attribute__((format(printf, 3, 4))) void arguments_add_option(struct arguments *arguments, const char *option,
                                                                const char *format, ...);
void arguments_finish(struct arguments *arguments); /* zero-initialised again */

#endif
