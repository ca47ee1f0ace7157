/* Publishing into a real folder: what appears, what does not, and what is left when it goes wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/frame.h"
#include "format/map.h"
#include "publish_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(zeros_and_holes_are_not_stored_and_duplicates_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disk_of_zeros_is_published, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_again_changes_nothing_and_other_content_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_update_adds_only_what_is_new, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_update_is_compressed_harder_unless_a_level_is_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_words_are_refused_before_anything_is_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_block_files_are_found_and_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_input_that_changes_is_not_published, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_is_told_to_stop_stops, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
