/* What lvm2 reports, and where that puts the volumes of a disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/bytes.h"
#include "format/lvm_report.h"

static int parse(const char *text, struct lvm_volume *list, size_t *count, struct error *error)
{
    return lvm_volumes_parse(text, strlen(text), MIB, list, count, error);
}

static void volumes_lie_where_their_extents_do(void **state)
{
    static const struct {
        const char *report;
        uint64_t size, offset;
        bool contiguous;
    } cases[] = {
        {"  vg0 root 54525952 linear 0 54525952 /dev/loop1:3-15 4194304\n", 52 * MIB, 13 * MIB, true},
        {"vg0 root 12582912 linear 0 8388608 /dev/loop1:0-1 4194304\n"
         "vg0 root 12582912 linear 8388608 4194304 /dev/loop1:2-2 4194304", 12 * MIB, MIB, true},
        {"vg0 root 12582912 linear 0 8388608 /dev/loop1:0-1 4194304\n"
         "vg0 root 12582912 linear 8388608 4194304 /dev/loop1:9-9 4194304\n", 12 * MIB, MIB, false},
        {"vg0 root 8388608 striped 0 8388608 /dev/loop1:0-1 4194304\n", 8 * MIB, MIB, false},
    };
    struct lvm_volume list[LVM_VOLUMES_MAX];
    size_t count;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(cases[i].report, list, &count, NULL), 0);
        assert_int_equal(count, 1);
        assert_string_equal(list[0].group, "vg0");
        assert_string_equal(list[0].name, "root");
        assert_int_equal(list[0].size, cases[i].size);
        assert_int_equal(list[0].contiguous, cases[i].contiguous);
        if (list[0].contiguous)
            assert_int_equal(list[0].offset, cases[i].offset);
    }
}

static void what_is_not_understood_is_an_error(void **state)
{
    static const char *const cases[] = {
        "vg0 root",
        "vg0 root many linear 0 1 /dev/loop1:0-0 1\n",
        "vg0 root 2 linear 1 1 /dev/loop1:0-0 1\n",                      /* a piece without its first */
        "vg0 a 1 linear 0 1 x:99999999999-99999999999 9999999999999\n",  /* beyond 64 bits */
        "vg0 \x01\x02 2\n",
    };
    struct lvm_volume list[LVM_VOLUMES_MAX];
    struct error error;
    uint64_t area;
    size_t count;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(cases[i], list, &count, &error), ERROR_CORRUPT);
        assert_non_null(strstr(error.message, "not understood"));
        assert_null(strchr(error.message, 1));
    }
    assert_int_equal(parse("", list, &count, &error), 0);
    assert_int_equal(count, 0);
    assert_int_equal(lvm_area_parse("  1048576\n", 10, &area, &error), 0);
    assert_int_equal(area, MIB);
    assert_int_equal(lvm_area_parse("", 0, &area, &error), ERROR_CORRUPT);
    assert_int_equal(lvm_area_parse("none\n", 5, &area, &error), ERROR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_lie_where_their_extents_do),
        cmocka_unit_test(what_is_not_understood_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
