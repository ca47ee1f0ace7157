/*
 * Bytes: little-endian integers, checked arithmetic on untrusted sizes, hex,
 * and a growable buffer.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* Load and store little-endian integers at any alignment, on any host. */
static inline uint32_t load_le32(const void *from)
{
    const uint8_t *b = from;

    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t load_le64(const void *from)
{
    return load_le32(from) | (uint64_t)load_le32((const uint8_t *)from + 4) << 32;
}

static inline void store_le32(void *to, uint32_t value)
{
    uint8_t *b = to;

    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(value >> (8 * i));
}

static inline void store_le64(void *to, uint64_t value)
{
    store_le32(to, (uint32_t)value);
    store_le32((uint8_t *)to + 4, (uint32_t)(value >> 32));
}

/* Checked arithmetic for sizes from outside: true and *out set, or false on overflow. */
static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline uint64_t divide_up(uint64_t value, uint64_t divisor)
{
    return value / divisor + (value % divisor != 0);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* True if all SIZE bytes are zero. */
bool bytes_are_zero(const void *bytes, size_t size);

/* Lower-case hex of SIZE bytes into TEXT, which holds 2 * SIZE + 1 characters. */
void hex_encode(const void *bytes, size_t size, char *text);

/* Exactly 2 * SIZE lower-case hex digits of TEXT into BYTES. False on any other character. */
bool hex_decode(const char *text, void *bytes, size_t size);

/* The byte of the escape, like "%2F" (RFC 3986, section 2.1), that the string TEXT begins with. False: with none. */
bool percent_decode(const char *text, uint8_t *byte_out);

/* Parse "64K", "2MiB", "1G", "4096" (binary multiples) to bytes. False if malformed or too large. */
bool size_parse(const char *text, uint64_t *bytes_out);

/* "3.0 GiB", "418 KiB", "17 B" into TEXT (at least 16 characters). Returns TEXT. */
char *size_format(uint64_t bytes, char *text);
#define SIZE_TEXT 16

/* Parse "500ms", "60s", "5m", "24h", "30d", "60" (seconds) to milliseconds. */
bool duration_parse(const char *text, uint64_t *ms_out);

/* A growable run of bytes. Zero-initialised is empty; buffer_finish releases. */
struct buffer {
    uint8_t *bytes;
    size_t size;
    size_t capacity;
};

/* Make room for EXTRA more bytes. False if there is no memory. */
bool buffer_reserve(struct buffer *buffer, size_t extra);
bool buffer_append(struct buffer *buffer, const void *bytes, size_t size);
void buffer_finish(struct buffer *buffer);

/*
 * Room for one more in an array on the heap that holds COUNT of *CAPACITY items of ITEM_SIZE bytes: ITEMS itself, or
 * where it lies now, twice as large. NULL: no memory, ITEMS is as before.
 */
void *array_grow(void *items, size_t count, size_t *capacity, size_t item_size);

#endif
