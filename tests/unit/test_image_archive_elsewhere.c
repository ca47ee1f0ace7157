/* Archives from other places than their own: the cache when the network is gone, and mirrors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "archive_fixture.h"

static void offline_takes_the_cached_catalog_and_says_so(void **state)
{
    struct fixture *f = *state;
    char published[TIME_TEXT], away[160];

    f->settings.offline = true;
    assert_refused(f, ERROR_UNAVAILABLE, "no cached catalog");
    f->settings.offline = false;
    assert_int_equal(client_open(f), 0);
    assert_disk_reads(f);

    f->settings.offline = true;
    assert_int_equal(client_open(f), 0);
    assert_true(archive_is_offline(f->archive));
    assert_true(was_logged("using the catalog of "));
    assert_true(was_logged(time_format(f->maker.catalog.published, published)));
    assert_false(was_logged("expired"));
    assert_disk_reads(f);

    /* The same when the network is there, but the archive is not. */
    client_close(f);
    f->settings.offline = false;
    logged[0] = '\0';
    snprintf(away, sizeof(away), "%s.away", f->maker.folder);
    assert_int_equal(rename(f->maker.folder, away), 0);
    assert_int_equal(client_open(f), 0);
    assert_true(archive_is_offline(f->archive));
    assert_true(was_logged("does not exist"));
    assert_disk_reads(f);
    client_close(f);

    /* Not mounted: its mount point is there. */
    assert_int_equal(mkdir(f->maker.folder, 0755), 0);
    assert_int_equal(client_open(f), 0);
    assert_true(archive_is_offline(f->archive));
    assert_disk_reads(f);
    client_close(f);
    assert_int_equal(rmdir(f->maker.folder), 0);
    remove_folder(f->cache);
    assert_refused(f, ERROR_NOT_FOUND, "no such folder");
    assert_int_equal(rename(away, f->maker.folder), 0);
}

static void offline_an_expired_catalog_is_taken_with_a_warning(void **state)
{
    struct fixture *f = *state;
    int result;

    /* So late that it can be opened before. */
    for (int seconds = 2; seconds < 100; seconds *= 2) {
        f->maker.catalog.expires = clock_wall() + seconds;
        archive_maker_publish(&f->maker);
        result = client_open(f);
        if (!result)
            break;
    }
    assert_int_equal(result, 0);
    client_close(f);
    while (clock_wall() < f->maker.catalog.expires)
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    f->settings.offline = true;
    assert_int_equal(client_open(f), 0);
    assert_true(was_logged("the cached catalog of "));
    assert_true(was_logged(" expired at "));
}

static void a_cached_catalog_is_verified_again(void **state)
{
    struct fixture *f = *state;
    char path[400], *text;
    size_t size;

    assert_int_equal(client_open(f), 0);
    client_close(f);
    cached_path(f, "catalog.json", path);
    text = archive_maker_read(&f->maker, "catalog.json", &size);
    memcpy(strstr(text, "debian12"), "debian13", 8);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, text, size, 0, NULL), 0);
    free(text);
    f->settings.offline = true;
    assert_refused(f, ERROR_UNTRUSTED, "the cached catalog");
    /* With a network the cache heals. */
    f->settings.offline = false;
    assert_int_equal(client_open(f), 0);
    f->settings.offline = true;
    assert_int_equal(client_open(f), 0);
}

/* A copy of the archive as it is now. */
static void copy_archive(struct fixture *f, char folder[128])
{
    char command[400];

    make_folder(folder);
    snprintf(command, sizeof(command), "cp -a '%s/.' '%s'", f->maker.folder, folder);
    assert_int_equal(system(command), 0);
}

static void a_bad_mirror_does_not_hide_a_good_one(void **state)
{
    struct fixture *f = *state;
    struct secret_key own, other;
    struct public_key other_public;
    char good[128], *text;
    size_t size;

    f->maker.catalog.serial = 9;
    archive_maker_publish(&f->maker);
    copy_archive(f, good);
    f->mirrors[0] = good;
    f->settings.mirror_count = 1;
    assert_int_equal(client_open(f), 0);

    /* The first one is old, */
    f->maker.catalog.serial = 3;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    /* or expired, */
    f->maker.catalog.serial = 20;
    f->maker.catalog.expires = f->maker.catalog.published;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    /* or signed by somebody else, */
    assert_int_equal(key_pair_generate(&other_public, &other, NULL), 0);
    own = f->maker.secret_key;
    f->maker.secret_key = other;
    f->maker.catalog.expires = clock_wall() + 10000;
    archive_maker_publish(&f->maker);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    f->maker.secret_key = own;
    /* or its catalog, */
    archive_maker_publish(&f->maker);
    text = archive_maker_read(&f->maker, "catalog.json", &size);
    memcpy(strstr(text, "debian12"), "debian13", 8);
    archive_maker_write(&f->maker, "catalog.json", text, size);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    archive_maker_write(&f->maker, "catalog.json", "<html>", 6);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    free(text);
    /* or its signature is damaged, */
    archive_maker_write(&f->maker, "catalog.json.minisig", "x", 1);
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    /* or it is empty. */
    archive_maker_remove(&f->maker, "catalog.json.minisig");
    archive_maker_remove(&f->maker, "catalog.json");
    assert_int_equal(client_open(f), 0);
    assert_int_equal(archive_catalog(f->archive)->serial, 10);
    client_close(f);
    remove_folder(good);
}

static void a_good_mirror_is_not_blamed_for_a_bad_one(void **state)
{
    struct fixture *f = *state;
    char good[128], blamed[160], *text;
    size_t size;

    copy_archive(f, good);
    f->mirrors[0] = good;
    f->settings.mirror_count = 1;
    snprintf(blamed, sizeof(blamed), "mirror %s gave wrong bytes", good);
    text = archive_maker_read(&f->maker, "catalog.json", &size);
    memcpy(strstr(text, "debian12"), "debian13", 8);
    archive_maker_write(&f->maker, "catalog.json", text, size);
    free(text);
    assert_int_equal(client_open(f), 0);
    assert_false(was_logged(blamed));
    snprintf(blamed, sizeof(blamed), "mirror %s gave wrong bytes", f->maker.folder);
    assert_true(was_logged(blamed));
    client_close(f);
    remove_folder(good);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(offline_takes_the_cached_catalog_and_says_so),
        TEST(offline_an_expired_catalog_is_taken_with_a_warning),
        TEST(a_cached_catalog_is_verified_again),
        TEST(a_bad_mirror_does_not_hide_a_good_one),
        TEST(a_good_mirror_is_not_blamed_for_a_bad_one),
    };

    log_set_sink(keep_log, NULL, LOG_LEVEL_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
