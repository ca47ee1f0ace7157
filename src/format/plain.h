/*
 * The index of a plain file in the cache: which slices of a file, that came by
 * URL and that nobody has signed, are kept beside it, and what they were.
 *
 *    0   8  "CIRPLAIN"
 *    8   4  version, 1
 *   12   4  slice size, a power of two from 4 KiB to 1 MiB
 *   16   8  size of the file
 *   24  32  SHA-256 of the URL as it was given (it may hold a password)
 *   56   2  length of the URL fit to show
 *   58   2  length of the validator
 *   60   4  zero
 *   64   -  the URL to show, the validator (ETag, line feed, Last-Modified), zeros
 * 4064  32  SHA-256 of the bytes before
 * 4096  32  a slice: its SHA-256 when it was fetched, or zeros: not here
 */
#ifndef FORMAT_PLAIN_H
#define FORMAT_PLAIN_H

#include "base/error.h"
#include "base/hash.h"

#define PLAIN_HEADER_SIZE    4096
#define PLAIN_URL_SIZE       2048 /* with NUL, as the next */
#define PLAIN_VALIDATOR_SIZE 512

struct plain_header {
    uint32_t slice_size;
    uint64_t size; /* bytes, at least 1 */
    struct digest url;
    char shown[PLAIN_URL_SIZE];
    char validator[PLAIN_VALIDATOR_SIZE];
};

void plain_header_format(const struct plain_header *header, uint8_t bytes[PLAIN_HEADER_SIZE]);

/* ERROR_CORRUPT. Texts hold no control characters but the validator's one line feed. */
int plain_header_parse(const uint8_t *bytes, size_t size, struct plain_header *header_out, struct error *error);

static inline uint64_t plain_slice_count(const struct plain_header *header)
{
    return divide_up(header->size, header->slice_size);
}

/* Where the digest of SLICE is in the index. */
static inline uint64_t plain_digest_offset(uint64_t slice)
{
    return PLAIN_HEADER_SIZE + slice * DIGEST_SIZE;
}

/* The name of the folder that holds the index and the bytes: a digest over all that says which file it is. */
void plain_folder_name(const struct plain_header *header, char name[DIGEST_TEXT]);

/*
 * True if the location is a plain file by its looks: it ends in .iso, .img or .raw (in any case) and has no "@". Not by
 * what a server says: whoever sits between could then take the signature away from a published image.
 */
bool plain_is_location(const char *location);

/* The last component of a location as a file name: escapes decoded; what a file name cannot have becomes "_". */
#define PLAIN_NAME_SIZE 256
void plain_file_name(const char *location, char name[PLAIN_NAME_SIZE]);

#endif
