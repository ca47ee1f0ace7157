/* Keys on disk: what is trusted, what is refused, and that no secret is overwritten or left lying about. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "trust/keys.h"

/* A folder of the test's own, which is also the current one; removed with the files in it. */
static int enter_folder(void **state)
{
    char *path = strdup("/tmp/test-keys-XXXXXX");

    *state = path;
    return path && mkdtemp(path) && !chdir(path) ? 0 : -1;
}

static int leave_folder(void **state)
{
    static const char *const names[] = {"lab.sec", "lab.pub",  "d/one.pub", "d/two.pub", "d/.hidden.pub",
                                        "d/notes", "d/bad.pub", "locked.sec", "locked.pub", "a/b/c.sec",
                                        "a/b/c.pub"};
    int result;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(names[i]);
    rmdir("a/b");
    rmdir("a");
    rmdir("d");
    result = chdir("/") || rmdir(*state); /* fails if a test left something behind */
    free(*state);
    return result;
}

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(AT_FDCWD, path, text, strlen(text), FILE_MAKE_FOLDERS, NULL), 0);
}

static void make_pair(const char *base, struct public_key *key)
{
    struct error error = ERROR_INIT;

    assert_int_equal(key_pair_write(base, NULL, key, &error), 0);
}

static void a_pair_is_made_once(void **state)
{
    struct error error = ERROR_INIT;
    struct secret_key secret;
    struct public_key made, other;
    struct stat status;

    (void)state;
    make_pair("a/b/c", &made);
    assert_int_equal(stat("a/b/c.sec", &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(secret_key_load("a/b/c.sec", NULL, NULL, &secret, &error), 0);
    secret_key_public(&secret, &other);
    assert_memory_equal(&made, &other, sizeof(made));
    assert_int_equal(key_pair_write("a/b/c", NULL, &other, &error), ERROR_EXISTS);
    assert_int_equal(unlink("a/b/c.sec"), 0);
    assert_int_equal(key_pair_write("a/b/c", NULL, &other, &error), ERROR_EXISTS);
    assert_string_equal(error.message, "a/b/c.pub exists already");
    assert_int_not_equal(access("a/b/c.sec", F_OK), 0);
}

static void a_bare_key_and_its_file_are_one_key(void **state)
{
    struct key_ring ring = {0};
    struct error error = ERROR_INIT;
    struct public_key key;
    char text[PUBLIC_KEY_TEXT];

    (void)state;
    make_pair("lab", &key);
    assert_int_equal(key_ring_add(&ring, "lab.pub", &error), 0);
    assert_int_equal(key_ring_add(&ring, public_key_base64(&key, text), &error), 0);
    assert_int_equal(ring.count, 1);
    assert_memory_equal(&ring.keys[0], &key, sizeof(key));
    assert_string_equal(ring.origins[0], "lab.pub");
    assert_int_equal(key_ring_trusted(&ring).count, 1);
    key_ring_finish(&ring);
    assert_int_equal(ring.count, 0);
}

static void a_folder_of_keys_is_all_trusted_or_an_error(void **state)
{
    struct key_ring ring = {0};
    struct error error = ERROR_INIT;
    struct public_key one, two;

    (void)state;
    assert_int_equal(key_ring_add_folder(&ring, "d", &error), 0); /* not there: no keys */
    assert_int_equal(ring.count, 0);
    make_pair("d/two", &two);
    make_pair("d/one", &one);
    assert_int_equal(unlink("d/one.sec") | unlink("d/two.sec"), 0);
    put("d/notes", "not a key");
    put("d/.hidden.pub", "not a key");
    assert_int_equal(key_ring_add_folder(&ring, "d", &error), 0);
    assert_int_equal(ring.count, 2);
    assert_memory_equal(&ring.keys[0], &one, sizeof(one));
    put("d/bad.pub", "not a key\n");
    assert_int_equal(key_ring_add_folder(&ring, "d", &error), ERROR_CORRUPT);
    assert_non_null(strstr(error.message, "d/bad.pub"));
    key_ring_finish(&ring);
}

static void what_is_no_key_says_why(void **state)
{
    struct key_ring ring = {0};
    struct error error = ERROR_INIT;
    struct secret_key secret;

    (void)state;
    assert_int_equal(key_ring_add(&ring, "missing.pub", &error), ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "missing.pub"));
    assert_int_equal(secret_key_load("missing.sec", NULL, NULL, &secret, &error), ERROR_NOT_FOUND);
    put("lab.pub", "untrusted comment: x\nRWQ\n");
    assert_int_equal(key_ring_add(&ring, "lab.pub", &error), ERROR_CORRUPT);
    assert_int_equal(secret_key_load("lab.pub", NULL, NULL, &secret, &error), ERROR_CORRUPT);
    assert_int_equal(ring.count, 0);
    key_ring_finish(&ring);
}

/* Answers with USER; or with its error code if that is NULL. */
static int answer(void *user, const char *path, char *password, size_t size, struct error *error)
{
    assert_string_equal(path, "locked.sec");
    if (!user)
        return error_set(error, ERROR_CANCELLED, "not told");
    snprintf(password, size, "%s", (const char *)user);
    return 0;
}

static void an_encrypted_key_needs_its_password(void **state)
{
    static char right[] = "right", wrong[] = "wrong";
    struct error error = ERROR_INIT;
    struct public_key made, loaded;
    struct secret_key secret;

    (void)state;
    assert_int_equal(key_pair_write("locked", right, &made, &error), 0);
    assert_int_equal(secret_key_load("locked.sec", NULL, NULL, &secret, &error), ERROR_INVALID);
    assert_int_equal(secret_key_load("locked.sec", answer, NULL, &secret, &error), ERROR_CANCELLED);
    assert_int_equal(secret_key_load("locked.sec", answer, wrong, &secret, &error), ERROR_UNTRUSTED);
    assert_non_null(strstr(error.message, "locked.sec"));
    assert_int_equal(secret_key_load("locked.sec", answer, right, &secret, &error), 0);
    secret_key_public(&secret, &loaded);
    assert_memory_equal(&made, &loaded, sizeof(made));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_pair_is_made_once),
        IN_FOLDER(a_bare_key_and_its_file_are_one_key),
        IN_FOLDER(a_folder_of_keys_is_all_trusted_or_an_error),
        IN_FOLDER(what_is_no_key_says_why),
        IN_FOLDER(an_encrypted_key_needs_its_password),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
