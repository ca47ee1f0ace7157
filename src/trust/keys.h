/*
 * Keys on disk: making pairs, loading secret keys, and collecting the public
 * keys that are trusted.
 */
#ifndef TRUST_KEYS_H
#define TRUST_KEYS_H

#include "format/signature.h"

/* The trusted public keys; zero-initialised is empty. */
struct key_ring {
    struct public_key *keys;
    char **origins; /* the file that each came from */
    size_t count;
};

/* Add the key in a .pub file, or KEY itself if it is a bare base64 public key. Duplicates are ignored. */
int key_ring_add(struct key_ring *ring, const char *key, struct error *error);
/* Add every *.pub of a folder; a folder that is not there is no error, a malformed key in it is. */
int key_ring_add_folder(struct key_ring *ring, const char *folder, struct error *error);
void key_ring_finish(struct key_ring *ring);
static inline struct trusted_keys key_ring_trusted(const struct key_ring *ring)
{
    return (struct trusted_keys){ring->keys, ring->count};
}

/*
 * Make BASE.sec (0600) and BASE.pub; PASSWORD NULL: not encrypted. EXISTS if either is there.
 */
int key_pair_write(const char *base, const char *password, struct public_key *public_out, struct error *error);

/*
 * Load a secret key. ASK is called if the file is encrypted; it fills PASSWORD (NUL-terminated) or returns an
 * error code. NULL: ERROR_INVALID for an encrypted file.
 */
int secret_key_load(const char *path, int (*ask)(void *user, const char *path, char *password, size_t size,
                    struct error *error), void *user, struct secret_key *key_out, struct error *error);

#endif
