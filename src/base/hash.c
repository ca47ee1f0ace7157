/* SHA-256 through libcrypto. */
#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>

void digest_of(const void *bytes, size_t size, struct digest *digest_out)
{
    /* The one-shot low-level call picks the SHA extensions and needs no context on the heap. */
    SHA256(bytes, size, digest_out->bytes);
}

void *digest_search(const void *items, size_t count, size_t size, const struct digest *wanted)
{
    const uint8_t *bytes = items;
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (memcmp(bytes + middle * size, wanted->bytes, DIGEST_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && !memcmp(bytes + low * size, wanted->bytes, DIGEST_SIZE) ? (void *)(bytes + low * size) : NULL;
}

char *digest_format(const struct digest *digest, char *text)
{
    hex_encode(digest->bytes, DIGEST_SIZE, text);
    return text;
}

bool digest_parse(const char *text, struct digest *digest_out)
{
    return strlen(text) == 2 * DIGEST_SIZE && hex_decode(text, digest_out->bytes, DIGEST_SIZE);
}

struct hash {
    EVP_MD_CTX *context;
};

struct hash *hash_create(void)
{
    struct hash *hash = malloc(sizeof(*hash));

    if (!hash)
        return NULL;
    hash->context = EVP_MD_CTX_new();
    if (!hash->context || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1) {
        hash_destroy(hash);
        return NULL;
    }
    return hash;
}

void hash_update(struct hash *hash, const void *bytes, size_t size)
{
    EVP_DigestUpdate(hash->context, bytes, size);
}

void hash_final(struct hash *hash, struct digest *digest_out)
{
    EVP_DigestFinal_ex(hash->context, digest_out->bytes, NULL);
}

void hash_destroy(struct hash *hash)
{
    if (!hash)
        return;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}
