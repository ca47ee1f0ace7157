/* Text on the heap. */
#include "base/text.h"

#include <stdio.h>

char *text_format_list(const char *format, va_list values)
{
    char *text;

    return vasprintf(&text, format, values) < 0 ? NULL : text;
}

char *text_format(const char *format, ...)
{
    va_list values;
    char *text;

    va_start(values, format);
    text = text_format_list(format, values);
    va_end(values);
    return text;
}
