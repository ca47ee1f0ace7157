/* minisign's keys and signatures: see signature.h. The only file that knows libsodium. */
#include "format/signature.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/text.h"

#define UNTRUSTED "untrusted comment: "
#define TRUSTED   "trusted comment: "

/* Sizes and offsets of what the base64 holds. */
enum {
    PUBLIC_SIZE = 2 + 8 + 32,
    SIGNATURE_SIZE = 2 + 8 + 64,
    GLOBAL_SIZE = 64,

    SECRET_KDF = 2,
    SECRET_CHECK = 4,
    SECRET_SALT = 6,
    SECRET_OPERATIONS = 38,
    SECRET_MEMORY = 46,
    SECRET_NUMBER = 54, /* from here on encrypted */
    SECRET_KEY = 62,
    SECRET_CHECKSUM = 126,
    SECRET_SIZE = 158,
    SECRET_ENCRYPTED = SECRET_SIZE - SECRET_NUMBER,
};

#define BASE64_MAX 216 /* of SECRET_SIZE bytes, with NUL, and some */

/* scrypt with N = 2^17, r = 8, p = 1: 128 MiB and some tenths of a second. */
#define OPERATIONS (UINT64_C(1) << 22)
#define MEMORY     (128 * MIB)

/* What a key file may ask for; minisign's own keys ask for 2^25 and 1 GiB. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define OPERATIONS_MAX (UINT64_C(1) << 15)
#define MEMORY_MAX     (1 * MIB)
#else
#define OPERATIONS_MAX (UINT64_C(1) << 27)
#define MEMORY_MAX     (1 * GIB)
#endif

/* A run of characters in a text that is not ours. */
struct span {
    const char *text;
    size_t length;
};

static bool starts_with(struct span span, const char *prefix)
{
    return span.length >= strlen(prefix) && !memcmp(span.text, prefix, strlen(prefix));
}

/* Cut the next line off REST, without its end ("\n" or "\r\n"). False at the end of the text. */
static bool next_line(struct span *rest, struct span *line_out)
{
    const char *end;

    if (rest->length == 0)
        return false;
    end = memchr(rest->text, '\n', rest->length);
    line_out->text = rest->text;
    line_out->length = end ? (size_t)(end - rest->text) : rest->length;
    rest->text += line_out->length + (end != NULL);
    rest->length -= line_out->length + (end != NULL);
    if (line_out->length && line_out->text[line_out->length - 1] == '\r')
        line_out->length--;
    return true;
}

static bool is_blank(struct span span)
{
    for (size_t i = 0; i < span.length; i++)
        if (!memchr(" \t\r\n", span.text[i], 4))
            return false;
    return true;
}

/* Exactly SIZE bytes of base64. */
static bool decode(struct span text, uint8_t *bytes, size_t size)
{
    size_t length;

    return sodium_base642bin(bytes, size, text.text, text.length, NULL, &length, NULL,
                             sodium_base64_VARIANT_ORIGINAL) == 0 &&
           length == size;
}

static char *encode(const uint8_t *bytes, size_t size, char text[BASE64_MAX])
{
    return sodium_bin2base64(text, BASE64_MAX, bytes, size, sodium_base64_VARIANT_ORIGINAL);
}

/* The line of base64 in a key file, or in a text that is nothing else. WHAT is for the message. */
static int key_line(const char *text, size_t size, const char *what, struct span *line_out,
                    struct error *error)
{
    struct span rest = {text, size}, line;

    if (!next_line(&rest, line_out))
        return error_set(error, ERROR_CORRUPT, "%s is empty", what);
    if (starts_with(*line_out, "untrusted comment:") && !next_line(&rest, line_out))
        return error_set(error, ERROR_CORRUPT, "%s has only a comment", what);
    while (next_line(&rest, &line))
        if (!is_blank(line))
            return error_set(error, ERROR_CORRUPT, "%s has more lines than a key", what);
    return 0;
}

char *key_number_format(const uint8_t number[8], char *text)
{
    snprintf(text, KEY_NUMBER_TEXT, "%016llX", (unsigned long long)load_le64(number));
    return text;
}

int public_key_parse(const char *text, size_t size, struct public_key *key_out, struct error *error)
{
    uint8_t bytes[PUBLIC_SIZE];
    struct span line;
    int result = key_line(text, size, "the public key", &line, error);

    if (result)
        return result;
    if (line.length == sodium_base64_ENCODED_LEN(SECRET_SIZE, sodium_base64_VARIANT_ORIGINAL) - 1)
        return error_set(error, ERROR_CORRUPT, "this is a secret key, where the public one is wanted");
    if (!decode(line, bytes, sizeof(bytes)))
        return error_set(error, ERROR_CORRUPT, "the public key is not 56 characters of base64");
    if (memcmp(bytes, "Ed", 2))
        return error_set(error, ERROR_CORRUPT, "the public key is not one of minisign's");
    memcpy(key_out->number, bytes + 2, sizeof(key_out->number));
    memcpy(key_out->bytes, bytes + 10, sizeof(key_out->bytes));
    return 0;
}

char *public_key_base64(const struct public_key *key, char *text)
{
    uint8_t bytes[PUBLIC_SIZE] = "Ed";
    char base64[BASE64_MAX];

    memcpy(bytes + 2, key->number, sizeof(key->number));
    memcpy(bytes + 10, key->bytes, sizeof(key->bytes));
    memcpy(text, encode(bytes, sizeof(bytes), base64), PUBLIC_KEY_TEXT);
    return text;
}

char *public_key_format(const struct public_key *key)
{
    char number[KEY_NUMBER_TEXT], base64[PUBLIC_KEY_TEXT];

    return text_format(UNTRUSTED "circular public key %s\n%s\n", key_number_format(key->number, number),
                       public_key_base64(key, base64));
}

int key_pair_generate(struct public_key *public_out, struct secret_key *secret_out, struct error *error)
{
    if (sodium_init() < 0)
        return error_set(error, ERROR_SYSTEM, "there is no source of random numbers");
    crypto_sign_keypair(public_out->bytes, secret_out->bytes);
    randombytes_buf(secret_out->number, sizeof(secret_out->number));
    memcpy(public_out->number, secret_out->number, sizeof(public_out->number));
    return 0;
}

void secret_key_public(const struct secret_key *key, struct public_key *public_out)
{
    memcpy(public_out->number, key->number, sizeof(public_out->number));
    memcpy(public_out->bytes, key->bytes + 32, sizeof(public_out->bytes));
}

void secret_key_wipe(struct secret_key *key)
{
    sodium_memzero(key, sizeof(*key));
}

/* The bytes of a .sec file, still encrypted if they are. */
static int decode_secret(const char *text, size_t size, uint8_t bytes[SECRET_SIZE], struct error *error)
{
    struct span line;
    int result = key_line(text, size, "the secret key", &line, error);

    if (result)
        return result;
    if (line.length == PUBLIC_KEY_TEXT - 1)
        return error_set(error, ERROR_CORRUPT, "this is a public key, where the secret one is wanted");
    if (!decode(line, bytes, SECRET_SIZE))
        return error_set(error, ERROR_CORRUPT, "the secret key is not 212 characters of base64");
    if (memcmp(bytes, "Ed", 2) || memcmp(bytes + SECRET_CHECK, "B2", 2))
        return error_set(error, ERROR_CORRUPT, "the secret key is not one of minisign's");
    if (memcmp(bytes + SECRET_KDF, "Sc", 2) && memcmp(bytes + SECRET_KDF, "\0\0", 2))
        return error_set(error, ERROR_CORRUPT, "the secret key is encrypted in a way that is not known");
    return 0;
}

static bool is_encrypted(const uint8_t bytes[SECRET_SIZE])
{
    return bytes[SECRET_KDF] != 0;
}

bool secret_key_is_encrypted(const char *text, size_t size)
{
    uint8_t bytes[SECRET_SIZE];
    bool encrypted = !decode_secret(text, size, bytes, NULL) && is_encrypted(bytes);

    sodium_memzero(bytes, sizeof(bytes));
    return encrypted;
}

static void checksum(const uint8_t bytes[SECRET_SIZE], uint8_t sum[32])
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, NULL, 0, 32);
    crypto_generichash_update(&state, bytes, 2);
    crypto_generichash_update(&state, bytes + SECRET_NUMBER, SECRET_CHECKSUM - SECRET_NUMBER);
    crypto_generichash_final(&state, sum, 32);
    sodium_memzero(&state, sizeof(state));
}

/* Encrypt or decrypt in place: exclusive or with what scrypt makes of the password. */
static int apply_password(uint8_t bytes[SECRET_SIZE], const char *password, struct error *error)
{
    uint64_t operations = load_le64(bytes + SECRET_OPERATIONS), memory = load_le64(bytes + SECRET_MEMORY);
    uint8_t stream[SECRET_ENCRYPTED];

    if (operations > OPERATIONS_MAX || memory > MEMORY_MAX)
        return error_set(
            error, ERROR_CORRUPT,
            "the secret key asks for more work or memory than any password should (%llu operations, "
            "%llu bytes)",
            (unsigned long long)operations, (unsigned long long)memory);
    if (crypto_pwhash_scryptsalsa208sha256(stream, sizeof(stream), password, strlen(password),
                                           bytes + SECRET_SALT, operations, (size_t)memory))
        return error_set(error, ERROR_SYSTEM, "no memory for the password's scrypt (%llu bytes)",
                         (unsigned long long)memory);
    for (size_t i = 0; i < sizeof(stream); i++)
        bytes[SECRET_NUMBER + i] ^= stream[i];
    sodium_memzero(stream, sizeof(stream));
    return 0;
}

/* Is this, decrypted, a whole key? */
static int check_secret(const uint8_t bytes[SECRET_SIZE], struct error *error)
{
    uint8_t sum[32], public[32], pair[64];
    bool right, encrypted = is_encrypted(bytes);

    checksum(bytes, sum);
    right = !sodium_memcmp(sum, bytes + SECRET_CHECKSUM, sizeof(sum));
    /* minisign leaves the checksum of a key without password zero. */
    if (!encrypted && bytes_are_zero(bytes + SECRET_CHECKSUM, sizeof(sum)))
        right = true;
    if (!right)
        return encrypted ? error_set(error, ERROR_UNTRUSTED, "wrong password for the secret key")
                         : error_set(error, ERROR_CORRUPT, "the secret key's checksum does not match");
    /* Signing with a public half that is not the seed's own would give the secret away. */
    crypto_sign_seed_keypair(public, pair, bytes + SECRET_KEY);
    right = !sodium_memcmp(pair, bytes + SECRET_KEY, sizeof(pair));
    sodium_memzero(pair, sizeof(pair));
    return right ? 0 : error_set(error, ERROR_CORRUPT, "the secret key's two halves do not belong together");
}

int secret_key_parse(const char *text, size_t size, const char *password, struct secret_key *key_out,
                     struct error *error)
{
    uint8_t bytes[SECRET_SIZE];
    int result = decode_secret(text, size, bytes, error);

    if (!result && sodium_init() < 0)
        result = error_set(error, ERROR_SYSTEM, "there is no source of random numbers");
    if (!result && is_encrypted(bytes))
        result = password ? apply_password(bytes, password, error)
                          : error_set(error, ERROR_INVALID, "the secret key needs a password");
    if (!result)
        result = check_secret(bytes, error);
    if (!result) {
        memcpy(key_out->number, bytes + SECRET_NUMBER, sizeof(key_out->number));
        memcpy(key_out->bytes, bytes + SECRET_KEY, sizeof(key_out->bytes));
    }
    sodium_memzero(bytes, sizeof(bytes));
    return result;
}

static char *format_secret(const uint8_t bytes[SECRET_SIZE])
{
    char base64[BASE64_MAX];
    char *text = text_format(UNTRUSTED "circular %ssecret key\n%s\n", is_encrypted(bytes) ? "encrypted " : "",
                             encode(bytes, SECRET_SIZE, base64));

    sodium_memzero(base64, sizeof(base64));
    return text;
}

char *secret_key_format(const struct secret_key *key, const char *password)
{
    uint8_t bytes[SECRET_SIZE] = "Ed\0\0B2";
    char *text = NULL;

    if (sodium_init() < 0)
        return NULL;
    memcpy(bytes + SECRET_NUMBER, key->number, sizeof(key->number));
    memcpy(bytes + SECRET_KEY, key->bytes, sizeof(key->bytes));
    if (password && *password) {
        memcpy(bytes + SECRET_KDF, "Sc", 2);
        randombytes_buf(bytes + SECRET_SALT, SECRET_OPERATIONS - SECRET_SALT);
        store_le64(bytes + SECRET_OPERATIONS, OPERATIONS);
        store_le64(bytes + SECRET_MEMORY, MEMORY);
        checksum(bytes, bytes + SECRET_CHECKSUM);
        if (apply_password(bytes, password, NULL))
            goto out;
    }
    text = format_secret(bytes);
out:
    sodium_memzero(bytes, sizeof(bytes));
    return text;
}

static bool is_comment(struct span comment)
{
    if (comment.length >= SIGNATURE_COMMENT_MAX)
        return false;
    for (size_t i = 0; i < comment.length; i++) {
        unsigned char c = (unsigned char)comment.text[i];

        /* minisign's own comments have tabs. */
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* What the fourth line of a signature signs: the signature of the second, and the comment. */
struct global {
    uint8_t bytes[GLOBAL_SIZE + SIGNATURE_COMMENT_MAX];
    size_t size;
};

static void make_global(const uint8_t signature[64], struct span comment, struct global *global)
{
    memcpy(global->bytes, signature, 64);
    memcpy(global->bytes + 64, comment.text, comment.length);
    global->size = 64 + comment.length;
}

char *signature_create(const struct secret_key *key, const void *message, size_t size, const char *comment)
{
    uint8_t hash[64], bytes[SIGNATURE_SIZE] = "ED", over[GLOBAL_SIZE];
    char number[KEY_NUMBER_TEXT], base64[BASE64_MAX], base64_over[BASE64_MAX];
    struct span span = {comment, strlen(comment)};
    struct global global;

    if (!is_comment(span) || sodium_init() < 0)
        return NULL;
    crypto_generichash(hash, sizeof(hash), message, size, NULL, 0);
    memcpy(bytes + 2, key->number, sizeof(key->number));
    crypto_sign_detached(bytes + 10, NULL, hash, sizeof(hash), key->bytes);
    make_global(bytes + 10, span, &global);
    crypto_sign_detached(over, NULL, global.bytes, global.size, key->bytes);
    return text_format(UNTRUSTED "signature by circular key %s\n%s\n" TRUSTED "%s\n%s\n",
                       key_number_format(key->number, number), encode(bytes, sizeof(bytes), base64), comment,
                       encode(over, sizeof(over), base64_over));
}

/* One signature of a file. */
struct signature {
    uint8_t bytes[SIGNATURE_SIZE];
    uint8_t over[GLOBAL_SIZE];
    struct span comment;
};

/* The next four lines of REST. NUMBER counts signatures, for the message. */
static int parse_signature(struct span *rest, unsigned number, struct signature *signature,
                           struct error *error)
{
    struct span line;

    if (!next_line(rest, &line) || !starts_with(line, "untrusted comment:"))
        return error_set(error, ERROR_CORRUPT, "signature %u does not begin with an untrusted comment",
                         number);
    if (!next_line(rest, &line) || !decode(line, signature->bytes, SIGNATURE_SIZE))
        return error_set(error, ERROR_CORRUPT, "signature %u is not 100 characters of base64", number);
    if (memcmp(signature->bytes, "ED", 2) && memcmp(signature->bytes, "Ed", 2))
        return error_set(error, ERROR_CORRUPT, "signature %u is of a kind that is not known", number);
    if (!next_line(rest, &line) || !starts_with(line, TRUSTED))
        return error_set(error, ERROR_CORRUPT, "signature %u has no trusted comment", number);
    signature->comment = (struct span){line.text + strlen(TRUSTED), line.length - strlen(TRUSTED)};
    if (!is_comment(signature->comment))
        return error_set(error, ERROR_CORRUPT,
                         "signature %u has a trusted comment that is too long or not text", number);
    if (!next_line(rest, &line) || !decode(line, signature->over, GLOBAL_SIZE))
        return error_set(error, ERROR_CORRUPT, "signature %u has no signature of its trusted comment",
                         number);
    return 0;
}

/* What is signed, in the two forms that signatures use. */
struct message {
    const void *bytes;
    size_t size;
    uint8_t hash[64];
};

static bool matches(const struct signature *signature, const struct public_key *key,
                    const struct message *message)
{
    bool hashed = signature->bytes[1] == 'D';
    struct global global;

    if (crypto_sign_verify_detached(signature->bytes + 10, hashed ? message->hash : message->bytes,
                                    hashed ? sizeof(message->hash) : message->size, key->bytes))
        return false;
    make_global(signature->bytes + 10, signature->comment, &global);
    return !crypto_sign_verify_detached(signature->over, global.bytes, global.size, key->bytes);
}

/* The first trusted key with the signature's number and, with MESSAGE, whose signature it is. */
static const struct public_key *find_key(const struct signature *signature,
                                         const struct trusted_keys *trusted, const struct message *message)
{
    for (size_t i = 0; i < trusted->count; i++) {
        const struct public_key *key = &trusted->keys[i];

        if (!memcmp(key->number, signature->bytes + 2, sizeof(key->number)) &&
            (!message || matches(signature, key, message)))
            return key;
    }
    return NULL;
}

static int accept(const struct signature *signature, const struct public_key *key,
                  struct public_key *signer_out, char *comment_out)
{
    if (signer_out)
        *signer_out = *key;
    if (comment_out) {
        memcpy(comment_out, signature->comment.text, signature->comment.length);
        comment_out[signature->comment.length] = '\0';
    }
    return 0;
}

/* Why none of the signatures in TEXT, which parse, was accepted. */
static int explain(struct span text, const struct trusted_keys *trusted, struct error *error)
{
    char numbers[4 * (KEY_NUMBER_TEXT + 1)] = "", number[KEY_NUMBER_TEXT];
    struct signature signature;

    for (unsigned i = 1; !is_blank(text); i++) {
        if (parse_signature(&text, i, &signature, error))
            return ERROR_CORRUPT;
        key_number_format(signature.bytes + 2, number);
        if (find_key(&signature, trusted, NULL))
            return error_set(
                error, ERROR_UNTRUSTED,
                "the signature by trusted key %s does not match: the signed file or the signature was "
                "changed",
                number);
        if (!strstr(numbers, number) && strlen(numbers) + KEY_NUMBER_TEXT + 2 < sizeof(numbers))
            sprintf(numbers + strlen(numbers), "%s%s", *numbers ? ", " : "", number);
    }
    return error_set(error, ERROR_UNTRUSTED, "signed by key %s, which is not trusted%s", numbers,
                     trusted->count ? "" : " (no key is)");
}

int signature_verify(const char *signature, size_t signature_size, const void *message, size_t size,
                     const struct trusted_keys *trusted, struct public_key *signer_out, char *comment_out,
                     struct error *error)
{
    struct span text = {signature, signature_size}, rest = text;
    struct message signed_message = {.bytes = message, .size = size};
    const struct public_key *good_key = NULL;
    struct signature one, good;

    if (signature_size > SIGNATURE_FILE_MAX)
        return error_set(error, ERROR_CORRUPT, "the signature file is larger than %d bytes",
                         SIGNATURE_FILE_MAX);
    if (is_blank(text))
        return error_set(error, ERROR_CORRUPT, "the signature file is empty");
    if (sodium_init() < 0)
        return error_set(error, ERROR_SYSTEM, "libsodium does not work here");
    crypto_generichash(signed_message.hash, sizeof(signed_message.hash), message, size, NULL, 0);
    for (unsigned i = 1; !is_blank(rest); i++) {
        int result = parse_signature(&rest, i, &one, error);

        if (result)
            return result;
        if (!good_key && (good_key = find_key(&one, trusted, &signed_message)))
            good = one;
    }
    return good_key ? accept(&good, good_key, signer_out, comment_out) : explain(text, trusted, error);
}
