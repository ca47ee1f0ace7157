/* A list of texts that grows. */
#include "base/arguments.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* Takes TEXT over; NULL is a failure. */
static void take(struct arguments *arguments, char *text)
{
    char **items = text ? reallocarray(arguments->items, arguments->count + 2, sizeof(*items)) : NULL;

    if (!items) {
        free(text);
        arguments->failed = true;
        return;
    }
    arguments->items = items;
    items[arguments->count++] = text;
    items[arguments->count] = NULL;
}

void arguments_add(struct arguments *arguments, const char *text)
{
    take(arguments, strdup(text));
}

__attribute__((format(printf, 2, 0))) static void take_format(struct arguments *arguments, const char *format,
                                                              va_list values)
{
    take(arguments, text_format_list(format, values));
}

void arguments_add_format(struct arguments *arguments, const char *format, ...)
{
    va_list values;

    va_start(values, format);
    take_format(arguments, format, values);
    va_end(values);
}

void arguments_add_option(struct arguments *arguments, const char *option, const char *format, ...)
{
    va_list values;

    arguments_add(arguments, option);
    va_start(values, format);
    take_format(arguments, format, values);
    va_end(values);
}

void arguments_finish(struct arguments *arguments)
{
    for (size_t i = 0; i < arguments->count; i++)
        free(arguments->items[i]);
    free(arguments->items);
    *arguments = (struct arguments){0};
}
