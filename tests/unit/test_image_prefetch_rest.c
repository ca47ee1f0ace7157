/* Packs of the rest, over HTTP: streamed when no reader is in the way of it, and in nobody's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "image/sweep.h"
#include "prefetch_fixture.h"

/* The first time that the table is asked for it is not there: without it blocks come one by one, not in ranges. */
static void hide_table(void)
{
    liar_tell(&server, "^/packs/.* bytes=0-", "status:404", 1);
}

/* Nobody has made a boot pack or a profile. Blocks one by one until it is clear that no reader needs them. */
static void packs_of_the_rest_are_streamed_when_nobody_waits(void **state)
{
    uint64_t count = count_blocks(1);
    struct reader reader;

    (void)state;
    hide_table();
    liar_tell(&server, "^/blocks/", "delay:3500", 0);
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    wait_for_blocks(&reader, count);
    assert_true(liar_count_folder(&server, "packs") > 0);
    assert_in_range(liar_count_folder(&server, "blocks"), 1, count / 2);
    reader_close(&reader);
}

static void packs_of_the_rest_wait_for_readers(void **state)
{
    uint64_t longest_ms = 0;
    struct reader reader;

    (void)state;
    hide_table();
    liar_tell(&server, "^/blocks/", "delay:1000", 0);
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    for (uint64_t b = BLOCKS - 1; b > BLOCKS - 500; b -= 97) { /* five seconds */
        uint64_t start_ms = clock_ms();

        read_and_compare(&reader, b);
        longest_ms = max_u64(longest_ms, clock_ms() - start_ms);
    }
    /* Who waits for three seconds and asks for nothing more is taken for nobody. */
    if (longest_ms < 2500)
        assert_int_equal(liar_count_folder(&server, "packs"), 1);
    else
        print_message("# not tested: a read took %llu ms\n", (unsigned long long)longest_ms);
    reader_close(&reader);
}

/* A reader for whom the packs of the rest trickle. */
static void open_trickling(struct reader *reader)
{
    uint64_t until = clock_ms() + 20000;

    liar_tell(&server, "^/blocks/", "delay:3500", 60);
    liar_tell(&server, "^/packs/", "slow:20", 0);
    liar_tell(&server, "^/packs/.* bytes=0-", "chunked", 1); /* the table comes at once, the second time */
    hide_table();
    reader_open_as(reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    while (liar_count_folder(&server, "packs") < 3 && clock_ms() < until)
        clock_sleep_ms(10);
    assert_true(liar_count_folder(&server, "packs") >= 3);
}

/* Who needs blocks of such a stream has them fetched apart; many of them are its end, and all comes block by block. */
static void readers_do_not_wait_for_packs_of_the_rest(void **state)
{
    struct reader reader;
    uint64_t start;

    (void)state;
    open_trickling(&reader);
    liar_tell(&server, "^/blocks/", "chunked", 0); /* at once, those that are fetched apart */
    start = clock_ms();
    for (uint64_t b = BLOCKS - 1; b > BLOCKS - 100; b--)
        read_and_compare(&reader, b);
    assert_true(clock_ms() - start < 30000);
    liar_reset(&server); /* the packs may be tried again when nobody has read for a while */
    wait_for_blocks(&reader, count_blocks(1));
    reader_close(&reader);
}

static void who_leaves_does_not_wait_for_packs_of_the_rest(void **state)
{
    struct reader reader;
    uint64_t start;

    (void)state;
    open_trickling(&reader);
    start = clock_ms();
    ahead_leave(reader.ahead, reader.disk);
    assert_true(clock_ms() - start < 30000);
    reader_close(&reader);
}

/* What earlier runs have read comes first, block by block or, once the table is there, in ranges; then the packs. */
static void packs_of_the_rest_are_streamed_behind_a_profile(void **state)
{
    struct profile kept = {.block_size = BLOCK_SIZE, .boot_count = 1, .image = image_id};
    struct reader reader;
    uint64_t count = 0;

    (void)state;
    for (uint64_t b = 0; count < 5; b++) {
        assert_int_equal(profile_append(&kept, b, 0, NULL), 0);
        count += !bytes_are_zero(image + b * BLOCK_SIZE, BLOCK_SIZE);
    }
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL, .kept = &kept});
    wait_for_blocks(&reader, count_blocks(1));
    assert_in_range(liar_count_folder(&server, "blocks"), 0, count);
    assert_true(liar_count_folder(&server, "packs") > 0);
    reader_close(&reader);
    profile_finish(&kept);
}

static void packs_of_the_rest_are_left_alone_unless_all_is_wanted(void **state)
{
    struct profile kept = {.block_size = BLOCK_SIZE, .boot_count = 1, .image = image_id};
    struct reader reader;

    (void)state;
    assert_int_equal(profile_append(&kept, 1, 0, NULL), 0);
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_PROFILE, .kept = &kept});
    for (uint64_t b = 0; b < BLOCKS; b += 50)
        read_and_compare(&reader, b);
    assert_int_equal(liar_count_folder(&server, "packs"), 0);
    reader_close(&reader);
    profile_finish(&kept);
}

/* Nobody vouches for hints: packs of another disk would be so many bytes for nothing. */
static void packs_of_another_image_are_left_alone(void **state)
{
    const char *const files[] = {"images/bare/1.hints.json", "images/bare/_newest.hints.json"};
    struct profile kept = {.block_size = BLOCK_SIZE, .boot_count = 1, .image = image_id};
    int folder = file_open_folder(maker.folder, false, NULL);
    struct reader reader;
    struct hints hints;
    char *text;

    (void)state;
    assert_int_equal(hints_load(folder, "bare", "1", &hints, NULL), 0);
    assert_true(digest_equal(&hints.image, &image_id));
    hints.image.bytes[0] ^= 1;
    text = hints_format(&hints);
    for (size_t i = 0; i < 2; i++)
        liar_put(&second, files[i], text, strlen(text));
    free(text);
    hints_finish(&hints);
    close(folder);
    assert_int_equal(profile_append(&kept, 1, 0, NULL), 0);
    reader_open_at(&reader, second.url, &(struct opening){.name = "bare", .mode = PREFETCH_ALL, .kept = &kept});
    wait_for_blocks(&reader, count_blocks(1));
    assert_int_equal(liar_count_folder(&second, "packs"), 0);
    reader_close(&reader);
    profile_finish(&kept);
}

static bool until_streams(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)user;
    (void)done_bytes;
    (void)total_bytes;
    return !liar_count_folder(&server, "packs");
}

/* Until no block is on its way, or for 10 s. */
static void wait_for_quiet(struct reader *reader)
{
    uint64_t deadline = clock_ms() + 30000;
    struct digest digest;

    for (uint64_t b = 0; b < BLOCKS; b++) {
        digest_of(image + b * BLOCK_SIZE, BLOCK_SIZE, &digest);
        while (store_is_coming(reader->store, &digest, BLOCK_SIZE) && clock_ms() < deadline)
            clock_sleep_ms(5);
    }
}

/* What the streams would have brought is not asked for block by block, but what a reader waits for is. */
static void a_sweep_that_is_broken_off_asks_for_nothing(void **state)
{
    struct progress progress = {.update = until_streams};
    struct sweep_settings settings = {.progress = &progress};
    struct reader reader;
    struct packs *packs;

    (void)state;
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_NONE});
    settings.disk = reader.disk;
    settings.store = reader.store;
    packs = packs_begin(reader.store, "bare", "1", &image_id, disk_size(reader.disk));
    settings.pack_count = packs_wait(packs, &settings.packs);
    assert_true(settings.pack_count > 0);
    liar_reset(&server);
    liar_tell(&server, "^/packs/", "slow:2000", 0);
    assert_int_equal(sweep_run(&settings, NULL), ERROR_CANCELLED);
    packs_end(packs);
    read_and_compare(&reader, BLOCKS - 1);
    wait_for_quiet(&reader);
    assert_int_equal(liar_count_folder(&server, "blocks"), 1);
    reader_close(&reader);
}

/* Only those do not come that are being asked for one by one just then. */
static void packs_of_the_rest_are_streamed_past_lost_blocks(void **state)
{
    uint64_t count = count_blocks(1);
    struct reader reader;

    (void)state;
    liar_tell(&server, "^/blocks/", "status:404", 0);
    liar_tell(&server, "^/blocks/", "delay:1200", 0);
    liar_tell(&server, "^/packs/", "slow:300000", 0); /* so that it is not over when it meets them */
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    assert_in_range(wait_for_some(&reader, count - 80), count - 80, count);
    reader_close(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(packs_of_the_rest_are_streamed_when_nobody_waits),
        test(packs_of_the_rest_wait_for_readers),
        test(readers_do_not_wait_for_packs_of_the_rest),
        test(who_leaves_does_not_wait_for_packs_of_the_rest),
        test(packs_of_the_rest_are_streamed_behind_a_profile),
        test(packs_of_the_rest_are_left_alone_unless_all_is_wanted),
        test(packs_of_another_image_are_left_alone),
        test(a_sweep_that_is_broken_off_asks_for_nothing),
        test(packs_of_the_rest_are_streamed_past_lost_blocks),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
