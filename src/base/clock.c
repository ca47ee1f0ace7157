/* Time: clocks, and RFC 3339 stamps. */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t clock_ms(void)
{
    return clock_us() / 1000;
}

int64_t clock_wall(void)
{
    return (int64_t)time(NULL);
}

char *time_format(int64_t seconds, char *text)
{
    time_t t = (time_t)seconds;
    struct tm tm;

    if (!gmtime_r(&t, &tm) || tm.tm_year < 0 || tm.tm_year > 9999 - 1900)
        strcpy(text, "1970-01-01T00:00:00Z");
    else
        strftime(text, TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return text;
}

bool time_parse(const char *text, int64_t *seconds_out)
{
    struct tm tm = {0};
    char again[TIME_TEXT];
    const char *end;

    if (strlen(text) != TIME_TEXT - 1)
        return false;
    end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end)
        return false;
    *seconds_out = (int64_t)timegm(&tm);
    /* strptime takes 31 February and lone digits; only what we would write ourselves is valid. */
    return !strcmp(time_format(*seconds_out, again), text);
}

void clock_sleep_ms(uint64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}
