/* Profiles: round trip, joining, merging, and what is rejected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/profile.h"

static struct profile make(const uint64_t *blocks, const uint32_t *times, size_t count)
{
    struct profile profile = {.block_size = 65536, .boot_count = 1};

    for (size_t i = 0; i < count; i++)
        assert_int_equal(profile_append(&profile, blocks[i], times[i], NULL), 0);
    return profile;
}

static void neighbours_join_and_survive_the_file(void **state)
{
    const uint64_t blocks[] = {7, 8, 9, 3, 100};
    const uint32_t times[] = {0, 10, 99, 200, 150};
    struct profile profile = make(blocks, times, 5), again;
    struct buffer file = {0};

    (void)state;
    assert_int_equal(profile.run_count, 3);
    assert_int_equal(profile.block_count, 5);
    assert_int_equal(profile_format(&profile, &file, NULL), 0);
    assert_int_equal(profile_parse(file.bytes, file.size, &again, NULL), 0);
    assert_int_equal(again.run_count, 3);
    assert_int_equal(again.runs[0].count, 3);
    assert_int_equal(again.runs[2].block, 100);
    assert_int_equal(again.runs[2].time_ms, 200); /* the clock does not fall */
    assert_int_equal(profile_append(&again, 500, 900, NULL), 0);
    profile_finish(&profile);
    profile_finish(&again);
    buffer_finish(&file);
}

static void merging_orders_by_mean_time_and_puts_the_rare_last(void **state)
{
    const uint64_t first[] = {1, 2, 50}, second[] = {2, 1}, third[] = {2, 1};
    const uint32_t early[] = {0, 1000, 1200}, late[] = {0, 1000};
    struct profile profiles[] = {make(first, early, 3), make(second, late, 2), make(third, late, 2)};
    struct profile merged;

    (void)state;
    assert_int_equal(profile_merge(profiles, 3, &merged, NULL), 0);
    assert_int_equal(merged.boot_count, 3);
    assert_int_equal(merged.block_count, 3);
    assert_int_equal(merged.runs[0].block, 2);
    assert_int_equal(merged.runs[1].block, 1);
    assert_int_equal(merged.runs[2].block, 50);
    profile_finish(&merged);
    for (int i = 0; i < 3; i++)
        profile_finish(&profiles[i]);
}

static void damaged_profiles_are_rejected(void **state)
{
    const uint64_t blocks[] = {7, 20};
    const uint32_t times[] = {5, 300};
    static const struct {
        size_t offset;
        uint8_t value;
        const char *why;
    } cases[] = {
        {0, 'X', "magic"},          {8, 2, "version"},       {12, 3, "more runs than bytes"},
        {12, 0, "no runs"},         {49, 1, "block size"},   {52, 0, "boots"},
        {60, 1, "reserved"},        {76, 0, "empty run"},    {76, 14, "overlap"},
        {72, 255, "a clock that falls"},
    };
    struct profile profile = make(blocks, times, 2), again;
    struct buffer file = {0};

    (void)state;
    assert_int_equal(profile_format(&profile, &file, NULL), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t saved = file.bytes[cases[i].offset], saved_high = file.bytes[73];

        file.bytes[cases[i].offset] = cases[i].value;
        if (cases[i].offset == 72)
            file.bytes[73] = 255;
        if (profile_parse(file.bytes, file.size, &again, NULL) != ERROR_CORRUPT)
            fail_msg("accepted: %s", cases[i].why);
        file.bytes[cases[i].offset] = saved;
        file.bytes[73] = saved_high;
    }
    assert_int_equal(profile_parse(file.bytes, file.size - 1, &again, NULL), ERROR_CORRUPT);
    assert_int_equal(profile_parse(file.bytes, 10, &again, NULL), ERROR_CORRUPT);
    profile_finish(&profile);
    buffer_finish(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_join_and_survive_the_file),
        cmocka_unit_test(merging_orders_by_mean_time_and_puts_the_rare_last),
        cmocka_unit_test(damaged_profiles_are_rejected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
