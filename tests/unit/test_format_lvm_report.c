/* What lvm2 reports, and where that puts the volumes of a disk; where a byte of a volume in several pieces lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/lvm_report.h"

/* Two partitions of 64 MiB, at 2 MiB and at 80 MiB; extents begin 1 MiB behind. */
static const struct lvm_physical disk[] = {
    {"/dev/loop0", 2 * MIB, 64 * MIB, MIB},
    {"/dev/loop1", 80 * MIB, 64 * MIB, MIB},
};

static int parse(const char *text, struct lvm_volumes *volumes, struct error *error)
{
    return lvm_volumes_parse(text, strlen(text), disk, 2, volumes, error);
}

/* As lvm2 2.03.16 prints it. */
static void volumes_lie_where_their_extents_do(void **state)
{
    static const char text[] =
        "  group|between|owi-XXs---|8388608|linear|1|0|0|8388608|/dev/loop0:2-3|4194304\n"
        "  group|first|-wi-XX----|12582912|linear|1|0|0|8388608|/dev/loop0:0-1|4194304\n"
        "  group|first|-wi-XX----|12582912|linear|1|0|8388608|4194304|/dev/loop1:4-4|4194304\n"
        "  group|long|-wi-XX----|12582912|linear|1|0|0|8388608|/dev/loop0:10-11|4194304\n"
        "  group|long|-wi-XX----|12582912|linear|1|0|8388608|4194304|/dev/loop0:12-12|4194304\n"
        "  group|pool|twi-XXtz--|4194304|thin-pool|1|0|0|4194304|pool_tdata:0-0|4194304\n"
        "  group|snap|swi-XXs---|4194304|linear|1|0|0|4194304|/dev/loop0:9-9|4194304\n"
        "  group|str|-wi-XX----|16777216|striped|2|65536|0|16777216|/dev/loop0:5-6 /dev/loop1:0-1|4194304\n"
        "  group|thin|Vwi-XXtz--|104857600|thin|0|0|0|104857600||4194304\n"
        "  other|far|-wi-XX--p-|8388608|linear|1|0|0|8388608|[unknown]:0-1|4194304\n"
        "  other|long|-wi-XX----|4194304|linear|1|0|0|4194304|/dev/loop0:16-16|4194304\n"
        "  other|mir|rwi-XX----|4194304|raid1|2|0|0|4194304|mir_rimage_0:0-0 mir_rimage_1:0-0|4194304";
    static const struct {
        const char *group, *name, *obstacle;
        uint64_t size;
        size_t runs;
        struct {
            uint64_t at, offset, length;
        } bytes[3];
    } cases[] = {
        {"group", "between", "", 8 * MIB, 1, {{0, 11 * MIB, 8 * MIB}, {5, 11 * MIB + 5, 8 * MIB - 5}}},
        {"group", "first", "", 12 * MIB, 2, {{8 * MIB - 1, 11 * MIB - 1, 1}, {8 * MIB, 97 * MIB, 4 * MIB}}},
        {"group", "long", "", 12 * MIB, 1, {{0, 43 * MIB, 12 * MIB}, {12 * MIB - 1, 55 * MIB - 1, 1}}},
        {"group", "pool", "is of type thin-pool", 4 * MIB, 0, {{0}}},
        {"group", "snap", "is a snapshot", 4 * MIB, 0, {{0}}},
        {"group", "str", "", 16 * MIB, 1,
         {{0, 23 * MIB, 64 * KIB},
          {64 * KIB + 1, 81 * MIB + 1, 64 * KIB - 1},
          {128 * KIB, 23 * MIB + 64 * KIB, 64 * KIB}}},
        {"group", "thin", "is of type thin", 100 * MIB, 0, {{0}}},
        {"other", "far", "lies partly on a physical volume, which this disk does not hold", 8 * MIB, 0, {{0}}},
        {"other", "long", "lies partly behind the end of its physical volume", 4 * MIB, 0, {{0}}},
        {"other", "mir", "is of type raid1", 4 * MIB, 0, {{0}}},
    };
    cleanup(lvm_volumes_finish) struct lvm_volumes volumes = {0};

    (void)state;
    assert_int_equal(parse(text, &volumes, NULL), 0);
    assert_int_equal(volumes.count, sizeof(cases) / sizeof(cases[0]));
    for (size_t i = 0; i < volumes.count; i++) {
        const struct lvm_volume *volume = &volumes.list[i];

        assert_string_equal(volume->group, cases[i].group);
        assert_string_equal(volume->name, cases[i].name);
        assert_string_equal(volume->obstacle, cases[i].obstacle);
        assert_int_equal(volume->size, cases[i].size);
        assert_int_equal(volume->extents.run_count, cases[i].runs);
        for (size_t j = 0; j < 3 && cases[i].bytes[j].length; j++) {
            uint64_t length;

            assert_int_equal(extents_find(&volume->extents, cases[i].bytes[j].at, &length), cases[i].bytes[j].offset);
            assert_int_equal(length, cases[i].bytes[j].length);
        }
    }
}

static void what_is_not_understood_is_an_error(void **state)
{
    static const char *const cases[] = {
        "vg0|root",
        "vg0|root|-wi-a-----|many|linear|1|0|0|512|/dev/loop0:0-0|512",
        "vg0|root|-wi-a-----|1024|linear|1|0|512|512|/dev/loop0:0-0|512",       /* a segment without its first */
        "vg0|root|-wi-a-----|1024|linear|1|0|0|512|/dev/loop0:0-0|512\n"
        "vg0|root|-wi-a-----|1024|linear|1|0|0|512|/dev/loop0:1-1|512",         /* twice the same */
        "vg0|root|-wi-a-----|1024|linear|1|0|0|512|/dev/loop0:0-0|512\n"
        "vg0|root|-wi-a-----|1024|linear|1|0|512|1024|/dev/loop0:1-2|512",      /* more than there is */
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:0-1|512",          /* another size than its extents' */
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:1-0|512",
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:0-18446744073709551615|512",
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:0-99999999999999999999|512",
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0|512",
        "vg0|root|-wi-a-----|512|linear|1|0|0|512||512",
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:0-0 /dev/loop0:1-1|512",
        "vg0|root|-wi-a-----|3|linear|1|0|0|3|/dev/loop0:0-0|3",                /* no sectors */
        "vg0|root|-wi-a-----|0|linear|1|0|0|0|/dev/loop0:0-0|512",
        "vg0|root|-wi-a-----|1024|striped|2|512|0|1024|/dev/loop0:0-0|512",
        "vg0|root|-wi-a-----|1024|striped|2|0|0|1024|/dev/loop0:0-0 /dev/loop1:0-0|512",
        "vg0|root|-wi-a-----|1024|striped|2|1024|0|1024|/dev/loop0:0-0 /dev/loop1:0-0|512",
        "vg0|root|-wi-a-----|1024|striped|9999999999|512|0|1024|/dev/loop0:0-0|512",
        "vg0|root|-wi-a-----|1024|striped|0|512|0|1024||512",
        "|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:0-0|512",
        "vg0|root|-|512|linear|1|0|0|512|/dev/loop0:0-0|512",
        "vg0|\x01\x02|2",
    };
    struct error error;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cleanup(lvm_volumes_finish) struct lvm_volumes volumes = {0};

        if (parse(cases[i], &volumes, &error) != ERROR_CORRUPT || !strstr(error.message, "not understood"))
            fail_msg("taken: %s", cases[i]);
        assert_null(strchr(error.message, 1));
    }
}

static void a_report_that_was_cut_short_is_an_error(void **state)
{
    cleanup(lvm_volumes_finish) struct lvm_volumes volumes = {0};
    auto_free char *endless = malloc(100001);
    struct error error;

    (void)state;
    assert_int_equal(parse("vg0|root|-wi-a-----|1024|linear|1|0|0|512|/dev/loop0:0-0|512\n", &volumes, &error),
                     ERROR_CORRUPT);
    assert_string_equal(error.message, "lvm tells where 512 of the 1024 bytes of vg0/root lie");
    memset(endless, 'x', 100000);
    endless[100000] = '\0';
    assert_int_equal(parse(endless, &volumes, &error), ERROR_CORRUPT);
    lvm_volumes_finish(&volumes);
    assert_int_equal(parse("\n  \n", &volumes, &error), 0);
    assert_int_equal(volumes.count, 0);
}

/* Places at the ends of 64 bits: a disk is not that large, but a report may say so. */
static void what_lies_outside_is_not_read(void **state)
{
    static const char *const cases[] = {
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:131072-131072|512",
        "vg0|root|-wi-a-----|512|linear|1|0|0|512|/dev/loop0:36028797018963967-36028797018963967|512",
        "vg0|root|-wi-a-----|9223372036854775808|linear|1|0|0|9223372036854775808|/dev/loop1:1-1|9223372036854775808",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cleanup(lvm_volumes_finish) struct lvm_volumes volumes = {0};

        assert_int_equal(parse(cases[i], &volumes, NULL), 0);
        assert_string_equal(volumes.list[0].obstacle, "lies partly behind the end of its physical volume");
    }
}

static void areas_are_told_by_device(void **state)
{
    static const char text[] = "  /dev/loop1|2097152\n  [unknown]|1048576\n";
    struct lvm_physical list[] = {{.device = "/dev/loop0"}, {.device = "/dev/loop1"}};

    (void)state;
    assert_int_equal(lvm_areas_parse(text, strlen(text), list, 2, NULL), 0);
    assert_int_equal(list[0].area, UINT64_MAX); /* nothing can lie there */
    assert_int_equal(list[1].area, 2 * MIB);
    assert_int_equal(lvm_areas_parse("none\n", 5, list, 2, NULL), ERROR_CORRUPT);
    assert_int_equal(lvm_areas_parse("/dev/loop1|x", 12, list, 2, NULL), ERROR_CORRUPT);
    assert_int_equal(lvm_areas_parse("/dev/loop1|1|2", 14, list, 2, NULL), ERROR_CORRUPT);
}

static void a_byte_is_found_in_any_run(void **state)
{
    cleanup(extents_finish) struct extents extents = {0};
    uint64_t places[3], length, offset;

    (void)state;
    for (uint64_t i = 0; i < 1000; i++)
        assert_true(extents_append(&extents, 4096, 4096, &(uint64_t){(1000 - i) * MIB}, 1));
    assert_int_equal(extents.run_count, 1000);
    assert_false(extents_are_one(&extents, &offset));
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(extents_find(&extents, i * 4096 + 7, &length), (1000 - i) * MIB + 7);
        assert_int_equal(length, 4096 - 7);
    }
    places[0] = places[1] = places[2] = UINT64_MAX - 4095;
    assert_true(extents_append(&extents, 3 * 4095, 4095, places, 3));
    assert_false(extents_append(&extents, 3 * 4096, 4096, places, 3));     /* ends behind 2^64 */
    assert_false(extents_append(&extents, 4096, 8192, places, 1));         /* half a turn */
    assert_false(extents_append(&extents, 0, 4096, places, 1));
    assert_false(extents_append(&extents, 4096, UINT64_MAX, places, 3));
    assert_int_equal(extents.size, 1000 * 4096 + 3 * 4095);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_lie_where_their_extents_do),
        cmocka_unit_test(what_is_not_understood_is_an_error),
        cmocka_unit_test(a_report_that_was_cut_short_is_an_error),
        cmocka_unit_test(what_lies_outside_is_not_read),
        cmocka_unit_test(areas_are_told_by_device),
        cmocka_unit_test(a_byte_is_found_in_any_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
