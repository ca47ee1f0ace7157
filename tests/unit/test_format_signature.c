/*
 * Signatures and keys: ours against ourselves, and both ways against the
 * minisign program where it is installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "format/signature.h"

/* Made by minisign 0.11: a key pair without password, "hi\n" signed hashed and, with -l, the older way. */
#define MINISIGN_PUBLIC "RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhH"
#define MINISIGN_SECRET                                                                                           \
    "untrusted comment: minisign encrypted secret key\n"                                                          \
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI7khALR/dRf78AF1a/TSKIK2JeolT84u175U" \
    "A4Se8OXJJUTQ5FOOz5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhHAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
#define MINISIGN_HASHED                                                                                           \
    "untrusted comment: signature from minisign secret key\n"                                                     \
    "RUQjuSEAtH91F2vA1cjgmmuzeaygVTNv1EVFkGTno/2IHAD2x/GrPax1OR8fswKc9rrSyoIqBIoyRkoCekMwzlsqA1NFPS7TPAM=\n"      \
    "trusted comment: timestamp:1795297243\tfile:m\thashed\n"                                                     \
    "CGi0HJMHRe6CQ2j0UpDr1DsWW7kM1sFdNOg/R3MrCPu64NzCMELUE/RtD0KJg2YVayYPJBqlr01Pkm8xtfnXDQ==\n"
#define MINISIGN_LEGACY                                                                                           \
    "untrusted comment: signature from minisign secret key\n"                                                     \
    "RWQjuSEAtH91F6Phzl9SWdXIaJ6Hh3m56ePPlcT0SJwcSO7kLRggGikyn+rF6fOYExBh/BibFVE3qVdowrX6HdgkN6fmr68S+Ak=\n"      \
    "trusted comment: timestamp:1795297243\tfile:m\n"                                                             \
    "4rkJya07RQfGcMDYyGazSsuXVsOnV4+z7YDaRHxxChWk9HVwfLcnCFIjj/4m2cNWPPPhEGppGGAYaxYSg/txDA==\n"

/* The same with the password "p", in scrypt of 1 GiB. */
#define ENCRYPTED_PUBLIC "RWRCPzQRIUyaLKg6yS7Fw39TAE61LchgfAWCqbrRV0ZyCWkYNLUYTeph"
#define ENCRYPTED_SECRET                                                                                          \
    "untrusted comment: minisign encrypted secret key\n"                                                          \
    "RWRTY0IyJjTHVvFqKvLhq3a6pVEE5D6G+/fAGtPCD/YCHdeWxU8AAAACAAAAAAAAAEAAAAAAJgsiX/UmP0qg3eN9iqeHK6NhHYrQTncSyW5s" \
    "TcSVZKrFM/xd0GUM2/aWak7owbWt7tHvm/FmNUVuDzkTjJyZmlJ/KDiTtbO5APrySL/uZI9+Nh7tjt3RrDRjHgS1xp1QLe3DELq50lE=\n"

static int verify(const char *signature, const char *message, const struct public_key *keys, size_t count,
                  char *comment, struct error *error)
{
    struct trusted_keys trusted = {keys, count};
    struct public_key signer;
    int result = signature_verify(signature, strlen(signature), message, strlen(message), &trusted, &signer,
                                  comment, error);

    if (!result) {
        bool known = false;

        for (size_t i = 0; i < count; i++)
            known |= !memcmp(&signer, &keys[i], sizeof(signer));
        assert_true(known);
    }
    return result;
}

static void assert_says(const struct error *error, const char *part)
{
    if (!strstr(error->message, part))
        fail_msg("'%s' does not say '%s'", error->message, part);
}

static char *concatenate(const char *a, const char *b)
{
    char *whole;

    assert_true(asprintf(&whole, "%s%s", a, b) > 0);
    return whole;
}

static void signatures_of_minisign_are_good(void **state)
{
    struct public_key key;
    char comment[SIGNATURE_COMMENT_MAX];
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(public_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), &key, &error), 0);
    assert_int_equal(verify(MINISIGN_HASHED, "hi\n", &key, 1, comment, &error), 0);
    assert_string_equal(comment, "timestamp:1795297243\tfile:m\thashed");
    assert_int_equal(verify(MINISIGN_LEGACY, "hi\n", &key, 1, comment, &error), 0);
    assert_string_equal(comment, "timestamp:1795297243\tfile:m");
    assert_int_equal(verify(MINISIGN_HASHED, "ha\n", &key, 1, NULL, &error), ERROR_UNTRUSTED);
    assert_int_equal(verify(MINISIGN_LEGACY, "ha\n", &key, 1, NULL, &error), ERROR_UNTRUSTED);
    assert_says(&error, "trusted key 17757FB40021B923 does not match");
}

static void a_secret_key_of_minisign_is_read(void **state)
{
    struct secret_key secret;
    struct public_key key, expected;
    struct error error = ERROR_INIT;

    (void)state;
    assert_false(secret_key_is_encrypted(MINISIGN_SECRET, strlen(MINISIGN_SECRET)));
    assert_int_equal(secret_key_parse(MINISIGN_SECRET, strlen(MINISIGN_SECRET), NULL, &secret, &error), 0);
    secret_key_public(&secret, &key);
    assert_int_equal(public_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), &expected, &error), 0);
    assert_memory_equal(&key, &expected, sizeof(key));
    secret_key_wipe(&secret);
    assert_true(bytes_are_zero(&secret, sizeof(secret)));
}

static void an_encrypted_key_of_minisign_is_read(void **state)
{
    struct secret_key secret;
    struct public_key key, expected;
    struct error error = ERROR_INIT;

    (void)state;
    assert_true(secret_key_is_encrypted(ENCRYPTED_SECRET, strlen(ENCRYPTED_SECRET)));
    assert_int_equal(secret_key_parse(ENCRYPTED_SECRET, strlen(ENCRYPTED_SECRET), "p", &secret, &error), 0);
    secret_key_public(&secret, &key);
    assert_int_equal(public_key_parse(ENCRYPTED_PUBLIC, strlen(ENCRYPTED_PUBLIC), &expected, &error), 0);
    assert_memory_equal(&key, &expected, sizeof(key));
}

static void keys_survive_their_files(void **state)
{
    static const char *const passwords[] = {NULL, "", "p\xc3\xa4ss"};
    struct public_key public, again;
    struct secret_key secret, read;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(key_pair_generate(&public, &secret, &error), 0);
    for (size_t i = 0; i < sizeof(passwords) / sizeof(passwords[0]); i++) {
        auto_free char *text = secret_key_format(&secret, passwords[i]);
        bool encrypted = passwords[i] && *passwords[i];

        assert_int_equal(secret_key_is_encrypted(text, strlen(text)), encrypted);
        assert_int_equal(secret_key_parse(text, strlen(text), passwords[i], &read, &error), 0);
        assert_memory_equal(&read, &secret, sizeof(read));
        if (!encrypted)
            continue;
        assert_int_equal(secret_key_parse(text, strlen(text), "wrong", &read, &error), ERROR_UNTRUSTED);
        assert_says(&error, "wrong password");
        assert_int_equal(secret_key_parse(text, strlen(text), NULL, &read, &error), ERROR_INVALID);
    }
    auto_free char *text = public_key_format(&public);
    char base64[PUBLIC_KEY_TEXT];

    assert_int_equal(public_key_parse(text, strlen(text), &again, &error), 0);
    assert_memory_equal(&public, &again, sizeof(public));
    public_key_base64(&public, base64);
    assert_int_equal(public_key_parse(base64, strlen(base64), &again, &error), 0);
    assert_memory_equal(&public, &again, sizeof(public));
}

static void any_of_several_signatures_will_do(void **state)
{
    struct public_key publics[2];
    struct secret_key secrets[2];
    struct error error = ERROR_INIT;
    char comment[SIGNATURE_COMMENT_MAX];

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(key_pair_generate(&publics[i], &secrets[i], &error), 0);
    auto_free char *old = signature_create(&secrets[0], "old", 3, "the old one");
    auto_free char *new = signature_create(&secrets[0], "new", 3, "the new one");
    auto_free char *other = signature_create(&secrets[1], "new", 3, "another key's");
    auto_free char *old_new = concatenate(old, new);
    auto_free char *other_new = concatenate(other, new);
    auto_free char *new_other = concatenate(new, other);

    assert_int_equal(verify(old_new, "old", publics, 1, comment, &error), 0);
    assert_string_equal(comment, "the old one");
    assert_int_equal(verify(old_new, "new", publics, 1, comment, &error), 0);
    assert_string_equal(comment, "the new one");
    assert_int_equal(verify(other_new, "new", publics, 1, comment, &error), 0);
    assert_string_equal(comment, "the new one");
    assert_int_equal(verify(new_other, "new", publics + 1, 1, comment, &error), 0);
    assert_string_equal(comment, "another key's");
    assert_int_equal(verify(old_new, "neither", publics, 2, comment, &error), ERROR_UNTRUSTED);
    assert_says(&error, "does not match");
    assert_int_equal(verify(old_new, "new", publics + 1, 1, comment, &error), ERROR_UNTRUSTED);
    assert_says(&error, "which is not trusted");
    assert_int_equal(verify(old_new, "new", publics, 0, comment, &error), ERROR_UNTRUSTED);
    assert_says(&error, "no key is");
    /* One bad signature among good ones makes the whole a file that we do not know. */
    old_new[strlen(old_new) - 5] = '*';
    assert_int_equal(verify(old_new, "old", publics, 1, comment, &error), ERROR_CORRUPT);
    assert_says(&error, "signature 2");
}

/* Take each part of a signature from another one by the same key. */
static void no_part_can_be_exchanged(void **state)
{
    struct public_key public;
    struct secret_key secret;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(key_pair_generate(&public, &secret, &error), 0);
    auto_free char *good = signature_create(&secret, "good", 4, "serial 7");
    auto_free char *lies = signature_create(&secret, "lies", 4, "serial 8");
    size_t length = strlen(good);

    assert_int_equal(strlen(lies), length);
    for (size_t i = 0; i < length; i++) {
        auto_free char *mixed = strdup(good);

        if (mixed[i] == lies[i])
            continue;
        mixed[i] = lies[i];
        assert_int_equal(verify(mixed, "good", &public, 1, NULL, &error), ERROR_UNTRUSTED);
    }
    /* Another key that claims the same number. */
    struct public_key impostor;
    struct secret_key impostors;

    assert_int_equal(key_pair_generate(&impostor, &impostors, &error), 0);
    memcpy(impostors.number, secret.number, sizeof(secret.number));
    auto_free char *forged = signature_create(&impostors, "good", 4, "serial 7");

    assert_int_equal(verify(forged, "good", &public, 1, NULL, &error), ERROR_UNTRUSTED);
    /* Both trusted, both of one number: the right one is found. */
    memcpy(impostor.number, public.number, sizeof(public.number));
    struct public_key both[2] = {impostor, public};

    assert_int_equal(verify(good, "good", both, 2, NULL, &error), 0);
}

static void comments_are_one_line(void **state)
{
    struct public_key public;
    struct secret_key secret;
    char comment[SIGNATURE_COMMENT_MAX + 1], found[SIGNATURE_COMMENT_MAX];

    (void)state;
    assert_int_equal(key_pair_generate(&public, &secret, NULL), 0);
    assert_null(signature_create(&secret, "m", 1, "two\nlines"));
    assert_null(signature_create(&secret, "m", 1, "\x1b[2J"));
    memset(comment, 'c', sizeof(comment));
    comment[SIGNATURE_COMMENT_MAX] = '\0';
    assert_null(signature_create(&secret, "m", 1, comment));
    comment[SIGNATURE_COMMENT_MAX - 1] = '\0';
    auto_free char *longest = signature_create(&secret, "m", 1, comment);

    assert_int_equal(verify(longest, "m", &public, 1, found, NULL), 0);
    assert_string_equal(found, comment);
    auto_free char *empty = signature_create(&secret, "m", 1, "");

    assert_int_equal(verify(empty, "m", &public, 1, found, NULL), 0);
    assert_string_equal(found, "");
}

static void malformed_texts_are_refused(void **state)
{
    static const struct {
        const char *text, *refusal;
    } publics[] = {
        {"", "empty"},
        {"untrusted comment: x", "only a comment"},
        {"untrusted comment: x\n\n", "not 56 characters"},
        {"RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwh", "not 56 characters"},
        {"RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhHRWQj", "not 56 characters"},
        {"RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcw*H", "not 56 characters"},
        {"RUQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhH", "not one of minisign's"},
        {MINISIGN_PUBLIC "\n" MINISIGN_PUBLIC "\n", "more lines"},
        {MINISIGN_SECRET, "this is a secret key"},
    };
    static const struct {
        const char *text, *refusal;
    } signatures[] = {
        {"", "empty"},
        {"\n\n", "empty"},
        {"hello", "does not begin"},
        {"untrusted comment: x\n", "signature 1 is not 100"},
        {MINISIGN_HASHED "x", "signature 2 does not begin"},
        {MINISIGN_HASHED "untrusted comment: x\nRUQj\n", "signature 2 is not 100"},
        {"untrusted comment: x\n"
         "RUQjuSEAtH91F2vA1cjgmmuzeaygVTNv1EVFkGTno/2IHAD2x/GrPax1OR8fswKc9rrSyoIqBIoyRkoCekMwzlsqA1NFPS7TPAM=\n"
         "trusted comment: \x1b[2J\n"
         "CGi0HJMHRe6CQ2j0UpDr1DsWW7kM1sFdNOg/R3MrCPu64NzCMELUE/RtD0KJg2YVayYPJBqlr01Pkm8xtfnXDQ==\n",
         "signature 1 has a trusted comment that is too long or not text"},
    };
    struct public_key key;
    struct secret_key secret;
    struct error error = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(publics) / sizeof(publics[0]); i++) {
        assert_int_equal(public_key_parse(publics[i].text, strlen(publics[i].text), &key, &error), ERROR_CORRUPT);
        assert_says(&error, publics[i].refusal);
    }
    assert_int_equal(public_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), &key, &error), 0);
    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
        assert_int_equal(verify(signatures[i].text, "hi\n", &key, 1, NULL, &error), ERROR_CORRUPT);
        assert_says(&error, signatures[i].refusal);
    }
    assert_int_equal(secret_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), NULL, &secret, &error),
                     ERROR_CORRUPT);
    assert_says(&error, "this is a public key");
}

/* A key file with BYTE at OFFSET of the 158. */
static int parse_altered(unsigned offset, uint8_t byte, const char *password, struct error *error)
{
    char *base64 = strdup(strchr(MINISIGN_SECRET, '\n') + 1);
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned shift = 16 - 8 * (offset % 3);
    uint32_t word = 0;
    struct secret_key key;
    int result;

    for (int i = 0; i < 4; i++)
        word = word << 6 | (uint32_t)(strchr(alphabet, base64[offset / 3 * 4 + (unsigned)i]) - alphabet);
    word = (word & ~(0xffU << shift)) | (uint32_t)byte << shift;
    for (unsigned i = 0; i < 4; i++)
        base64[offset / 3 * 4 + i] = alphabet[word >> (18 - 6 * i) & 63];
    result = secret_key_parse(base64, strlen(base64), password, &key, error);
    free(base64);
    return result;
}

static void altered_secret_keys_are_refused(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(parse_altered(0, 'E', NULL, &error), 0);
    assert_int_equal(parse_altered(0, 'e', NULL, &error), ERROR_CORRUPT);
    assert_int_equal(parse_altered(2, 'X', NULL, &error), ERROR_CORRUPT);
    assert_says(&error, "not known");
    assert_int_equal(parse_altered(4, 'b', NULL, &error), ERROR_CORRUPT);
    assert_int_equal(parse_altered(62, 0, NULL, &error), ERROR_CORRUPT);
    assert_says(&error, "two halves");
    assert_int_equal(parse_altered(100, 0, NULL, &error), ERROR_CORRUPT);
    assert_int_equal(parse_altered(126, 1, NULL, &error), ERROR_CORRUPT);
    assert_says(&error, "checksum");
}

static void scrypt_is_not_asked_for_the_impossible(void **state)
{
    struct public_key public;
    struct secret_key secret, read;
    struct error error = ERROR_INIT;
    char *base64;

    (void)state;
    assert_int_equal(key_pair_generate(&public, &secret, &error), 0);
    auto_free char *text = secret_key_format(&secret, "p");

    /* Bytes 48 to 53 are the upper ones of the memory limit: characters 64 to 71 of the base64. */
    base64 = strchr(text, '\n') + 1;
    memset(base64 + 64, '/', 8);
    assert_int_equal(secret_key_parse(text, strlen(text), "p", &read, &error), ERROR_CORRUPT);
    assert_says(&error, "more work or memory");
}

/* The minisign program as the oracle. */
struct lab {
    char folder[32];
    int fd;
};

static int run(const struct lab *lab, const char *command)
{
    auto_free char *line = NULL;

    assert_true(asprintf(&line, "cd %s && %s >out 2>&1", lab->folder, command) > 0);
    return system(line);
}

static void put(const struct lab *lab, const char *name, const char *text)
{
    assert_non_null(text);
    assert_int_equal(file_write_atomic(lab->fd, name, text, strlen(text), 0, NULL), 0);
}

static void get(const struct lab *lab, const char *name, struct buffer *text)
{
    assert_int_equal(file_read(lab->fd, name, 65536, text, NULL), 0);
    assert_true(buffer_append(text, "", 1));
    text->size--;
}

static void open_lab(struct lab *lab)
{
    if (system("command -v minisign >/dev/null 2>&1"))
        skip();
    strcpy(lab->folder, "/tmp/test-signature-XXXXXX");
    assert_non_null(mkdtemp(lab->folder));
    lab->fd = file_open_folder(lab->folder, false, NULL);
    assert_true(lab->fd >= 0);
}

static void close_lab(struct lab *lab)
{
    run(lab, "rm -rf \"$PWD\"");
    close(lab->fd);
}

static void minisign_takes_our_signatures(void **state)
{
    struct lab lab;
    struct public_key public;
    struct secret_key secret;

    (void)state;
    open_lab(&lab);
    assert_int_equal(key_pair_generate(&public, &secret, NULL), 0);
    auto_free char *public_text = public_key_format(&public);
    auto_free char *good = signature_create(&secret, "message", 7, "timestamp:1\tfile:m");
    auto_free char *bad = signature_create(&secret, "massage", 7, "x");
    auto_free char *both = concatenate(good, bad);

    put(&lab, "key.pub", public_text);
    put(&lab, "m", "message");
    put(&lab, "good", good);
    put(&lab, "bad", bad);
    put(&lab, "both", both);
    assert_int_equal(run(&lab, "minisign -V -H -p key.pub -m m -x good"), 0);
    assert_int_equal(run(&lab, "minisign -V -H -p key.pub -m m -x both"), 0);
    assert_int_not_equal(run(&lab, "minisign -V -p key.pub -m m -x bad"), 0);
    close_lab(&lab);
}

static void minisign_signs_with_our_keys(void **state)
{
    static const char *const passwords[] = {NULL, "a password"};
    struct lab lab;
    struct public_key public;
    struct secret_key secret;
    struct buffer text = {0};

    (void)state;
    open_lab(&lab);
    assert_int_equal(key_pair_generate(&public, &secret, NULL), 0);
    put(&lab, "m", "message");
    for (int i = 0; i < 2; i++) {
        auto_free char *secret_text = secret_key_format(&secret, passwords[i]);

        put(&lab, "key.sec", secret_text);
        assert_int_equal(run(&lab, "echo a password | minisign -S -s key.sec -m m -x hashed"), 0);
        get(&lab, "hashed", &text);
        assert_int_equal(verify((char *)text.bytes, "message", &public, 1, NULL, NULL), 0);
        if (passwords[i])
            continue; /* one scrypt is enough */
        assert_int_equal(run(&lab, "minisign -S -l -s key.sec -m m -x legacy"), 0);
        get(&lab, "legacy", &text);
        assert_int_equal(verify((char *)text.bytes, "message", &public, 1, NULL, NULL), 0);
    }
    buffer_finish(&text);
    close_lab(&lab);
}

static void keys_of_minisign_sign_for_us(void **state)
{
    struct lab lab;
    struct secret_key secret;
    struct public_key public, from_file;
    struct buffer text = {0};

    (void)state;
    open_lab(&lab);
    put(&lab, "m", "message");
    assert_int_equal(run(&lab, "minisign -G -W -p key.pub -s key.sec"), 0);
    get(&lab, "key.sec", &text);
    assert_int_equal(secret_key_parse((char *)text.bytes, text.size, NULL, &secret, NULL), 0);
    get(&lab, "key.pub", &text);
    assert_int_equal(public_key_parse((char *)text.bytes, text.size, &from_file, NULL), 0);
    secret_key_public(&secret, &public);
    assert_memory_equal(&public, &from_file, sizeof(public));
    auto_free char *signature = signature_create(&secret, "message", 7, "ours");

    put(&lab, "m.minisig", signature);
    assert_int_equal(run(&lab, "minisign -V -p key.pub -m m"), 0);
    buffer_finish(&text);
    close_lab(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signatures_of_minisign_are_good),
        cmocka_unit_test(a_secret_key_of_minisign_is_read),
        cmocka_unit_test(an_encrypted_key_of_minisign_is_read),
        cmocka_unit_test(keys_survive_their_files),
        cmocka_unit_test(any_of_several_signatures_will_do),
        cmocka_unit_test(no_part_can_be_exchanged),
        cmocka_unit_test(comments_are_one_line),
        cmocka_unit_test(malformed_texts_are_refused),
        cmocka_unit_test(altered_secret_keys_are_refused),
        cmocka_unit_test(scrypt_is_not_asked_for_the_impossible),
        cmocka_unit_test(minisign_takes_our_signatures),
        cmocka_unit_test(minisign_signs_with_our_keys),
        cmocka_unit_test(keys_of_minisign_sign_for_us),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
