/* Plain files: their index in the cache, and what a location says. */
#include "format/plain.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#define MAGIC       "CIRPLAIN"
#define VERSION     1
#define TEXTS       64
#define SEAL        (PLAIN_HEADER_SIZE - DIGEST_SIZE)
#define SIZE_MOST   (UINT64_C(1) << 62)

void plain_header_format(const struct plain_header *header, uint8_t bytes[PLAIN_HEADER_SIZE])
{
    size_t shown = strlen(header->shown), validator = strlen(header->validator);
    struct digest seal;

    memset(bytes, 0, PLAIN_HEADER_SIZE);
    memcpy(bytes, MAGIC, 8);
    store_le32(bytes + 8, VERSION);
    store_le32(bytes + 12, header->slice_size);
    store_le64(bytes + 16, header->size);
    memcpy(bytes + 24, header->url.bytes, DIGEST_SIZE);
    store_le32(bytes + 56, (uint32_t)shown | (uint32_t)validator << 16);
    memcpy(bytes + TEXTS, header->shown, shown);
    memcpy(bytes + TEXTS + shown, header->validator, validator);
    digest_of(bytes, SEAL, &seal);
    memcpy(bytes + SEAL, seal.bytes, DIGEST_SIZE);
}

static bool is_text(const uint8_t *bytes, size_t length, unsigned line_feeds)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n' && line_feeds-- > 0)
            continue;
        if (bytes[i] < ' ' || bytes[i] == 0x7f)
            return false;
    }
    return true;
}

static int parse_texts(const uint8_t *bytes, struct plain_header *header, struct error *error)
{
    uint32_t lengths = load_le32(bytes + 56);
    size_t shown = lengths & 0xffff, validator = lengths >> 16;

    if (shown >= PLAIN_URL_SIZE || validator >= PLAIN_VALIDATOR_SIZE)
        return error_set(error, ERROR_CORRUPT, "its texts are too long");
    if (!is_text(bytes + TEXTS, shown, 0) || !is_text(bytes + TEXTS + shown, validator, 1))
        return error_set(error, ERROR_CORRUPT, "there are control characters in it");
    if (load_le32(bytes + 60) || !bytes_are_zero(bytes + TEXTS + shown + validator, SEAL - TEXTS - shown - validator))
        return error_set(error, ERROR_CORRUPT, "there is something where zeros should be");
    memcpy(header->shown, bytes + TEXTS, shown);
    memcpy(header->validator, bytes + TEXTS + shown, validator);
    return 0;
}

int plain_header_parse(const uint8_t *bytes, size_t size, struct plain_header *header_out, struct error *error)
{
    struct digest seal;

    *header_out = (struct plain_header){0};
    if (size < PLAIN_HEADER_SIZE || memcmp(bytes, MAGIC, 8))
        return error_set(error, ERROR_CORRUPT, "not the index of a plain file");
    if (load_le32(bytes + 8) != VERSION)
        return error_set(error, ERROR_CORRUPT, "version %u is not known", load_le32(bytes + 8));
    digest_of(bytes, SEAL, &seal);
    if (memcmp(seal.bytes, bytes + SEAL, DIGEST_SIZE))
        return error_set(error, ERROR_CORRUPT, "its header is damaged");
    header_out->slice_size = load_le32(bytes + 12);
    header_out->size = load_le64(bytes + 16);
    if (!is_power_of_two(header_out->slice_size) || header_out->slice_size < 4 * KIB || header_out->slice_size > MIB)
        return error_set(error, ERROR_CORRUPT, "slices of %u bytes", header_out->slice_size);
    if (header_out->size == 0 || header_out->size > SIZE_MOST)
        return error_set(error, ERROR_CORRUPT, "a file of %llu bytes", (unsigned long long)header_out->size);
    memcpy(header_out->url.bytes, bytes + 24, DIGEST_SIZE);
    return parse_texts(bytes, header_out, error);
}

void plain_folder_name(const struct plain_header *header, char name[DIGEST_TEXT])
{
    uint8_t bytes[DIGEST_SIZE + 12 + PLAIN_VALIDATOR_SIZE];
    size_t validator = strlen(header->validator);
    struct digest digest;

    memcpy(bytes, header->url.bytes, DIGEST_SIZE);
    store_le64(bytes + DIGEST_SIZE, header->size);
    store_le32(bytes + DIGEST_SIZE + 8, header->slice_size);
    memcpy(bytes + DIGEST_SIZE + 12, header->validator, validator);
    digest_of(bytes, DIGEST_SIZE + 12 + validator, &digest);
    digest_format(&digest, name);
}

/* The last component of LOCATION, without the query and fragment of a URL; its length. */
static const char *last_component(const char *location, size_t *length_out)
{
    const char *scheme = strstr(location, "://");
    size_t length = scheme && strncasecmp(location, "file:", 5) ? strcspn(location, "?#") : strlen(location);
    size_t start = length;

    while (start > 0 && location[start - 1] != '/')
        start--;
    *length_out = length - start;
    return location + start;
}

bool plain_is_location(const char *location)
{
    static const char *const endings[] = {".iso", ".img", ".raw"};
    size_t length;
    const char *name = last_component(location, &length);

    if (memchr(name, '@', length))
        return false;
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
        if (length > 4 && !strncasecmp(name + length - 4, endings[i], 4))
            return true;
    return false;
}

void plain_file_name(const char *location, char name[PLAIN_NAME_SIZE])
{
    bool url = strstr(location, "://") != NULL;
    size_t length, size = 0;
    const char *from = last_component(location, &length), *end = from + length;

    while (from < end && size < PLAIN_NAME_SIZE - 1) {
        uint8_t byte = (uint8_t)*from++;

        if (url && end - from >= 2 && percent_decode(from - 1, &byte))
            from += 2;
        name[size++] = byte < ' ' || byte == 0x7f || byte == '/' ? '_' : (char)byte;
    }
    name[size] = '\0';
    if (size == 0 || !strcmp(name, ".") || !strcmp(name, ".."))
        strcpy(name, "disk");
}
