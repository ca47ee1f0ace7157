/* What an HTTP request says: see request.h. */
#include "format/request.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"

/* The character at *AT, decoded; *AT is moved behind it. -1: malformed. */
static int decode_one(const char **at)
{
    const char *text = *at;
    uint8_t byte;

    if (*text != '%') {
        *at = text + 1;
        return (unsigned char)*text;
    }
    if (!percent_decode(text, &byte))
        return -1;
    *at = text + 3;
    return byte;
}

int request_path(const char *target, char *path, struct error *error)
{
    size_t length = 0;
    bool component_start = true;

    if (*target++ != '/')
        return error_set(error, ERROR_INVALID, "the request's target is not an absolute path");
    while (*target) {
        int byte = decode_one(&target);

        if (byte <= 0 || length + 1 >= REQUEST_PATH_MAX)
            return error_set(error, ERROR_INVALID, "the request's path is malformed or too long");
        if (component_start && (byte == '.' || byte == '/'))
            return error_set(error, ERROR_NOT_FOUND, "no file of an archive has such a name");
        component_start = byte == '/';
        path[length++] = (char)byte;
    }
    path[length] = '\0';
    if (component_start)
        return error_set(error, ERROR_NOT_FOUND, "folders are not listed");
    return 0;
}

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

static bool parse_number(const char **at, uint64_t *value_out)
{
    uint64_t value = 0;

    if (!isdigit((unsigned char)**at))
        return false;
    for (; isdigit((unsigned char)**at); (*at)++)
        if (!checked_mul(value, 10, &value) || !checked_add(value, (uint64_t)(**at - '0'), &value))
            return false;
    *value_out = value;
    return true;
}

/* One "a-b", "a-" or "-n" at *AT. False: malformed. A length of 0: outside of the file. */
static bool parse_range(const char **at, uint64_t size, struct request_range *range)
{
    uint64_t first, last = UINT64_MAX;

    if (**at == '-') {
        (*at)++;
        if (!parse_number(at, &last))
            return false;
        range->length = min_u64(last, size);
        range->offset = size - range->length;
        return true;
    }
    if (!parse_number(at, &first) || *(*at)++ != '-')
        return false;
    if (isdigit((unsigned char)**at) && (!parse_number(at, &last) || last < first))
        return false;
    range->offset = first;
    range->length = first >= size ? 0 : min_u64(last, size - 1) - first + 1;
    return true;
}

static bool overlaps(const struct request_range *ranges, int count, const struct request_range *range)
{
    for (int i = 0; i < count; i++)
        if (ranges[i].offset < range->offset + range->length && range->offset < ranges[i].offset + ranges[i].length)
            return true;
    return false;
}

int request_ranges(const char *header, uint64_t size, struct request_range *ranges)
{
    int count = 0;

    if (strncasecmp(header, "bytes=", 6))
        return -1;
    header += 6;
    for (;;) {
        struct request_range range;

        header = skip_blanks(header);
        if (!parse_range(&header, size, &range))
            return -1;
        if (range.length) {
            if (count == REQUEST_RANGES_MAX || overlaps(ranges, count, &range))
                return -1;
            ranges[count++] = range;
        }
        header = skip_blanks(header);
        if (*header == '\0')
            return count;
        if (*header++ != ',')
            return -1;
    }
}

static const char *const weekdays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

char *request_date_format(int64_t seconds, char *text)
{
    time_t t = (time_t)seconds;
    struct tm tm;

    /* Not strftime: the names must not follow the locale. */
    if (!gmtime_r(&t, &tm) || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900)
        gmtime_r(&(time_t){0}, &tm);
    snprintf(text, REQUEST_DATE_TEXT, "%s, %02u %s %04u %02u:%02u:%02u GMT", weekdays[tm.tm_wday],
             (unsigned)tm.tm_mday % 100, months[tm.tm_mon], (unsigned)(tm.tm_year + 1900) % 10000,
             (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
    return text;
}

bool request_date_parse(const char *text, int64_t *seconds_out)
{
    char month[4], again[REQUEST_DATE_TEXT];
    struct tm tm = {0};

    if (strlen(text) != REQUEST_DATE_TEXT - 1 ||
        sscanf(text + 5, "%2d %3s %4d %2d:%2d:%2d GMT", &tm.tm_mday, month, &tm.tm_year, &tm.tm_hour, &tm.tm_min,
               &tm.tm_sec) != 6)
        return false;
    for (tm.tm_mon = 0; tm.tm_mon < 12 && strcmp(months[tm.tm_mon], month); tm.tm_mon++)
        ;
    if (tm.tm_mon == 12)
        return false;
    tm.tm_year -= 1900;
    *seconds_out = (int64_t)timegm(&tm);
    /* Only what we would write ourselves: no 31 February, no wrong weekday. */
    return !strcmp(request_date_format(*seconds_out, again), text);
}

bool request_has_etag(const char *list, const char *etag)
{
    size_t length = strlen(etag);

    for (;;) {
        list = skip_blanks(list);
        if (*list == '*')
            return true;
        if (!strncmp(list, "W/", 2))
            list += 2;
        if (!strncmp(list, etag, length) && strchr(" \t,", list[length]))
            return true; /* strchr also finds the end of the text */
        if (*list++ != '"')
            return false;
        list = strchr(list, '"');
        if (!list)
            return false;
        list = skip_blanks(list + 1);
        if (*list++ != ',')
            return false;
    }
}
