/*
 * The golden files, which tests/golden/format/generate.py wrote from the manual
 * pages: every good-* is taken, every bad-* refused, and what is in some is known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "format/catalog.h"
#include "format/conf.h"
#include "format/frame.h"
#include "format/hints.h"
#include "format/manifest.h"
#include "format/map.h"
#include "format/pack.h"
#include "format/signature.h"

#define MINISIGN_PUBLIC "RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhH"

static int golden; /* the folder */

/* Block N of the golden disks. */
static void make_block(unsigned n, uint8_t *bytes, size_t size)
{
    char line[64];
    size_t length = (size_t)snprintf(line, sizeof(line), "block %u of a golden disk\n", n);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)line[i % length];
}

static void digest_of_block(unsigned n, size_t size, struct digest *digest)
{
    uint8_t *bytes = malloc(size);

    make_block(n, bytes, size);
    digest_of(bytes, size, digest);
    free(bytes);
}

static int parse_frame(const struct buffer *file, struct error *error)
{
    uint8_t out[4096], expected[4096];
    int result = frame_decompress(file->bytes, file->size, out, sizeof(out), error);

    make_block(0, expected, sizeof(expected));
    if (!result)
        assert_memory_equal(out, expected, sizeof(out));
    return result;
}

static int parse_map(const struct buffer *file, struct error *error)
{
    struct map map;

    return map_parse_header(file->bytes, file->size, &map, error);
}

/* Header and table, and if the frames are there, they too. */
static int parse_pack(const struct buffer *file, struct error *error)
{
    static uint8_t out[BLOCK_SIZE_MAX];
    struct pack_table table;
    uint64_t table_size;
    int result = pack_parse_header(file->bytes, file->size, &table_size, error);

    if (!result)
        result = pack_parse_table(file->bytes, (size_t)min_u64(file->size, table_size), &table, error);
    if (result)
        return result;
    assert_int_equal(table.file_size, file->size);
    for (uint32_t i = 0; i < table.count; i++) {
        const struct pack_entry *entry = &table.entries[i];
        struct digest digest;

        assert_int_equal(frame_decompress(file->bytes + entry->offset, entry->frame_size, out, entry->block_length,
                                          error),
                         0);
        digest_of(out, entry->block_length, &digest);
        assert_true(digest_equal(&digest, &entry->digest));
    }
    pack_table_finish(&table);
    return 0;
}

static int parse_catalog(const struct buffer *file, struct error *error)
{
    struct catalog catalog;
    int result = catalog_parse(file->bytes, file->size, &catalog, error);

    catalog_finish(&catalog);
    return result;
}

static int parse_manifest(const struct buffer *file, struct error *error)
{
    struct manifest manifest;

    return manifest_parse(file->bytes, file->size, &manifest, error);
}

static int parse_hints(const struct buffer *file, struct error *error)
{
    struct hints hints;
    int result = hints_parse(file->bytes, file->size, &hints, error);

    hints_finish(&hints);
    return result;
}

static int parse_public_key(const struct buffer *file, struct error *error)
{
    struct public_key key, expected;
    int result = public_key_parse((char *)file->bytes, file->size, &key, error);

    assert_int_equal(public_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), &expected, NULL), 0);
    if (!result)
        assert_memory_equal(&key, &expected, sizeof(key));
    return result;
}

static int parse_secret_key(const struct buffer *file, struct error *error)
{
    struct secret_key key;
    struct public_key public, expected;
    int result = secret_key_parse((char *)file->bytes, file->size, "p", &key, error);

    assert_int_equal(public_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), &expected, NULL), 0);
    if (!result) {
        secret_key_public(&key, &public);
        assert_memory_equal(&public, &expected, sizeof(public));
    }
    return result;
}

static int parse_signature(const struct buffer *file, struct error *error)
{
    struct public_key key;
    struct trusted_keys trusted = {&key, 1};

    assert_int_equal(public_key_parse(MINISIGN_PUBLIC, strlen(MINISIGN_PUBLIC), &key, NULL), 0);
    return signature_verify((char *)file->bytes, file->size, "hi\n", 3, &trusted, NULL, NULL, error);
}

static int take_setting(void *user, unsigned line, const char *word, const char *value, struct error *error)
{
    (void)user, (void)line, (void)word, (void)value, (void)error;
    return 0;
}

static int parse_conf(const struct buffer *file, struct error *error)
{
    return conf_parse((char *)file->bytes, file->size, take_setting, NULL, error);
}

static int parse_location(const struct buffer *file, struct error *error)
{
    auto_free char *text = strndup((char *)file->bytes, file->size);
    struct location location;
    int result = location_parse(text, &location, error);

    location_finish(&location);
    return result;
}

static const struct format {
    const char *folder;
    int (*parse)(const struct buffer *file, struct error *error);
} formats[] = {
    {"catalog", parse_catalog},       {"conf", parse_conf},
    {"frame", parse_frame},           {"hints", parse_hints},
    {"location", parse_location},     {"manifest", parse_manifest},
    {"map", parse_map},               {"pack", parse_pack},
    {"public-key", parse_public_key}, {"secret-key", parse_secret_key},
    {"signature", parse_signature},
};

/* A copy of exactly the file's size, so that sanitizers see a byte too far. */
static void read_golden(const char *folder, const char *name, struct buffer *file)
{
    auto_free char *path = path_join(folder, name);
    struct buffer read = {0};
    struct error error = ERROR_INIT;

    if (file_read(golden, path, MIB, &read, &error))
        fail_msg("%s", error.message);
    file->bytes = malloc(read.size ? read.size : 1);
    file->size = file->capacity = read.size;
    if (read.size)
        memcpy(file->bytes, read.bytes, read.size);
    buffer_finish(&read);
}

static void check_file(const struct format *format, const char *name)
{
    bool good = !strncmp(name, "good-", 5);
    struct error error = ERROR_INIT;
    struct buffer file;
    int result;

    read_golden(format->folder, name, &file);
    result = format->parse(&file, &error);
    print_message("# %s/%s: %s\n", format->folder, name, result ? error.message : "good");
    if (good && result)
        fail_msg("%s/%s is refused: %s", format->folder, name, error.message);
    if (!good && (!result || result != error.code || !*error.message))
        fail_msg("%s/%s is taken, or refused without a word", format->folder, name);
    buffer_finish(&file);
}

static void good_files_are_taken_and_bad_ones_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        int fd = openat(golden, formats[i].folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *folder = fd < 0 ? NULL : fdopendir(fd);
        unsigned good = 0, bad = 0;
        struct dirent *entry;

        assert_non_null(folder);
        while ((entry = readdir(folder))) {
            if (entry->d_name[0] == '.')
                continue;
            check_file(&formats[i], entry->d_name);
            *(entry->d_name[0] == 'g' ? &good : &bad) += 1;
        }
        closedir(folder);
        assert_true(good >= 1 && bad >= 1);
    }
}

/* The digest that FILE gives BLOCK, every page checked on the way; zero where there is none. */
static struct digest look_up(const struct buffer *file, const struct map *map, uint64_t block)
{
    struct map_presence *presence = map_presence_create(map, file->bytes + MAP_HEADER_SIZE);
    uint64_t way[MAP_MAX_LEVELS], offset;
    unsigned entries[MAP_MAX_LEVELS], depth = map->level_count;
    struct digest want = map->root, got;

    assert_int_equal(map_presence_file_size(presence), file->size);
    way[depth - 1] = map_page_of_block(map, block, &entries[depth - 1]);
    for (unsigned i = depth - 1; i > 0; i--)
        way[i - 1] = map_parent(map, way[i], &entries[i - 1]);
    for (unsigned i = 0; i < depth && !digest_is_zero(&want); i++) {
        assert_true(map_presence_find(presence, way[i], &offset));
        digest_of(file->bytes + offset, MAP_PAGE_SIZE, &got);
        assert_memory_equal(&got, &want, sizeof(got));
        want = *map_page_entry(file->bytes + offset, entries[i]);
    }
    map_presence_destroy(presence);
    return want;
}

/* The golden maps, read and built anew: the same bytes, the known image id. */
static void check_map(const char *name, const char *image_id, uint32_t block_size, uint64_t disk_size,
                      const unsigned *blocks, size_t count)
{
    struct buffer file, built = {0};
    struct map map, built_map;
    struct map_builder *builder;
    struct digest id, digest, found;
    char text[DIGEST_TEXT];

    read_golden("map", name, &file);
    assert_int_equal(map_parse_header(file.bytes, file.size, &map, NULL), 0);
    map_image_id(&map, &id);
    assert_string_equal(digest_format(&id, text), image_id);
    assert_int_equal(map_builder_create(block_size, disk_size, &builder, NULL), 0);
    for (size_t i = 0; i < count; i++) {
        digest_of_block(blocks[i], map_block_length(&map, blocks[i]), &digest);
        found = look_up(&file, &map, blocks[i]);
        assert_memory_equal(&found, &digest, sizeof(found));
        assert_int_equal(map_builder_set(builder, blocks[i], &digest, NULL), 0);
    }
    found = look_up(&file, &map, map.block_count / 3 * 2);
    assert_true(digest_is_zero(&found));
    assert_int_equal(map_builder_finish(builder, &built, &built_map, NULL), 0);
    assert_int_equal(built.size, file.size);
    assert_memory_equal(built.bytes, file.bytes, file.size);
    map_builder_destroy(builder);
    buffer_finish(&built);
    buffer_finish(&file);
}

static void maps_are_those_of_the_second_implementation(void **state)
{
    static const unsigned far[] = {0, 5000000, (1 << 24) - 1};
    unsigned odd[300], count = 0;

    (void)state;
    for (unsigned n = 0; n < 300; n++)
        if (n % 7 < 3)
            odd[count++] = n;
    check_map("good-odd-size.map", "600489557a30a6a209bcac096be6cf32404ac531658df0eb1afb53ad507d5da0", 4096,
              300 * 4096 - 1000, odd, count);
    check_map("good-sparse-terabyte.map", "818f7b3c00a4d6c1f98e61fc6f4827aca5edb7f38dde565842fc65912b07732c", 65536,
              1024 * GIB, far, 3);
    check_map("good-zeros.map", "e226747b33bb819cfd67bf7871a515c1c23bba769e0554fb0deb61590778ccba", 1048576, GIB,
              NULL, 0);
}

static void the_pack_is_that_of_the_second_implementation(void **state)
{
    static const char name[] = "d8c5ad46e655c0b7b10f634c1294538f8b75316a600eb8645bb3f4f810b4245e";
    struct buffer file, built = {0};
    struct pack_table table;
    struct digest digest, expected;
    uint64_t table_size;
    char text[DIGEST_TEXT];

    (void)state;
    read_golden("pack", "good-three-frames.pack", &file);
    assert_int_equal(pack_parse_header(file.bytes, file.size, &table_size, NULL), 0);
    assert_int_equal(pack_parse_table(file.bytes, (size_t)table_size, &table, NULL), 0);
    assert_int_equal(table.count, 3);
    digest_of_block(299, 3096, &expected);
    assert_memory_equal(&table.entries[2].digest, &expected, sizeof(expected));
    assert_int_equal(pack_format_table(&table, &built, &digest, NULL), 0);
    assert_string_equal(digest_format(&digest, text), name);
    assert_memory_equal(built.bytes, file.bytes, (size_t)table_size);
    pack_table_finish(&table);
    buffer_finish(&built);
    buffer_finish(&file);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_are_taken_and_bad_ones_refused),
        cmocka_unit_test(maps_are_those_of_the_second_implementation),
        cmocka_unit_test(the_pack_is_that_of_the_second_implementation),
    };

    golden = count > 1 ? open(arguments[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (golden < 0) {
        fprintf(stderr, "usage: %s tests/golden/format\n", arguments[0]);
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
