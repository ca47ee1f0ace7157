/* Words for reasons: see reason.h. */
#include "net/reason.h"

#include <errno.h>
#include <stdio.h>

const char *reason_duration(unsigned ms, char text[REASON_DURATION])
{
    if (ms % 1000)
        snprintf(text, REASON_DURATION, "%u ms", ms);
    else
        snprintf(text, REASON_DURATION, "%u s", ms / 1000);
    return text;
}

const char *reason_of_errno(int os_error)
{
    switch (os_error) {
    case ECONNREFUSED:
        return "connection refused";
    case EHOSTUNREACH:
        return "no route to host";
    case ENETUNREACH:
    case ENETDOWN:
        return "network unreachable";
    case ECONNRESET:
    case EPIPE:
        return "connection reset";
    case ETIMEDOUT:
        return "connection timed out";
    default:
        return NULL;
    }
}
