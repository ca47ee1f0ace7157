/*
 * minisign's keys and signatures: Ed25519 over BLAKE2b-512 of the message
 * (algorithm "ED"; the older "Ed" over the message itself is accepted when
 * verifying). circular-signature(5). The only file pair that knows libsodium.
 *
 * Public key:  "untrusted comment: TEXT\n" base64("Ed" | key number 8 | key 32) "\n"
 *              or the base64 alone.
 * Signature:   "untrusted comment: TEXT\n" base64("ED" | key number 8 | signature 64) "\n"
 *              "trusted comment: TEXT\n" base64(signature 64 over signature | TEXT) "\n"
 * A signature file of an archive holds one or more such four-line signatures;
 * it is good if one of them is, by a trusted key. `minisign -V` reads the first.
 * Two at once let a catalog be replaced without an instant in which it fails,
 * and let keys be changed.
 */
#ifndef FORMAT_SIGNATURE_H
#define FORMAT_SIGNATURE_H

#include "base/bytes.h"
#include "base/error.h"

#define KEY_NUMBER_TEXT 17       /* minisign prints the number as 16 upper-case hex digits, high byte first */
#define PUBLIC_KEY_TEXT 57       /* 56 base64 characters and NUL */
#define SIGNATURE_COMMENT_MAX 1024
#define SIGNATURE_FILE_MAX 16384

struct public_key {
    uint8_t number[8];
    uint8_t bytes[32];
};

struct secret_key {
    uint8_t number[8];
    uint8_t bytes[64]; /* libsodium's form: seed | public key */
};

char *key_number_format(const uint8_t number[8], char *text);

/* A .pub file or a bare base64 line. ERROR_CORRUPT with what is wrong. */
int public_key_parse(const char *text, size_t size, struct public_key *key_out, struct error *error);
/* The .pub file's text, two lines. Heap; NULL: no memory. */
char *public_key_format(const struct public_key *key);
/* The bare base64. TEXT holds PUBLIC_KEY_TEXT. */
char *public_key_base64(const struct public_key *key, char *text);

int key_pair_generate(struct public_key *public_out, struct secret_key *secret_out, struct error *error);

/* True if the .sec text needs a password. */
bool secret_key_is_encrypted(const char *text, size_t size);
/*
 * A .sec file; PASSWORD may be NULL when it is not encrypted. ERROR_UNTRUSTED: wrong password.
 * scrypt parameters from the file are bounded (memory at most 1 GiB) before use.
 */
int secret_key_parse(const char *text, size_t size, const char *password, struct secret_key *key_out,
                     struct error *error);
/* The .sec file's text; encrypted if PASSWORD is not NULL or empty. Heap; NULL: no memory. Wipe it after use. */
char *secret_key_format(const struct secret_key *key, const char *password);
void secret_key_public(const struct secret_key *key, struct public_key *public_out);
void secret_key_wipe(struct secret_key *key);

/* Sign; the result is the four lines. Heap; NULL: no memory or COMMENT too long or with a newline. */
char *signature_create(const struct secret_key *key, const void *message, size_t size, const char *comment);

struct trusted_keys {
    const struct public_key *keys;
    size_t count;
};

/*
 * Check a signature file against MESSAGE. On success SIGNER_OUT (may be NULL)
 * is the key and COMMENT_OUT (may be NULL, SIGNATURE_COMMENT_MAX bytes) the
 * trusted comment.
 * ERROR_CORRUPT: not a signature file. ERROR_UNTRUSTED: by no key in TRUSTED (the message names
 * the signing key's number), or by a trusted key over other bytes (the message says so).
 */
int signature_verify(const char *signature, size_t signature_size, const void *message, size_t size,
                     const struct trusted_keys *trusted, struct public_key *signer_out, char *comment_out,
                     struct error *error);

#endif
