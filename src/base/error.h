/*
 * Errors: a small set of codes that callers decide by, and a message for the
 * person who reads it. The code says what to do, the message says what and where.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

/* Every fallible function returns 0 or one of these. CORRUPT is never reported as NOT_FOUND. */
enum error_code {
    ERROR_INVALID = -1,     /* the caller's (in the end the user's) words are wrong */
    ERROR_NOT_FOUND = -2,   /* it is certain that the thing does not exist */
    ERROR_CORRUPT = -3,     /* bytes are not what their digest, grammar or length demands */
    ERROR_UNAVAILABLE = -4, /* could not be reached; may work later or elsewhere */
    ERROR_UNTRUSTED = -5,   /* no signature, or none by a trusted key */
    ERROR_ROLLED_BACK = -6, /* a catalog older than one seen before */
    ERROR_EXPIRED = -7,     /* a catalog past its expiry */
    ERROR_EXISTS = -8,      /* would overwrite something that must not change */
    ERROR_BUSY = -9,        /* in use by someone else */
    ERROR_NO_SPACE = -10,   /* disk or quota full */
    ERROR_CHANGED = -11,    /* an input changed while it was read */
    ERROR_UNSUPPORTED = -12,/* valid, but this build or host cannot do it */
    ERROR_CANCELLED = -13,  /* given up on request */
    ERROR_SYSTEM = -14,     /* the operating system said no; the message carries why */
};

/*
 * A caller-owned message. The function that finds the fault sets it; the layers
 * above pass it on, or prefix it with what they were doing. Passing NULL is
 * allowed everywhere and drops the message.
 */
struct error {
    int code; /* 0 or an enum error_code */
    char message[1000];
};

#define ERROR_INIT ((struct error){0})

/* Set code and message, replacing any earlier one. Returns CODE, so that `return error_set(...)` works. */
int error_set(struct error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As error_set, followed by ": " and strerror(ERRNO). ENOSPC and EDQUOT become ERROR_NO_SPACE and
 * ENOENT becomes ERROR_NOT_FOUND; all else is ERROR_SYSTEM. */
int error_set_errno(struct error *error, int errno_value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the message. Returns error->code (ERROR_SYSTEM if ERROR is NULL). */
int error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Copy FROM to TO (either may be NULL). Returns the code that was copied. */
int error_copy(struct error *to, const struct error *from);

/* One lower-case word for CODE ("corrupt", "unavailable", ...), for logs and JSON. */
const char *error_word(int code);

#endif
