/* The catalog of a real archive: who may change it, and what a crash or another publisher makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "image/catalog_writer.h"
#include "publish_fixture.h"

static void only_the_key_that_signed_the_catalog_may_go_on(void **state)
{
    struct fixture *f = *state;
    struct publish_result result;
    struct error error = ERROR_INIT;
    struct public_key other_public;
    struct secret_key other;
    uint64_t serial;

    put_block(f, 0, 1);
    publish_well(f, "1", &result);
    assert_int_equal(key_pair_generate(&other_public, &other, NULL), 0);
    f->settings.key = &other;
    put_block(f, 0, 2);
    assert_int_equal(publish(f, "2", &result, &error), ERROR_UNTRUSTED);
    assert_int_equal(publish_renew(f->archive, &other, 0, &serial, &error), ERROR_UNTRUSTED);
    assert_int_equal(publish_unlist(f->archive, &other, 0, "disk", "1", &serial, &error), ERROR_UNTRUSTED);
    assert_int_equal(count_versions(f, NULL), 1);
    assert_int_equal(count_files(f, "blocks"), 1);

    f->settings.key = &f->key;
    assert_int_equal(unlinkat(f->archive_fd, "catalog.json.minisig", 0), 0);
    assert_int_equal(publish(f, "2", &result, &error), ERROR_UNTRUSTED);
}

/* Whatever a crash leaves of the three steps verifies, and the next publisher tidies up. */
static void a_crash_between_the_steps_leaves_a_good_catalog(void **state)
{
    struct fixture *f = *state;
    struct buffer old_text = {0}, old_signature = {0}, new_text = {0}, new_signature = {0}, both = {0}, now = {0};
    struct publish_result result;
    uint64_t serial;

    put_block(f, 0, 1);
    publish_well(f, "1", &result);
    assert_int_equal(file_read(f->archive_fd, "catalog.json", MIB, &old_text, NULL), 0);
    assert_int_equal(file_read(f->archive_fd, "catalog.json.minisig", MIB, &old_signature, NULL), 0);
    put_block(f, 0, 2);
    publish_well(f, "2", &result);
    assert_int_equal(file_read(f->archive_fd, "catalog.json", MIB, &new_text, NULL), 0);
    assert_int_equal(file_read(f->archive_fd, "catalog.json.minisig", MIB, &new_signature, NULL), 0);
    assert_true(buffer_append(&both, old_signature.bytes, old_signature.size));
    assert_true(buffer_append(&both, new_signature.bytes, new_signature.size));

    for (int step = 1; step <= 2; step++) {
        const struct buffer *text = step == 1 ? &old_text : &new_text;

        assert_int_equal(file_write_atomic(f->archive_fd, "catalog.json.minisig", both.bytes, both.size, 0, NULL), 0);
        assert_int_equal(file_write_atomic(f->archive_fd, "catalog.json", text->bytes, text->size, 0, NULL), 0);
        assert_int_equal(count_versions(f, &serial), step);
        assert_int_equal(serial, step);
        assert_int_equal(publish_renew(f->archive, &f->key, 0, &serial, NULL), 0);
        assert_int_equal(serial, step + 1);
        assert_int_equal(count_versions(f, NULL), step);
        assert_int_equal(file_read(f->archive_fd, "catalog.json.minisig", MIB, &now, NULL), 0);
        assert_true(now.size < old_signature.size + 10); /* one signature */
    }
    /* A publisher that always dies after the first step does not make the file grow. */
    for (int i = 0; i < 60; i++) {
        struct catalog_writer writer;

        assert_int_equal(catalog_writer_open(f->archive_fd, &f->key, &writer, NULL), 0);
        assert_true(buffer_append(&writer.signatures, new_signature.bytes, new_signature.size));
        assert_true(writer.signatures.size < 3 * new_signature.size);
        assert_int_equal(file_write_atomic(f->archive_fd, "catalog.json.minisig", writer.signatures.bytes,
                                           writer.signatures.size, 0, NULL), 0);
        catalog_writer_close(&writer);
        assert_int_equal(count_versions(f, NULL), 2);
    }
    struct buffer *all[] = {&old_text, &old_signature, &new_text, &new_signature, &both, &now};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        buffer_finish(all[i]);
}

static void a_catalog_is_renewed_and_versions_are_unlisted(void **state)
{
    struct fixture *f = *state;
    struct error error = ERROR_INIT;
    struct publish_result result;
    struct catalog catalog;
    uint64_t serial;

    assert_int_equal(publish_renew(f->archive, &f->key, 0, &serial, &error), ERROR_NOT_FOUND);
    put_block(f, 0, 1);
    publish_well(f, "1", &result);
    assert_int_equal(publish_renew(f->archive, &f->key, 3600, &serial, &error), 0);
    assert_int_equal(serial, 2);
    assert_int_equal(read_catalog(f, &catalog), 0);
    assert_int_equal(catalog.expires - catalog.published, 3600);
    catalog_finish(&catalog);
    assert_int_equal(publish_renew(f->archive, &f->key, UINT64_MAX, &serial, &error), ERROR_INVALID);
    assert_int_equal(publish_unlist(f->archive, &f->key, 0, "disk", "2", &serial, &error), ERROR_NOT_FOUND);
    assert_int_equal(publish_unlist(f->archive, &f->key, 0, "disk", "1", &serial, &error), 0);
    assert_int_equal(count_versions(f, &serial), 0);
    assert_int_equal(serial, 3);
    publish_well(f, "1", &result); /* its blocks are still there */
    assert_int_equal(result.new_blocks, 0);
    assert_false(result.was_listed);
}

struct publisher {
    struct fixture *f;
    int number;
    int input;
    int failures;
};

static void *publish_many(void *argument)
{
    struct publisher *publisher = argument;
    struct publish_settings settings = publisher->f->settings;
    struct publish_result result;
    char name[16], version[16];

    snprintf(name, sizeof(name), "disk%d", publisher->number);
    settings.name = name;
    for (int i = 0; i < 20; i++) {
        uint8_t bytes[BLOCK];

        memset(bytes, i + 1, BLOCK);
        if (pwrite(publisher->input, bytes, BLOCK, i % 4 * BLOCK) != BLOCK)
            publisher->failures++;
        snprintf(version, sizeof(version), "%d", i);
        settings.version = version;
        if (publish_image(&settings, publisher->input, "input", &result, NULL))
            publisher->failures++;
    }
    return NULL;
}

static void two_publishers_lose_nothing_of_each_other(void **state)
{
    struct fixture *f = *state;
    struct publisher publishers[2];
    pthread_t threads[2];
    struct collect_result collected;
    uint64_t serial;

    for (int i = 0; i < 2; i++) {
        char path[128];

        snprintf(path, sizeof(path), "%s/input%d", f->folder, i);
        publishers[i] = (struct publisher){.f = f, .number = i, .input = open(path, O_RDWR | O_CREAT, 0600)};
        assert_int_equal(pthread_create(&threads[i], NULL, publish_many, &publishers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        close(publishers[i].input);
        assert_int_equal(publishers[i].failures, 0);
    }
    f->archive_fd = file_open_folder(f->archive, false, NULL);
    assert_int_equal(count_versions(f, &serial), 40);
    assert_int_equal(serial, 40);
    assert_int_equal(publish_collect(f->archive, NULL, false, NULL, NULL, &collected, NULL), 0);
    assert_int_equal(collected.files, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_the_key_that_signed_the_catalog_may_go_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_crash_between_the_steps_leaves_a_good_catalog, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_catalog_is_renewed_and_versions_are_unlisted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_publishers_lose_nothing_of_each_other, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
