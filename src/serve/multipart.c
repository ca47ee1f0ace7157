/* multipart/byteranges: texts and pieces of the file in turn. */
#include "serve/multipart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"

#define SECTIONS_MAX (2 * REQUEST_RANGES_MAX + 1)
#define TEXT_MAX     256

/* Either a text (length of it) or a piece of the file. */
struct section {
    bool is_text;
    uint64_t offset; /* in the file */
    uint64_t length;
    char text[TEXT_MAX];
};

struct multipart {
    int fd;
    char boundary[33];
    uint64_t size;
    unsigned count;
    struct section sections[SECTIONS_MAX];
};

static void add_section(struct multipart *multipart, struct section section)
{
    multipart->sections[multipart->count++] = section;
    multipart->size += section.length;
}

static void add_part(struct multipart *multipart, uint64_t file_size, const char *type,
                     const struct request_range *range)
{
    struct section text = {.is_text = true};

    snprintf(text.text, TEXT_MAX,
             "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n",
             multipart->count ? "\r\n" : "", multipart->boundary, type, (unsigned long long)range->offset,
             (unsigned long long)(range->offset + range->length - 1), (unsigned long long)file_size);
    text.length = strlen(text.text);
    add_section(multipart, text);
    add_section(multipart, (struct section){.offset = range->offset, .length = range->length});
}

struct multipart *multipart_create(int fd, uint64_t file_size, const char *type, const struct request_range *ranges,
                                   unsigned count)
{
    struct multipart *multipart = calloc(1, sizeof(*multipart));
    struct section end = {.is_text = true};
    uint8_t random[16];

    if (!multipart || getrandom(random, sizeof(random), 0) != sizeof(random)) {
        free(multipart);
        close(fd);
        return NULL;
    }
    multipart->fd = fd;
    hex_encode(random, sizeof(random), multipart->boundary);
    for (unsigned i = 0; i < count; i++)
        add_part(multipart, file_size, type, &ranges[i]);
    snprintf(end.text, TEXT_MAX, "\r\n--%s--\r\n", multipart->boundary);
    end.length = strlen(end.text);
    add_section(multipart, end);
    return multipart;
}

void multipart_destroy(void *multipart)
{
    struct multipart *gone = multipart;

    if (!gone)
        return;
    close(gone->fd);
    free(gone);
}

uint64_t multipart_size(const struct multipart *multipart)
{
    return multipart->size;
}

const char *multipart_boundary(const struct multipart *multipart)
{
    return multipart->boundary;
}

ssize_t multipart_read(void *multipart, uint64_t position, char *bytes, size_t size)
{
    struct multipart *from = multipart;
    struct section *section = from->sections;
    ssize_t got;

    while (section < from->sections + from->count && position >= section->length)
        position -= section++->length;
    if (section == from->sections + from->count)
        return -1;
    size = min_u64(size, section->length - position);
    if (section->is_text) {
        memcpy(bytes, section->text + position, size);
        return (ssize_t)size;
    }
    got = pread(from->fd, bytes, size, (off_t)(section->offset + position));
    return got > 0 ? got : -1;
}
