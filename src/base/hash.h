/*
 * SHA-256 (FIPS 180-4), the digest of everything. This is the only file pair
 * that knows libcrypto.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/bytes.h"

#define DIGEST_SIZE 32
#define DIGEST_TEXT 65 /* 64 lower-case hex digits and a NUL */

struct digest {
    uint8_t bytes[DIGEST_SIZE];
};

/* Digest of SIZE bytes. Thread-safe; does not allocate on the heap in the steady state. */
void digest_of(const void *bytes, size_t size, struct digest *digest_out);

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
    return !memcmp(a, b, sizeof(*a));
}

/* The all-zero digest stands for a block (or map page) of zeros, which is never stored. */
static inline bool digest_is_zero(const struct digest *digest)
{
    return bytes_are_zero(digest, sizeof(*digest));
}

/*
 * The first of COUNT items of SIZE bytes, sorted by the digest that each begins with, whose digest is WANTED. NULL:
 * there is none.
 */
void *digest_search(const void *items, size_t count, size_t size, const struct digest *wanted);

/* Writes DIGEST_TEXT characters. Returns TEXT. */
char *digest_format(const struct digest *digest, char *text);

/* Exactly 64 lower-case hex digits followed by NUL. */
bool digest_parse(const char *text, struct digest *digest_out);

/* A digest over bytes that come in pieces. */
struct hash;
struct hash *hash_create(void); /* NULL: no memory */
void hash_update(struct hash *hash, const void *bytes, size_t size);
void hash_final(struct hash *hash, struct digest *digest_out);
void hash_destroy(struct hash *hash);

#endif
