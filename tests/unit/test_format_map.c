/* The map: its header, the tree's arithmetic, and the builder against a naive second implementation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "format/map.h"

#include "seed.h"

static void fill_digest(uint64_t n, struct digest *digest)
{
    uint8_t bytes[8];

    store_le64(bytes, n);
    digest_of(bytes, sizeof(bytes), digest);
}

static void shapes_follow_from_sizes(void **state)
{
    static const struct {
        uint32_t block_size;
        uint64_t disk_size, blocks, pages;
        unsigned levels;
    } cases[] = {
        {4096, 1, 1, 1, 1},
        {4096, 4097, 2, 1, 1},
        {65536, 128 * 65536, 128, 1, 1},
        {65536, 128 * 65536 + 1, 129, 1 + 2, 2},
        {65536, 3 * GIB, 49152, 1 + 3 + 384, 3},
        {65536, 1024 * GIB, 16777216, 1 + 8 + 1024 + 131072, 4},
        {1048576, DISK_SIZE_MAX, UINT64_C(1) << 36, 1 + 2 + 256 + 32768 + 4194304 + 536870912, 6},
        {4096, DISK_SIZE_MAX, UINT64_C(1) << 44,
         UINT64_C(1) + 4 + 512 + 65536 + 8388608 + 1073741824 + 137438953472, 7},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct map map;
        struct error error = ERROR_INIT;

        assert_int_equal(map_init(&map, cases[i].block_size, cases[i].disk_size, &error), 0);
        assert_int_equal(map.block_count, cases[i].blocks);
        assert_int_equal(map.page_count, cases[i].pages);
        assert_int_equal(map.level_count, cases[i].levels);
    }
}

static void every_page_hangs_from_its_parent(void **state)
{
    struct map map;
    unsigned entry;

    (void)state;
    assert_int_equal(map_init(&map, 65536, 3 * GIB, NULL), 0);
    for (uint64_t block = 0; block < map.block_count; block += 97) {
        uint64_t page = map_page_of_block(&map, block, &entry);

        assert_int_equal(entry, block % 128);
        assert_int_equal(page, 4 + block / 128);
        page = map_parent(&map, page, &entry);
        assert_int_equal(entry, block / 128 % 128);
        assert_int_equal(page, 1 + block / 16384);
        page = map_parent(&map, page, &entry);
        assert_int_equal(entry, block / 16384);
        assert_int_equal(page, 0);
    }
}

static void the_last_block_is_as_long_as_the_disk_goes(void **state)
{
    struct map map;

    (void)state;
    assert_int_equal(map_init(&map, 4096, 8192, NULL), 0);
    assert_int_equal(map_block_length(&map, 1), 4096);
    assert_int_equal(map_init(&map, 4096, 8193, NULL), 0);
    assert_int_equal(map_block_length(&map, 1), 4096);
    assert_int_equal(map_block_length(&map, 2), 1);
    assert_int_equal(map_init(&map, 1048576, DISK_SIZE_MAX - 1, NULL), 0);
    assert_int_equal(map_block_length(&map, map.block_count - 1), 1048575);
}

static void an_image_id_is_known(void **state)
{
    /* Header bytes written by printf, 40 zero bytes after them, through sha256sum. */
    static const char known[] = "06c670e0b3ae2068c57d1a4b66cdb3865257d4609668051969d43d979ed4942d";
    struct map map, again;
    struct digest id;
    char text[DIGEST_TEXT];
    uint8_t header[MAP_HEADER_SIZE];

    (void)state;
    assert_int_equal(map_init(&map, 65536, GIB, NULL), 0);
    map_image_id(&map, &id);
    assert_string_equal(digest_format(&id, text), known);
    map_format_header(&map, header);
    assert_int_equal(map_parse_header(header, sizeof(header), &again, NULL), 0);
    assert_memory_equal(&map, &again, sizeof(map));
}

static void bad_headers_are_refused(void **state)
{
    static const struct {
        unsigned offset;
        uint8_t byte;
        const char *refusal;
    } cases[] = {
        {0, 'o', "does not begin with OSCMAP1"},
        {7, '\r', "does not begin with OSCMAP1"},
        {8, 2, "version 2"},
        {13, 1, "block size"},     /* 65536 + 256: no power of two */
        {14, 0, "block size 0"},
        {14, 32, "block size 2097152"},
        {19, 0, "disk size 0"},
        {23, 2, "disk size"},
        {24, 1, "reserved"},
        {31, 1, "reserved"},
    };
    struct map map;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t header[MAP_HEADER_SIZE];
        struct error error = ERROR_INIT;

        assert_int_equal(map_init(&map, 65536, GIB, NULL), 0);
        map_format_header(&map, header);
        header[cases[i].offset] = cases[i].byte;
        assert_int_equal(map_parse_header(header, sizeof(header), &map, &error), ERROR_CORRUPT);
        if (!strstr(error.message, cases[i].refusal))
            fail_msg("'%s' does not say '%s'", error.message, cases[i].refusal);
        assert_int_equal(map_parse_header(header, sizeof(header) - 1, &map, &error), ERROR_CORRUPT);
    }
    assert_int_equal(map_init(&map, 65535, 1, NULL), ERROR_INVALID);
    assert_int_equal(map_init(&map, 2048, 1, NULL), ERROR_INVALID);
    assert_int_equal(map_init(&map, 4096, DISK_SIZE_MAX + 1, NULL), ERROR_INVALID);
}

/* The digest of block BLOCK as a reader finds it: down from the root, every page checked. */
static void look_up(const struct buffer *file, const struct map *map, const struct map_presence *presence,
                    uint64_t block, struct digest *digest_out)
{
    uint64_t way[MAP_MAX_LEVELS];
    unsigned entries[MAP_MAX_LEVELS];
    unsigned depth = map->level_count;
    struct digest want = map->root;

    way[depth - 1] = map_page_of_block(map, block, &entries[depth - 1]);
    for (unsigned i = depth - 1; i > 0; i--)
        way[i - 1] = map_parent(map, way[i], &entries[i - 1]);
    assert_int_equal(way[0], 0);
    for (unsigned i = 0; i < depth && !digest_is_zero(&want); i++) {
        struct digest got;
        uint64_t offset;

        assert_true(map_presence_find(presence, way[i], &offset));
        assert_true(offset + MAP_PAGE_SIZE <= file->size);
        digest_of(file->bytes + offset, MAP_PAGE_SIZE, &got);
        assert_memory_equal(&got, &want, sizeof(got));
        want = *map_page_entry(file->bytes + offset, entries[i]);
    }
    *digest_out = want;
}

static void check_built(uint64_t block_count, unsigned set_count, unsigned seed)
{
    struct digest *expected = calloc(block_count, sizeof(*expected));
    struct map_builder *builder;
    struct map_presence *presence;
    struct map map, parsed;
    struct buffer file = {0};

    srandom(seed);
    assert_int_equal(map_builder_create(4096, block_count * 4096 - 7, &builder, NULL), 0);
    for (unsigned i = 0; i < set_count; i++) {
        uint64_t block = (uint64_t)random() % block_count;

        if (random() % 8)
            fill_digest((uint64_t)random(), &expected[block]);
        else
            expected[block] = (struct digest){0};
        assert_int_equal(map_builder_set(builder, block, &expected[block], NULL), 0);
    }
    assert_int_equal(map_builder_finish(builder, &file, &map, NULL), 0);
    assert_int_equal(map_parse_header(file.bytes, file.size, &parsed, NULL), 0);
    assert_memory_equal(&parsed, &map, sizeof(map));
    presence = map_presence_create(&map, file.bytes + MAP_HEADER_SIZE);
    assert_int_equal(map_presence_file_size(presence), file.size);
    for (uint64_t block = 0; block < block_count; block++) {
        struct digest found;

        look_up(&file, &map, presence, block, &found);
        assert_memory_equal(&found, &expected[block], sizeof(found));
    }
    map_presence_destroy(presence);
    map_builder_destroy(builder);
    buffer_finish(&file);
    free(expected);
}

static void what_is_built_is_read_back(void **state)
{
    unsigned seed = random_seed();

    (void)state;
    check_built(1, 1, seed);
    check_built(128, 60, seed + 1);
    check_built(129, 300, seed + 2);
    check_built(16385, 40, seed + 3);
    check_built(100000, 20000, seed + 4);
    check_built(100000, 0, seed + 5);
}

static void order_does_not_change_the_map(void **state)
{
    struct map_builder *up, *down;
    struct buffer up_file = {0}, down_file = {0};
    struct map up_map, down_map;

    (void)state;
    assert_int_equal(map_builder_create(65536, 3 * GIB, &up, NULL), 0);
    assert_int_equal(map_builder_create(65536, 3 * GIB, &down, NULL), 0);
    for (unsigned i = 0; i < 1000; i++) {
        struct digest digest;

        fill_digest(i, &digest);
        assert_int_equal(map_builder_set(up, i * 49, &digest, NULL), 0);
        fill_digest(999 - i, &digest);
        assert_int_equal(map_builder_set(down, (999 - i) * 49, &digest, NULL), 0);
    }
    assert_int_equal(map_builder_finish(up, &up_file, &up_map, NULL), 0);
    assert_int_equal(map_builder_finish(down, &down_file, &down_map, NULL), 0);
    assert_int_equal(up_file.size, down_file.size);
    assert_memory_equal(up_file.bytes, down_file.bytes, up_file.size);
    buffer_finish(&up_file);
    buffer_finish(&down_file);
    map_builder_destroy(up);
    map_builder_destroy(down);
}

static void a_huge_disk_of_zeros_has_no_pages(void **state)
{
    struct map_builder *builder;
    struct buffer file = {0};
    struct map map;
    struct digest zero = {0}, digest;

    (void)state;
    fill_digest(1, &digest);
    assert_int_equal(map_builder_create(65536, 1024 * GIB, &builder, NULL), 0);
    assert_int_equal(map_builder_set(builder, 5, &zero, NULL), 0);
    /* Set and unset again: as if it had never been. */
    assert_int_equal(map_builder_set(builder, 500000, &digest, NULL), 0);
    assert_int_equal(map_builder_set(builder, 500000, &zero, NULL), 0);
    assert_int_equal(map_builder_set(builder, 16777216, &zero, NULL), ERROR_INVALID);
    assert_int_equal(map_builder_finish(builder, &file, &map, NULL), 0);
    assert_true(digest_is_zero(&map.root));
    assert_int_equal(file.size, map_pages_offset(&map));
    assert_true(bytes_are_zero(file.bytes + MAP_HEADER_SIZE, file.size - MAP_HEADER_SIZE));
    map_builder_destroy(builder);
    buffer_finish(&file);
}

static void padding_bits_mean_no_page(void **state)
{
    struct map map;
    struct map_presence *presence;
    uint8_t bits[8];
    uint64_t offset;

    (void)state;
    assert_int_equal(map_init(&map, 65536, 128 * 65536 + 1, NULL), 0);
    memset(bits, 0xff, sizeof(bits));
    presence = map_presence_create(&map, bits);
    assert_int_equal(map_presence_file_size(presence), 64 + 8 + 3 * 4096);
    assert_true(map_presence_find(presence, 2, &offset));
    assert_int_equal(offset, 64 + 8 + 2 * 4096);
    assert_false(map_presence_find(presence, 3, &offset));
    assert_false(map_presence_find(presence, UINT64_MAX, &offset));
    map_presence_destroy(presence);
    map_presence_destroy(NULL);
    map_builder_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_follow_from_sizes),
        cmocka_unit_test(every_page_hangs_from_its_parent),
        cmocka_unit_test(the_last_block_is_as_long_as_the_disk_goes),
        cmocka_unit_test(an_image_id_is_known),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(what_is_built_is_read_back),
        cmocka_unit_test(order_does_not_change_the_map),
        cmocka_unit_test(a_huge_disk_of_zeros_has_no_pages),
        cmocka_unit_test(padding_bits_mean_no_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
