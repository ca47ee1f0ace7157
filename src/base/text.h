/* Text on the heap, put together as printf does. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdarg.h>

/* NULL: no memory (where asprintf leaves its result undefined). */
__attribute__((format(printf, 1, 2))) char *text_format(const char *format, ...);
__attribute__((format(printf, 1, 0))) char *text_format_list(const char *format, va_list values);

#endif
