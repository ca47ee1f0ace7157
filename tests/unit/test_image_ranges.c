/* Blocks in ranges of packs, over HTTP: fewer requests, right bytes, and no harm from what is wrong with packs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "prefetch_fixture.h"

#define RANGES "^/packs/.* bytes=[1-9]" /* not the table, which a pack begins with */

/* Read everything, in no order that would be recognised. */
static void read_all(struct reader *reader)
{
    for (uint64_t i = 0; i < BLOCKS; i++)
        read_and_compare(reader, i * 227 % BLOCKS);
}

/* A reader who has the table of the packs: what comes before is asked for block by block. */
static void open_with_table(struct reader *reader)
{
    reader_open(reader, PREFETCH_NONE);
    packs_end(packs_begin(reader->store, "bare", "1", &image_id, disk_size(reader->disk)));
    reader_close(reader);
    assert_int_equal(liar_count_folder(&server, "packs"), 1);
    reader_open_as(reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    /* Who has come to filling has been given the ranges before, or is given them at once. */
    while (!liar_count_folder(&server, "blocks") && liar_count_folder(&server, "packs") < 2)
        read_and_compare(reader, BLOCKS - 1);
}

static void neighbours_come_in_one_request(void **state)
{
    uint64_t count = count_blocks(1);
    struct reader reader;

    (void)state;
    open_with_table(&reader);
    read_all(&reader);
    wait_for_blocks(&reader, count);
    assert_true(liar_count_folder(&server, "packs") + liar_count_folder(&server, "blocks") < (long)count * 2 / 3);
    assert_true(liar_count_folder(&server, "packs") > 10);
    reader_close(&reader);
}

/* With each of these all is read right, out of the blocks' own files. */
static void ranges_that_are_wrong_cost_time(void **state)
{
    static const char *const behaviours[] = {"flip", "short", "truncate", "status:404", "status:500", "no-range",
                                             "wrong-range", "oversize", "close", "garbage"};
    struct reader reader;

    (void)state;
    for (size_t i = 0; i < sizeof(behaviours) / sizeof(behaviours[0]); i++) {
        liar_reset(&server);
        liar_tell(&server, RANGES, behaviours[i], 0);
        open_with_table(&reader);
        read_all(&reader);
        wait_for_blocks(&reader, count_blocks(1));
        if (liar_count_folder(&server, "blocks") < 10)
            fail_msg("%s: %ld requests for blocks", behaviours[i], liar_count_folder(&server, "blocks"));
        reader_close(&reader);
        remove_folder(cache_folder);
        make_folder(cache_folder);
    }
}

/* As behind a proxy that fetches a whole pack before it answers. */
static void readers_do_not_wait_for_slow_ranges(void **state)
{
    struct reader reader;
    uint64_t start;

    (void)state;
    liar_tell(&server, RANGES, "slow:20", 0);
    open_with_table(&reader);
    start = clock_ms();
    for (uint64_t b = 0; b < BLOCKS; b += 100)
        read_and_compare(&reader, b);
    assert_true(clock_ms() - start < 30000);
    reader_close(&reader);
}

static void who_leaves_does_not_wait_for_ranges(void **state)
{
    struct reader reader;
    uint64_t start;

    (void)state;
    liar_tell(&server, RANGES, "hang", 0);
    open_with_table(&reader);
    start = clock_ms();
    reader_close(&reader);
    assert_true(clock_ms() - start < 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(neighbours_come_in_one_request),
        test(ranges_that_are_wrong_cost_time),
        test(readers_do_not_wait_for_slow_ranges),
        test(who_leaves_does_not_wait_for_ranges),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
