/* Archives that are what they should be, and every way in which they are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "archive_fixture.h"

static void an_archive_opens_and_says_what_it_has(void **state)
{
    struct fixture *f = *state;
    const struct catalog_version *version;

    archive_maker_add(&f->maker, "debian12", "2", f->image, 70000, 4096);
    archive_maker_add(&f->maker, "rescue", "2026-1", f->image, 1, 4096);
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 2);
    assert_memory_equal(archive_signer(f->archive), &f->maker.public_key, sizeof(f->maker.public_key));
    assert_false(archive_is_offline(f->archive));
    assert_string_equal(logged, "");
    assert_int_equal(archive_find(f->archive, "debian12", "", &version, &f->error), 0);
    assert_string_equal(version->version, "2");
    assert_int_equal(archive_find(f->archive, "debian12", "1", &version, &f->error), 0);
    assert_string_equal(version->version, "1");
    assert_int_equal(archive_find(f->archive, "debian", NULL, &version, &f->error), ERROR_NOT_FOUND);
    assert_non_null(strstr(f->error.message, "no image debian; it has: rescue, debian12"));
    assert_int_equal(archive_find(f->archive, "debian12", "3", &version, &f->error), ERROR_NOT_FOUND);
    assert_non_null(strstr(f->error.message, "no version 3 of debian12; it has: 2, 1"));
}

static void many_names_are_not_all_told(void **state)
{
    struct fixture *f = *state;
    const struct catalog_version *version;
    char name[32];

    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "image-%d", i);
        struct catalog_version entry = f->maker.catalog.versions[0];
        strcpy(entry.name, name);
        assert_int_equal(catalog_add(&f->maker.catalog, &entry, NULL), 0);
    }
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_find(f->archive, "x", NULL, &version, &f->error), ERROR_NOT_FOUND);
    assert_non_null(strstr(f->error.message, "image-499, image-498"));
    assert_non_null(strstr(f->error.message, " more"));
    assert_true(strlen(f->error.message) < 900);
}

static void unsigned_and_wrongly_signed_catalogs_are_refused(void **state)
{
    struct fixture *f = *state;
    struct public_key other_public;
    struct secret_key other;
    char number[KEY_NUMBER_TEXT], *text;
    size_t size;

    archive_maker_remove(&f->maker, "catalog.json.minisig");
    assert_refused(f, ERROR_UNTRUSTED, "not signed");

    assert_int_equal(key_pair_generate(&other_public, &other, NULL), 0);
    struct secret_key own = f->maker.secret_key;
    f->maker.secret_key = other;
    archive_maker_publish(&f->maker);
    assert_refused(f, ERROR_UNTRUSTED, key_number_format(other_public.number, number));
    f->maker.secret_key = own;

    archive_maker_write(&f->maker, "catalog.json.minisig", "hello\n", 6);
    assert_refused(f, ERROR_UNTRUSTED, "catalog.json.minisig: signature 1");

    archive_maker_publish(&f->maker);
    text = archive_maker_read(&f->maker, "catalog.json", &size);
    memcpy(strstr(text, "debian12"), "debian13", 8);
    archive_maker_write(&f->maker, "catalog.json", text, size);
    assert_refused(f, ERROR_UNTRUSTED, "was changed");
    archive_maker_write(&f->maker, "catalog.json", text, size / 2);
    assert_refused(f, ERROR_UNTRUSTED, "was changed");
    archive_maker_write(&f->maker, "catalog.json", "", 0);
    assert_refused(f, ERROR_UNTRUSTED, "was changed");
    free(text);

    archive_maker_remove(&f->maker, "catalog.json");
    assert_refused(f, ERROR_NOT_FOUND, "no archive");

    /* Signed nonsense is the publisher's, and no reason to distrust the key. */
    text = signature_create(&f->maker.secret_key, "{\"a\"", 4, "x");
    archive_maker_write(&f->maker, "catalog.json", "{\"a\"", 4);
    archive_maker_write(&f->maker, "catalog.json.minisig", text, strlen(text));
    assert_refused(f, ERROR_CORRUPT, "catalog");
    free(text);

    archive_maker_publish(&f->maker);
    f->settings.key_count = 0;
    assert_refused(f, ERROR_UNTRUSTED, "no public key is trusted");
    f->settings.key_count = 1;
    assert_int_equal(client_open(f), 0);
}

static void an_expired_catalog_is_refused(void **state)
{
    struct fixture *f = *state;

    f->maker.catalog.published = clock_wall() - 1000;
    f->maker.catalog.expires = clock_wall() - 10;
    archive_maker_publish(&f->maker);
    assert_refused(f, ERROR_EXPIRED, "expired at 2");
    f->maker.catalog.expires = clock_wall() + 1000;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    /* Also with a good one in the cache: an old catalog may be all that an attacker lets through. */
    f->maker.catalog.expires = clock_wall() - 10;
    archive_maker_publish(&f->maker);
    assert_refused(f, ERROR_EXPIRED, "serial 4");
}

static void a_rolled_back_catalog_is_refused(void **state)
{
    struct fixture *f = *state;

    f->maker.catalog.serial = 6;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    f->maker.catalog.serial = 4;
    archive_maker_publish(&f->maker);
    assert_refused(f, ERROR_ROLLED_BACK, "it has serial 5 of 2");
    assert_non_null(strstr(f->error.message, "serial 7 was seen"));

    /* The state alone remembers it, and so does the cache alone. */
    remove_folder(f->cache);
    assert_refused(f, ERROR_ROLLED_BACK, "serial 7 was seen");
    f->maker.catalog.serial = 6;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    remove_folder(f->state);
    f->maker.catalog.serial = 4;
    archive_maker_publish(&f->maker);
    assert_refused(f, ERROR_ROLLED_BACK, "serial 7 was seen");

    /* Neither: nobody can know. The same serial again is no rollback. */
    remove_folder(f->state);
    remove_folder(f->cache);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(client_open(f), 0);
}

static void a_damaged_state_is_not_taken_for_none(void **state)
{
    struct fixture *f = *state;
    char path[300];

    assert_int_equal(client_open(f), 0);
    client_close(f);
    snprintf(path, sizeof(path), "%s/serial-%s", f->state, f->maker.catalog.archive);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, "what?\n", 6, 0, NULL), 0);
    assert_refused(f, ERROR_CORRUPT, "is damaged");
}

static void keys_can_be_changed_with_two_signatures(void **state)
{
    struct fixture *f = *state;
    struct public_key next_public;
    struct secret_key next;
    char next_text[PUBLIC_KEY_TEXT];

    assert_int_equal(key_pair_generate(&next_public, &next, NULL), 0);
    f->maker.second_key = &next;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_memory_equal(archive_signer(f->archive), &f->maker.public_key, sizeof(next_public));
    f->keys[0] = public_key_base64(&next_public, next_text);
    assert_int_equal(client_open(f), 0);
    assert_memory_equal(archive_signer(f->archive), &next_public, sizeof(next_public));
}

static void *sign_later(void *user)
{
    nanosleep(&(struct timespec){0, 70000000}, NULL);
    archive_maker_write_signature(user);
    return NULL;
}

static void a_catalog_that_is_just_being_replaced_opens(void **state)
{
    struct fixture *f = *state;
    int result = ERROR_UNTRUSTED;
    pthread_t thread;

    /* On a busy machine the signature may now and then be later than it is waited for. */
    for (int i = 0; i < 8 && result; i++) {
        f->maker.catalog.serial++;
        archive_maker_write_catalog(&f->maker);
        assert_int_equal(pthread_create(&thread, NULL, sign_later, &f->maker), 0);
        result = client_open(f);
        pthread_join(thread, NULL);
    }
    assert_int_equal(result, 0);
    assert_int_equal(archive_catalog(f->archive)->serial, f->maker.catalog.serial);
}

static void a_manifest_that_the_catalog_does_not_name_is_refused(void **state)
{
    struct fixture *f = *state;
    const struct catalog_version *version;
    struct manifest *manifest = malloc(sizeof(*manifest));
    char *text, path[400];
    size_t size;

    text = archive_maker_read(&f->maker, "images/debian12/1.json", &size);
    archive_maker_write(&f->maker, "images/debian12/1.json", text, size - 1);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_find(f->archive, "debian12", NULL, &version, NULL), 0);
    assert_int_equal(archive_manifest(f->archive, version, manifest, &f->error), ERROR_CORRUPT);
    assert_non_null(strstr(f->error.message, "debian12@1: images/debian12/1.json"));
    archive_maker_write(&f->maker, "images/debian12/1.json", text, size);
    assert_int_equal(archive_manifest(f->archive, version, manifest, &f->error), 0);
    assert_string_equal(manifest->name, "debian12");

    /* From now on it is cached; and a damaged one there is fetched again. */
    archive_maker_remove(&f->maker, "images/debian12/1.json");
    assert_int_equal(archive_manifest(f->archive, version, manifest, &f->error), 0);
    cached_path(f, "images/debian12/1.json", path);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, "{}", 2, 0, NULL), 0);
    assert_int_equal(archive_manifest(f->archive, version, manifest, &f->error), ERROR_NOT_FOUND);
    archive_maker_write(&f->maker, "images/debian12/1.json", text, size);
    assert_int_equal(archive_manifest(f->archive, version, manifest, &f->error), 0);
    free(text);
    free(manifest);
}

static void a_publisher_who_contradicts_himself_is_told(void **state)
{
    struct fixture *f = *state;
    const struct catalog_version *version;
    struct disk *disk;

    f->maker.catalog.versions[0].disk_size = IMAGE_SIZE + 1;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_find(f->archive, "debian12", NULL, &version, NULL), 0);
    assert_int_equal(archive_disk(f->archive, version, &disk, &f->error), ERROR_CORRUPT);
    assert_non_null(strstr(f->error.message, "contradicts"));
}

static void insecure_opens_anything_and_says_so_each_time(void **state)
{
    struct fixture *f = *state;
    uint64_t serial;
    int state_fd;

    f->settings.key_count = 0;
    f->settings.insecure = true;
    f->maker.catalog.serial = 1000;
    archive_maker_publish(&f->maker);
    archive_maker_remove(&f->maker, "catalog.json.minisig");
    for (int i = 0; i < 2; i++) {
        logged[0] = '\0';
        assert_int_equal(client_open(f), 0);
        assert_null(archive_signer(f->archive));
        assert_true(was_logged("insecure: "));
        assert_disk_reads(f);
    }
    /* What nobody signed must not be able to lock out what is signed. */
    client_close(f);
    state_fd = file_open_folder(f->state, false, NULL);
    assert_int_equal(serial_read(state_fd, f->maker.catalog.archive, &serial, NULL), 0);
    assert_int_equal(serial, 0);
    close(state_fd);
    f->settings.key_count = 1;
    f->settings.insecure = false;
    f->maker.catalog.serial = 1;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
}

static void another_archive_at_the_same_place_is_told(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(client_open(f), 0);
    catalog_make_id(f->maker.catalog.archive);
    f->maker.catalog.serial = 0;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_true(was_logged("is another archive than before"));
}

static void *raise_many(void *user)
{
    int state_fd = file_open_folder(user, false, NULL);

    for (uint64_t i = 0; i < 100; i++) {
        uint64_t serial;

        assert_int_equal(serial_raise(state_fd, "a", i * 7 % 101, NULL), 0);
        assert_int_equal(serial_read(state_fd, "a", &serial, NULL), 0);
        assert_true(serial >= i * 7 % 101);
    }
    close(state_fd);
    return NULL;
}

static void serials_never_go_down(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[8];
    uint64_t serial;
    int state_fd = file_open_folder(f->client, false, NULL);

    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, raise_many, f->client), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(serial_read(state_fd, "a", &serial, NULL), 0);
    assert_int_equal(serial, 100);
    close(state_fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_archive_opens_and_says_what_it_has),
        TEST(many_names_are_not_all_told),
        TEST(unsigned_and_wrongly_signed_catalogs_are_refused),
        TEST(an_expired_catalog_is_refused),
        TEST(a_rolled_back_catalog_is_refused),
        TEST(a_damaged_state_is_not_taken_for_none),
        TEST(keys_can_be_changed_with_two_signatures),
        TEST(a_catalog_that_is_just_being_replaced_opens),
        TEST(a_manifest_that_the_catalog_does_not_name_is_refused),
        TEST(a_publisher_who_contradicts_himself_is_told),
        TEST(insecure_opens_anything_and_says_so_each_time),
        TEST(another_archive_at_the_same_place_is_told),
        TEST(serials_never_go_down),
    };

    log_set_sink(keep_log, NULL, LOG_LEVEL_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
