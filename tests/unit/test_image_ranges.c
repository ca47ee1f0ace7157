/* Blocks in ranges of packs, over HTTP: fewer requests, right bytes, and no harm from what is wrong with packs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "image/ranges.h"
#include "prefetch_fixture.h"

#define RANGES "^/packs/.* bytes=[1-9]" /* not the table, which a pack begins with */

/* Read everything, COUNT blocks at a time, in no order that would be recognised. */
static void read_all(struct reader *reader, uint64_t count)
{
    for (uint64_t i = 0; i < BLOCKS / count; i++)
        read_many_and_compare(reader, i * 227 % (BLOCKS / count) * count, count);
}

/*
 * A reader who has the table of the packs, and asks for ranges, which are answered so (NULL: well). What comes before is
 * asked for block by block: it is held up until then, so that it is little.
 */
static void open_with_table(struct reader *reader, const char *behaviour)
{
    reader_open(reader, PREFETCH_NONE);
    packs_end(packs_begin(reader->store, "bare", "1", &image_id, disk_size(reader->disk)));
    reader_close(reader);
    assert_int_equal(liar_count_folder(&server, "packs"), 1);
    liar_tell(&server, "^/blocks/", "delay:20000", 0);
    reader_open_as(reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    while (disk_gathers(reader->disk) == 1)
        clock_sleep_ms(1);
    liar_reset(&server);
    if (behaviour)
        liar_tell(&server, RANGES, behaviour, 0);
}

/* A reader's that he asks for together, and those that are fetched for nobody. */
static void neighbours_come_in_one_request(void **state)
{
    uint64_t count = count_blocks(1);
    struct reader reader;

    (void)state;
    open_with_table(&reader, NULL);
    read_all(&reader, RANGE_BLOCKS_MAX);
    wait_for_blocks(&reader, count);
    assert_true(liar_count_folder(&server, "packs") + liar_count_folder(&server, "blocks") < (long)count * 3 / 4);
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
        open_with_table(&reader, behaviours[i]);
        read_all(&reader, 1);
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
    open_with_table(&reader, "slow:20");
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
    open_with_table(&reader, "hang");
    while (liar_count_folder(&server, "packs") < 3)
        clock_sleep_ms(1);
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
