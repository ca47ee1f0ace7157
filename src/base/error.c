/* Errors: setting, prefixing and naming them. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *error, int code, const char *format, ...)
{
    if (error) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(error->message, sizeof(error->message), format, arguments);
        va_end(arguments);
        error->code = code;
    }
    return code;
}

static int code_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return ERROR_NO_SPACE;
    case ENOENT:
        return ERROR_NOT_FOUND;
    default:
        return ERROR_SYSTEM;
    }
}

int error_set_errno(struct error *error, int errno_value, const char *format, ...)
{
    int code = code_of_errno(errno_value);

    if (error) {
        va_list arguments;
        int length;

        va_start(arguments, format);
        length = vsnprintf(error->message, sizeof(error->message), format, arguments);
        va_end(arguments);
        if (length >= 0 && (size_t)length < sizeof(error->message))
            snprintf(error->message + length, sizeof(error->message) - (size_t)length, ": %s",
                     strerror(errno_value));
        error->code = code;
    }
    return code;
}

int error_prefix(struct error *error, const char *format, ...)
{
    char whole[sizeof(error->message)];
    va_list arguments;
    int length;

    if (!error)
        return ERROR_SYSTEM;
    va_start(arguments, format);
    length = vsnprintf(whole, sizeof(whole), format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof(whole))
        return error->code;
    /* Cutting the tail of an over-long message is intended. */
    snprintf(whole + length, sizeof(whole) - (size_t)length, ": %.*s",
             (int)(sizeof(whole) - (size_t)length), error->message);
    memcpy(error->message, whole, sizeof(whole));
    return error->code;
}

int error_copy(struct error *to, const struct error *from)
{
    if (to && from)
        *to = *from;
    return from ? from->code : ERROR_SYSTEM;
}

const char *error_word(int code)
{
    static const char *const words[] = {
        [0] = "ok",
        [-ERROR_INVALID] = "invalid",
        [-ERROR_NOT_FOUND] = "not-found",
        [-ERROR_CORRUPT] = "corrupt",
        [-ERROR_UNAVAILABLE] = "unavailable",
        [-ERROR_UNTRUSTED] = "untrusted",
        [-ERROR_ROLLED_BACK] = "rolled-back",
        [-ERROR_EXPIRED] = "expired",
        [-ERROR_EXISTS] = "exists",
        [-ERROR_BUSY] = "busy",
        [-ERROR_NO_SPACE] = "no-space",
        [-ERROR_CHANGED] = "changed",
        [-ERROR_UNSUPPORTED] = "unsupported",
        [-ERROR_CANCELLED] = "cancelled",
        [-ERROR_SYSTEM] = "system",
    };

    if (code > 0 || -code >= (int)(sizeof(words) / sizeof(words[0])) || !words[-code])
        return "unknown";
    return words[-code];
}
