/* Packs: a table is read back as it was written, and none that overlaps or leaves the file is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "format/pack.h"

#include "seed.h"

#define COUNT 3

static void make_table(struct pack_table *table, struct pack_entry entries[COUNT])
{
    static const uint32_t frame_sizes[COUNT] = {100, 1, 70000}, block_lengths[COUNT] = {65536, 1, 1048576};

    memset(entries, 0, COUNT * sizeof(*entries));
    for (uint32_t i = 0; i < COUNT; i++) {
        digest_of(&i, sizeof(i), &entries[i].digest);
        entries[i].frame_size = frame_sizes[i];
        entries[i].block_length = block_lengths[i];
    }
    *table = (struct pack_table){.entries = entries, .count = COUNT};
}

static void a_table_is_read_as_it_was_written(void **state)
{
    struct pack_entry entries[COUNT];
    struct pack_table table, again;
    struct buffer bytes = {0};
    struct digest name, expected;
    uint64_t table_size;

    (void)state;
    make_table(&table, entries);
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), 0);
    assert_int_equal(bytes.size, 32 + COUNT * 48);
    assert_int_equal(table.file_size, bytes.size + 100 + 1 + 70000);
    digest_of(bytes.bytes, bytes.size, &expected);
    assert_true(digest_equal(&name, &expected));
    assert_int_equal(pack_parse_header(bytes.bytes, PACK_HEADER_SIZE, &table_size, NULL), 0);
    assert_int_equal(table_size, bytes.size);
    assert_int_equal(pack_parse_table(bytes.bytes, bytes.size, &again, NULL), 0);
    assert_int_equal(again.count, COUNT);
    assert_int_equal(again.file_size, table.file_size);
    assert_memory_equal(again.entries, entries, sizeof(entries));
    assert_int_equal(again.entries[1].offset, bytes.size + 100);
    pack_table_finish(&again);
    pack_table_finish(&again);
    buffer_finish(&bytes);
}

static void bad_tables_are_refused(void **state)
{
    static const struct {
        unsigned offset, width;
        uint64_t value;
        const char *refusal; /* NULL: taken */
    } cases[] = {
        {0, 4, 0, "does not begin"},
        {8, 4, 2, "version 2"},
        {12, 4, 0, "0 entries"},
        {12, 4, 2, "have 176 bytes where 128 belong"},
        {12, 4, 4, "have 176 bytes where 224 belong"},
        {12, 4, PACK_ENTRIES_MAX + 1, "16777217 entries"},
        {12, 4, 0xffffffff, "4294967295 entries"},
        {16, 8, 176, "no room"},
        {16, 8, 70276, "entry 2: reaches past"},
        {16, 8, 70278, NULL},
        {24, 8, 1, "reserved"},
        {64, 8, 175, "entry 0: lies over"},
        {64, 8, 177, "entry 1: lies over"},
        {112, 8, 275, "entry 1: lies over"},
        {160, 8, UINT64_MAX, "entry 2: reaches past"},
        {160, 8, UINT64_MAX - 69999, "entry 2: reaches past"},
        {160, 8, 0, "entry 2: lies over"},
        {72, 4, 0, "entry 0: the frame's length"},
        {72, 4, 65825, "entry 0: the frame's length"},
        {76, 4, 0, "entry 0: the block's length"},
        {76, 4, 1048577, "entry 0: the block's length"},
    };
    struct pack_entry entries[COUNT];
    struct pack_table table, again;
    struct buffer bytes = {0};
    struct digest name;

    (void)state;
    make_table(&table, entries);
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *copy = malloc(bytes.size);
        struct error error = ERROR_INIT;
        int result;

        memcpy(copy, bytes.bytes, bytes.size);
        if (cases[i].width == 4)
            store_le32(copy + cases[i].offset, (uint32_t)cases[i].value);
        else
            store_le64(copy + cases[i].offset, cases[i].value);
        result = pack_parse_table(copy, bytes.size, &again, &error);
        if (result != (cases[i].refusal ? ERROR_CORRUPT : 0) ||
            (cases[i].refusal && !strstr(error.message, cases[i].refusal)))
            fail_msg("row %zu: %d '%s'", i, result, error.message);
        pack_table_finish(&again);
        free(copy);
    }
    memset(bytes.bytes + 32, 0, DIGEST_SIZE);
    assert_int_equal(pack_parse_table(bytes.bytes, bytes.size, &again, NULL), ERROR_CORRUPT);
    for (size_t cut = 0; cut < bytes.size; cut++)
        assert_int_equal(pack_parse_table(bytes.bytes, cut, &again, NULL), ERROR_CORRUPT);
    buffer_finish(&bytes);
}

static void a_table_of_another_pack_is_refused(void **state)
{
    struct pack_entry entries[COUNT];
    struct pack_table table, again;
    struct buffer bytes = {0};
    struct digest name;
    struct error error = ERROR_INIT;

    (void)state;
    make_table(&table, entries);
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), 0);
    assert_int_equal(pack_parse_table_of(&name, bytes.bytes, bytes.size, &again, NULL), 0);
    pack_table_finish(&again);
    name.bytes[DIGEST_SIZE - 1] ^= 1;
    assert_int_equal(pack_parse_table_of(&name, bytes.bytes, bytes.size, &again, &error), ERROR_CORRUPT);
    assert_string_equal(error.message, "the table's digest is not the pack's name");
    assert_null(again.entries);
    buffer_finish(&bytes);
}

static void impossible_packs_are_not_written(void **state)
{
    struct pack_entry entries[COUNT];
    struct pack_table table;
    struct buffer bytes = {0};
    struct digest name;

    (void)state;
    make_table(&table, entries);
    table.count = 0;
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), ERROR_INVALID);
    make_table(&table, entries);
    entries[1].frame_size = 0;
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), ERROR_INVALID);
    make_table(&table, entries);
    entries[1].digest = (struct digest){0};
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), ERROR_INVALID);
    buffer_finish(&bytes);
}

/* Whatever is changed: a table that is taken has only frames inside the file that do not overlap. */
static void altered_tables_stay_in_the_file(void **state)
{
    unsigned seed = random_seed();
    struct pack_entry entries[COUNT];
    struct pack_table table, again;
    struct buffer bytes = {0};
    struct digest name;

    (void)state;
    srandom(seed);
    make_table(&table, entries);
    assert_int_equal(pack_format_table(&table, &bytes, &name, NULL), 0);
    for (int i = 0; i < 20000; i++) {
        uint8_t copy[32 + COUNT * 48];
        uint64_t end = sizeof(copy);

        memcpy(copy, bytes.bytes, sizeof(copy));
        for (int j = 0; j < 3; j++)
            copy[(size_t)random() % sizeof(copy)] ^= (uint8_t)(1U << random() % 8);
        if (pack_parse_table(copy, sizeof(copy), &again, NULL))
            continue;
        for (uint32_t k = 0; k < again.count; k++) {
            assert_true(again.entries[k].offset >= end);
            end = again.entries[k].offset + again.entries[k].frame_size;
            assert_true(end <= again.file_size);
        }
        pack_table_finish(&again);
    }
    buffer_finish(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_read_as_it_was_written),
        cmocka_unit_test(bad_tables_are_refused),
        cmocka_unit_test(a_table_of_another_pack_is_refused),
        cmocka_unit_test(impossible_packs_are_not_written),
        cmocka_unit_test(altered_tables_stay_in_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
