/* What of a run is kept: the beginning, not the copying of whole disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "image/profile_keep.h"

#define BLOCK 65536
#define SEQUENCE (PROFILE_KEEP_SEQUENCE / BLOCK)

static void touch(struct profile *profile, uint64_t first, uint64_t count, uint32_t time_ms)
{
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(profile_append(profile, first + i, time_ms, NULL), 0);
}

static struct profile trim(const struct profile *profile)
{
    struct profile trimmed;
    struct error error;

    assert_int_equal(profile_keep_trim(profile, &trimmed, &error), 0);
    assert_int_equal(trimmed.block_size, BLOCK);
    return trimmed;
}

static void a_boot_is_kept_whole(void **state)
{
    struct profile profile = {.block_size = BLOCK, .boot_count = 1}, trimmed;

    (void)state;
    touch(&profile, 5000, 20, 0);
    touch(&profile, 10, 100, 700);
    touch(&profile, 9000, 1, PROFILE_KEEP_MS);
    trimmed = trim(&profile);
    assert_int_equal(trimmed.block_count, 121);
    assert_int_equal(trimmed.run_count, 3);
    assert_int_equal(trimmed.runs[1].block, 10);
    assert_int_equal(trimmed.runs[1].time_ms, 700);
    profile_finish(&trimmed);
    profile_finish(&profile);
}

static void what_comes_late_is_not_kept(void **state)
{
    struct profile profile = {.block_size = BLOCK, .boot_count = 1}, trimmed;

    (void)state;
    touch(&profile, 1, 1, 0);
    touch(&profile, 100, 50, PROFILE_KEEP_MS + 1);
    trimmed = trim(&profile);
    assert_int_equal(trimmed.block_count, 1);
    profile_finish(&trimmed);
    profile_finish(&profile);
}

/* Also when threads of the kernel overtake each other a little, and slowly. */
static void a_copied_disk_keeps_only_its_beginning(void **state)
{
    struct profile profile = {.block_size = BLOCK, .boot_count = 1}, trimmed;

    (void)state;
    touch(&profile, 7000, 3, 0);
    for (uint64_t i = 0; i < 4 * SEQUENCE; i += 8) {
        touch(&profile, i + 4, 4, (uint32_t)(10 + 200 * i / 8));
        touch(&profile, i, 4, (uint32_t)(10 + 200 * i / 8));
    }
    trimmed = trim(&profile);
    assert_int_equal(trimmed.block_count, 3 + SEQUENCE);
    profile_finish(&trimmed);
    profile_finish(&profile);
}

static void no_more_than_the_most_is_kept(void **state)
{
    struct profile profile = {.block_size = BLOCK, .boot_count = 1}, trimmed;

    (void)state;
    for (uint64_t i = 0; i < 2 * PROFILE_KEEP_BYTES / BLOCK; i += 4)
        touch(&profile, i * 100, 4, 5);
    trimmed = trim(&profile);
    assert_int_equal(trimmed.block_count, PROFILE_KEEP_BYTES / BLOCK);
    profile_finish(&trimmed);
    profile_finish(&profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_boot_is_kept_whole),
        cmocka_unit_test(what_comes_late_is_not_kept),
        cmocka_unit_test(a_copied_disk_keeps_only_its_beginning),
        cmocka_unit_test(no_more_than_the_most_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
