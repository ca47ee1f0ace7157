/* Bytes: hex, sizes and durations as people write them, and the growable buffer. */
#include "base/bytes.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

bool bytes_are_zero(const void *bytes, size_t size)
{
    const uint8_t *b = bytes;

    if (size == 0)
        return true;
    /* If the first byte is zero and every byte equals its neighbour, all are; memcmp is vectorised. */
    return b[0] == 0 && memcmp(b, b + 1, size - 1) == 0;
}

void hex_encode(const void *bytes, size_t size, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = bytes;

    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[b[i] >> 4];
        text[2 * i + 1] = digits[b[i] & 15];
    }
    text[2 * size] = '\0';
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    return -1;
}

bool hex_decode(const char *text, void *bytes, size_t size)
{
    uint8_t *b = bytes;

    for (size_t i = 0; i < size; i++) {
        int high = hex_value(text[2 * i]);
        int low = high < 0 ? -1 : hex_value(text[2 * i + 1]);

        if (low < 0)
            return false;
        b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool percent_decode(const char *text, uint8_t *byte_out)
{
    char digits[3];

    if (text[0] != '%' || !text[1])
        return false;
    digits[0] = (char)tolower((unsigned char)text[1]);
    digits[1] = (char)tolower((unsigned char)text[2]);
    digits[2] = '\0';
    return hex_decode(digits, byte_out, 1);
}

/* Decimal digits at *TEXT, which is moved behind them. False if there are none or too many. */
static bool parse_digits(const char **text, uint64_t *value_out)
{
    const char *at = *text;
    uint64_t value = 0;

    if (*at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++)
        if (!checked_mul(value, 10, &value) || !checked_add(value, (uint64_t)(*at - '0'), &value))
            return false;
    *text = at;
    *value_out = value;
    return true;
}

bool size_parse(const char *text, uint64_t *bytes_out)
{
    static const char units[] = "KMGTP";
    uint64_t value;
    const char *unit;

    if (!parse_digits(&text, &value))
        return false;
    if (*text && (unit = strchr(units, *text >= 'a' ? *text - 'a' + 'A' : *text))) {
        for (const char *u = units; u <= unit; u++)
            if (!checked_mul(value, 1024, &value))
                return false;
        text++;
        if (*text == 'i')
            text++;
    }
    if (*text == 'B')
        text++;
    if (*text)
        return false;
    *bytes_out = value;
    return true;
}

char *size_format(uint64_t bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(text, SIZE_TEXT, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

bool duration_parse(const char *text, uint64_t *ms_out)
{
    static const struct {
        const char *suffix;
        uint64_t ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t value;

    if (!parse_digits(&text, &value))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (!strcmp(text, units[i].suffix))
            return checked_mul(value, units[i].ms, ms_out);
    return false;
}

bool buffer_reserve(struct buffer *buffer, size_t extra)
{
    uint64_t wanted;
    size_t capacity = buffer->capacity ? buffer->capacity : 4096;
    uint8_t *bytes;

    if (!checked_add(buffer->size, extra, &wanted) || wanted > SIZE_MAX / 2)
        return false;
    if (wanted <= buffer->capacity)
        return true;
    while (capacity < wanted)
        capacity *= 2;
    bytes = realloc(buffer->bytes, capacity);
    if (!bytes)
        return false;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

bool buffer_append(struct buffer *buffer, const void *bytes, size_t size)
{
    if (!buffer_reserve(buffer, size))
        return false;
    if (size)
        memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
    return true;
}

void buffer_finish(struct buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct buffer){0};
}

#define ARRAY_FIRST 1024

void *array_grow(void *items, size_t count, size_t *capacity, size_t item_size)
{
    size_t wider = *capacity ? 2 * *capacity : ARRAY_FIRST;
    uint64_t size;
    void *moved;

    if (count < *capacity)
        return items;
    if (!checked_mul(wider, item_size, &size) || size > SIZE_MAX / 2)
        return NULL;
    moved = realloc(items, (size_t)size);
    if (moved)
        *capacity = wider;
    return moved;
}
