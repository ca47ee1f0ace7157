/* Publishing into a real folder: what appears, what does not, and what is left when it goes wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/frame.h"
#include "format/map.h"
#include "image/catalog_writer.h"
#include "image/publish.h"

#define BLOCK 4096

struct fixture {
    char folder[64];  /* of everything */
    char archive[96];
    int archive_fd; /* -1 before open_archive */
    int input;
    struct secret_key key;
    struct public_key public;
    struct progress progress;
    struct publish_settings settings;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[128];

    /* In memory if possible: what is flushed to a disk here competes with everybody else's files. */
    strcpy(f->folder, access("/dev/shm", W_OK) ? "/tmp/test-publish-XXXXXX" : "/dev/shm/test-publish-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->archive, sizeof(f->archive), "%s/archive", f->folder);
    snprintf(path, sizeof(path), "%s/input", f->folder);
    f->input = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(f->input >= 0);
    f->archive_fd = -1;
    assert_int_equal(key_pair_generate(&f->public, &f->key, NULL), 0);
    f->settings = (struct publish_settings){
        .archive = f->archive, .name = "disk", .version = "1", .block_size = BLOCK, .job_count = 3, .key = &f->key,
    };
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->archive_fd >= 0)
        close(f->archive_fd);
    close(f->input);
    file_remove(AT_FDCWD, f->folder, NULL);
    free(f);
    return 0;
}

/* Block BLOCK_NUMBER of the input becomes one that only SEED tells apart; SEED 0: zeros. */
static void put_block(struct fixture *f, uint64_t block, uint64_t seed)
{
    uint8_t bytes[BLOCK] = {0};

    for (size_t i = 0; seed && i < BLOCK; i += 16)
        store_le64(bytes + i, seed * UINT64_C(0x9e3779b97f4a7c15) + i);
    assert_int_equal(pwrite(f->input, bytes, BLOCK, (off_t)(block * BLOCK)), BLOCK);
}

static int publish(struct fixture *f, const char *version, struct publish_result *result, struct error *error)
{
    f->settings.version = version;
    return publish_image(&f->settings, f->input, "the input", result, error);
}

static void publish_well(struct fixture *f, const char *version, struct publish_result *result)
{
    struct error error = ERROR_INIT;
    int code = publish(f, version, result, &error);

    if (code)
        fail_msg("%s", error.message);
    if (f->archive_fd < 0)
        f->archive_fd = file_open_folder(f->archive, false, NULL);
}

static unsigned counted;

static int count_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)path;
    (void)status;
    (void)where;
    counted += type == FTW_F;
    return 0;
}

static unsigned count_files(const struct fixture *f, const char *below)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", f->archive, below);
    counted = 0;
    nftw(path, count_one, 16, FTW_PHYS);
    return counted;
}

/* The catalog with its signature checked, as a client would. */
static int read_catalog(const struct fixture *f, struct catalog *catalog)
{
    struct trusted_keys trusted = {&f->public, 1};
    struct buffer text = {0}, signature = {0};
    struct error error = ERROR_INIT;
    int result = file_read(f->archive_fd, "catalog.json", CATALOG_SIZE_MAX, &text, &error);

    if (!result)
        result = file_read(f->archive_fd, "catalog.json.minisig", SIGNATURE_FILE_MAX, &signature, &error);
    if (!result)
        result = signature_verify((char *)signature.bytes, signature.size, text.bytes, text.size, &trusted, NULL,
                                  NULL, &error);
    if (!result)
        result = catalog_parse(text.bytes, text.size, catalog, &error);
    if (result)
        print_message("# %s\n", error.message);
    buffer_finish(&text);
    buffer_finish(&signature);
    return result;
}

static size_t count_versions(const struct fixture *f, uint64_t *serial_out)
{
    struct catalog catalog;
    size_t count;

    assert_int_equal(read_catalog(f, &catalog), 0);
    count = catalog.version_count;
    if (serial_out)
        *serial_out = catalog.serial;
    catalog_finish(&catalog);
    return count;
}

static void zeros_and_holes_are_not_stored_and_duplicates_once(void **state)
{
    struct fixture *f = *state;
    struct map_builder *builder;
    struct buffer file = {0};
    struct publish_result result;
    struct map map;
    struct digest id, digest;
    uint8_t tail[100];

    /* 0: data, 1: zeros, 2: hole, 3: as 0, 600: data, 601: an odd end */
    put_block(f, 0, 1);
    put_block(f, 1, 0);
    put_block(f, 3, 1);
    put_block(f, 600, 2);
    memset(tail, 7, sizeof(tail));
    assert_int_equal(pwrite(f->input, tail, sizeof(tail), 601 * BLOCK), sizeof(tail));
    publish_well(f, "1", &result);
    assert_int_equal(result.disk_size, 601 * BLOCK + 100);
    assert_int_equal(result.data_size, 3 * BLOCK + 100);
    assert_int_equal(result.new_blocks, 3);
    assert_int_equal(result.new_bytes, result.stored_size);
    assert_int_equal(count_files(f, "blocks"), 3);

    assert_int_equal(map_builder_create(BLOCK, result.disk_size, &builder, NULL), 0);
    for (uint64_t block = 0; block < 602; block++) {
        uint8_t bytes[BLOCK];
        ssize_t got = pread(f->input, bytes, BLOCK, (off_t)(block * BLOCK));

        if (bytes_are_zero(bytes, (size_t)got))
            continue;
        digest_of(bytes, (size_t)got, &digest);
        assert_int_equal(map_builder_set(builder, block, &digest, NULL), 0);
    }
    assert_int_equal(map_builder_finish(builder, &file, &map, NULL), 0);
    map_builder_destroy(builder);
    map_image_id(&map, &id);
    assert_memory_equal(&id, &result.image, sizeof(id));
    buffer_finish(&file);
}

static void a_disk_of_zeros_is_published(void **state)
{
    struct fixture *f = *state;
    struct publish_result result;

    assert_int_equal(ftruncate(f->input, (off_t)GIB), 0);
    publish_well(f, "1", &result);
    assert_int_equal(result.data_size, 0);
    assert_int_equal(result.new_blocks, 0);
    assert_int_equal(count_versions(f, NULL), 1);
}

static void the_same_again_changes_nothing_and_other_content_is_refused(void **state)
{
    struct fixture *f = *state;
    struct publish_result first, again;
    struct error error = ERROR_INIT;
    uint64_t serial;

    for (uint64_t i = 0; i < 20; i++)
        put_block(f, i, i + 1);
    publish_well(f, "1", &first);
    assert_false(first.was_listed);
    publish_well(f, "1", &again);
    assert_true(again.was_listed);
    assert_int_equal(again.new_blocks, 0);
    assert_int_equal(again.stored_size, first.stored_size);
    assert_memory_equal(&again.image, &first.image, sizeof(first.image));
    assert_int_equal(count_versions(f, &serial), 1);
    assert_int_equal(serial, 1);

    put_block(f, 5, 99);
    assert_int_equal(publish(f, "1", &again, &error), ERROR_EXISTS);
    assert_non_null(strstr(error.message, "disk@1 is published already with other content"));
    assert_int_equal(count_files(f, "blocks"), 20);
    assert_int_equal(count_versions(f, &serial), 1);
    assert_int_equal(serial, 1);
}

static void an_update_adds_only_what_is_new(void **state)
{
    struct fixture *f = *state;
    struct publish_result result;

    for (uint64_t i = 0; i < 40; i++)
        put_block(f, i, i + 1);
    publish_well(f, "1", &result);
    assert_int_equal(result.new_blocks, 40);
    put_block(f, 7, 100);
    put_block(f, 8, 101);
    put_block(f, 9, 0);
    publish_well(f, "2", &result);
    assert_int_equal(result.new_blocks, 2);
    assert_int_equal(result.serial, 2);
    assert_int_equal(count_files(f, "blocks"), 42);
}

/* Text that a higher level finds more in. */
static void put_words(struct fixture *f, uint64_t block, uint32_t seed)
{
    static const char *const words[] = {"block ", "digest ", "archive ", "mirror ", "catalog ", "version ", "map "};
    char bytes[BLOCK];

    for (size_t at = 0; at < sizeof(bytes); seed = seed * 1664525 + 1013904223) {
        const char *word = words[(seed >> 16) % 7];
        size_t length = min_u64(strlen(word), sizeof(bytes) - at);

        memcpy(bytes + at, word, length);
        at += length;
    }
    assert_int_equal(pwrite(f->input, bytes, BLOCK, (off_t)(block * BLOCK)), BLOCK);
}

static void an_update_is_compressed_harder_unless_a_level_is_asked_for(void **state)
{
    struct fixture *f = *state;
    struct publish_result plain, dense, explicit;

    put_words(f, 0, 1);
    publish_well(f, "1", &plain);
    put_words(f, 0, 2);
    publish_well(f, "2", &dense);
    f->settings.level = 3;
    put_words(f, 0, 3);
    publish_well(f, "3", &explicit);
    assert_true(dense.new_bytes < plain.new_bytes - plain.new_bytes / 20);
    assert_true(explicit.new_bytes > plain.new_bytes - plain.new_bytes / 20);
}

static void bad_words_are_refused_before_anything_is_made(void **state)
{
    struct fixture *f = *state;
    char long_name[301];
    const struct {
        const char *name, *version;
        uint32_t block_size;
        int level;
    } cases[] = {
        {"..", "1", 0, 0},  {"a/b", "1", 0, 0},   {"", "1", 0, 0},         {long_name, "1", 0, 0},
        {"-a", "1", 0, 0},  {"a", "../1", 0, 0},  {"a", "1\n", 0, 0},      {"a", long_name, 0, 0},
        {"a", "", 0, 0},    {"a", "1", 1000, 0},  {"a", "1", 2048, 0},     {"a", "1", 2097152, 0},
        {"a", "1", 0, 20},  {"a", "1", 0, -1},
    };
    struct publish_result result;

    memset(long_name, 'x', 300);
    long_name[300] = '\0';
    put_block(f, 0, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error = ERROR_INIT;

        f->settings.name = cases[i].name;
        f->settings.block_size = cases[i].block_size;
        f->settings.level = cases[i].level;
        assert_int_equal(publish(f, cases[i].version, &result, &error), ERROR_INVALID);
        assert_true(*error.message);
        assert_int_equal(access(f->archive, F_OK), -1);
    }
    f->settings = (struct publish_settings){.archive = f->archive, .name = "a", .key = &f->key};
    assert_int_equal(ftruncate(f->input, 0), 0);
    assert_int_equal(publish(f, "1", &result, NULL), ERROR_INVALID); /* an empty image */
    assert_int_equal(access(f->archive, F_OK), -1);
}

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
    assert_int_equal(publish_unlist(f->archive, &other, 0, "disk", "1", &error), ERROR_UNTRUSTED);
    assert_int_equal(count_versions(f, NULL), 1);
    assert_int_equal(count_files(f, "blocks"), 1);

    f->settings.key = &f->key;
    assert_int_equal(unlinkat(f->archive_fd, "catalog.json.minisig", 0), 0);
    assert_int_equal(publish(f, "2", &result, &error), ERROR_UNTRUSTED);
}

/* What a power cut can leave under a block's name. */
static void bad_block_files_are_found_and_replaced(void **state)
{
    struct fixture *f = *state;
    struct publish_result result;
    struct buffer file = {0};
    uint8_t block[BLOCK], frame[BLOCK * 2], other[BLOCK * 2];
    char path[ARCHIVE_PATH_MAX];
    struct digest digest;
    size_t size, other_size;

    f->settings.level = 3; /* the same frame for each version */
    put_block(f, 0, 1);
    publish_well(f, "1", &result);
    assert_int_equal(pread(f->input, block, BLOCK, 0), BLOCK);
    digest_of(block, BLOCK, &digest);
    archive_path_block(&digest, path);
    size = frame_compress(block, BLOCK, 3, frame, sizeof(frame));
    block[9] ^= 1;
    other_size = frame_compress(block, BLOCK, 3, other, sizeof(other));
    const struct {
        const void *bytes;
        size_t size;
    } cases[] = {{"", 0}, {frame, size - 1}, {other, other_size}, {"not a frame", 11}, {other, sizeof(other)}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char version[8];

        assert_int_equal(file_write_atomic(f->archive_fd, path, cases[i].bytes, cases[i].size, 0, NULL), 0);
        snprintf(version, sizeof(version), "again%zu", i);
        publish_well(f, version, &result);
        assert_int_equal(result.new_blocks, 1);
        assert_int_equal(file_read(f->archive_fd, path, MIB, &file, NULL), 0);
        assert_int_equal(file.size, size);
        assert_memory_equal(file.bytes, frame, size);
    }
    /* Publishing what is listed already heals too. */
    assert_int_equal(unlinkat(f->archive_fd, path, 0), 0);
    publish_well(f, "1", &result);
    assert_true(result.was_listed);
    assert_int_equal(result.new_blocks, 1);
    buffer_finish(&file);
}

struct meddling {
    struct fixture *f;
    int calls;
    bool go_on;
    void (*meddle)(struct fixture *f);
};

static bool meddle_once(void *user, uint64_t done, uint64_t total)
{
    struct meddling *meddling = user;

    (void)done;
    (void)total;
    if (meddling->calls++ == 0 && meddling->meddle)
        meddling->meddle(meddling->f);
    return meddling->go_on;
}

static void overwrite_the_end(struct fixture *f)
{
    put_block(f, 1999, 1);
}

static void append(struct fixture *f)
{
    put_block(f, 2000, 1);
}

static void cut(struct fixture *f)
{
    assert_int_equal(ftruncate(f->input, 1500 * BLOCK), 0);
}

static void an_input_that_changes_is_not_published(void **state)
{
    static void (*const meddlers[])(struct fixture *f) = {overwrite_the_end, append, cut};
    struct fixture *f = *state;
    struct publish_result result;

    put_block(f, 0, 5);
    publish_well(f, "0", &result);
    for (size_t i = 0; i < sizeof(meddlers) / sizeof(meddlers[0]); i++) {
        struct meddling meddling = {.f = f, .go_on = true, .meddle = meddlers[i]};
        struct progress progress = {meddle_once, &meddling};
        struct error error = ERROR_INIT;

        for (uint64_t block = 0; block < 2000; block++)
            put_block(f, block, block + 10);
        usleep(20000); /* a file's times have the grain of a clock tick */
        f->settings.progress = &progress;
        assert_int_equal(publish(f, "1", &result, &error), ERROR_CHANGED);
        assert_non_null(strstr(error.message, "the input"));
        assert_int_equal(count_versions(f, NULL), 1);
    }
}

static void who_is_told_to_stop_stops(void **state)
{
    struct fixture *f = *state;
    struct meddling meddling = {.f = f};
    struct progress progress = {meddle_once, &meddling};
    struct publish_result result;
    struct error error = ERROR_INIT;

    for (uint64_t block = 0; block < 2000; block++)
        put_block(f, block, block + 10);
    f->settings.progress = &progress;
    assert_int_equal(publish(f, "1", &result, &error), ERROR_CANCELLED);
    assert_int_equal(count_files(f, "images"), 0);
    f->settings.progress = NULL;
    publish_well(f, "1", &result);
    assert_int_equal(count_versions(f, NULL), 1);
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
    assert_int_equal(publish_unlist(f->archive, &f->key, 0, "disk", "2", &error), ERROR_NOT_FOUND);
    assert_int_equal(publish_unlist(f->archive, &f->key, 0, "disk", "1", &error), 0);
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
        cmocka_unit_test_setup_teardown(zeros_and_holes_are_not_stored_and_duplicates_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disk_of_zeros_is_published, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_again_changes_nothing_and_other_content_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_update_adds_only_what_is_new, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_update_is_compressed_harder_unless_a_level_is_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_words_are_refused_before_anything_is_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_the_key_that_signed_the_catalog_may_go_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_block_files_are_found_and_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_input_that_changes_is_not_published, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_is_told_to_stop_stops, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_crash_between_the_steps_leaves_a_good_catalog, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_catalog_is_renewed_and_versions_are_unlisted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_publishers_lose_nothing_of_each_other, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
