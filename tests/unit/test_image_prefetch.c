/*
 * Boot packs from the writer to the reader, over HTTP: few requests, right
 * bytes, and no harm from packs, hints or servers that are wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "format/pack.h"
#include "prefetch_fixture.h"

static void a_boot_costs_a_handful_of_requests(void **state)
{
    struct reader reader;

    (void)state;
    reader_open(&reader, PREFETCH_PROFILE);
    wait_for_blocks(&reader, count_blocks(2));
    read_boot(&reader);
    /* hints, map, a stream a segment; on a busy machine one may fall behind, and be helped twice */
    assert_in_range(liar_count(&server, "total"), 2 + PACK_STREAMS, 2 + PACK_STREAMS + 2);
    reader_close(&reader);
}

static void a_second_boot_asks_for_no_block(void **state)
{
    struct store_statistics statistics;
    struct reader reader;

    (void)state;
    reader_open(&reader, PREFETCH_PROFILE);
    read_boot(&reader);
    reader_close(&reader);
    reader_open(&reader, PREFETCH_PROFILE);
    read_boot(&reader);
    store_count(reader.store, &statistics);
    assert_int_equal(statistics.fetched_blocks, 0);
    reader_close(&reader);
}

/* The table is kept, so that nothing of the pack is asked for if all of it is there, and what is lacking otherwise. */
static void a_warm_boot_asks_only_for_what_is_lacking(void **state)
{
    struct store_statistics statistics;
    struct reader reader;
    uint64_t count = count_blocks(2);
    struct digest digest;
    char text[DIGEST_TEXT], path[256];

    (void)state;
    reader_open(&reader, PREFETCH_PROFILE);
    wait_for_blocks(&reader, count);
    reader_close(&reader);
    liar_reset(&server);
    reader_open(&reader, PREFETCH_PROFILE);
    read_boot(&reader);
    while (liar_count(&server, "total") < 1) /* who finds all here is not held up by hints that are late */
        clock_sleep_ms(1);
    reader_close(&reader);
    assert_int_equal(liar_count(&server, "total"), 1); /* the hints; the map is cached */

    digest_of(image + (BLOCKS - 1) * (uint64_t)BLOCK_SIZE, BLOCK_SIZE, &digest);
    digest_format(&digest, text);
    snprintf(path, sizeof(path), "%s/blocks/%.2s/%s", cache_folder, text, text);
    assert_int_equal(unlink(path), 0);
    liar_reset(&server);
    reader_open(&reader, PREFETCH_PROFILE);
    wait_for_blocks(&reader, count);
    read_boot(&reader);
    store_count(reader.store, &statistics);
    assert_int_equal(statistics.fetched_blocks, 1);
    reader_close(&reader);
    assert_int_equal(liar_count(&server, "total"), 2);
}

static void none_means_none(void **state)
{
    struct reader reader;

    (void)state;
    reader_open(&reader, PREFETCH_NONE);
    read_and_compare(&reader, 5);
    assert_int_equal(liar_count(&server, "total"), 2); /* map and block */
    reader_close(&reader);
}

static void all_brings_everything(void **state)
{
    struct reader reader;

    (void)state;
    reader_open(&reader, PREFETCH_ALL);
    wait_for_blocks(&reader, count_blocks(1));
    reader_close(&reader);
}

/* Whatever happens to the pack, the bytes are right. */
static void harm(const char *behaviour, int count)
{
    struct reader reader;

    liar_tell(&server, "^/packs/", behaviour, count);
    reader_open(&reader, PREFETCH_PROFILE);
    read_boot(&reader);
    for (uint64_t b = 0; b < BLOCKS; b += 7)
        read_and_compare(&reader, b);
    reader_close(&reader);
}

static void count_blame(void *user, enum log_level level, const char *line)
{
    (void)level;
    *(int *)user += strstr(line, "wrong bytes") != NULL;
}

static void bad_hints_are_not_held_against_the_mirror(void **state)
{
    struct reader reader;
    int blamed = 0;

    (void)state;
    log_set_sink(count_blame, &blamed, LOG_LEVEL_WARNING);
    liar_tell(&server, "hints", "short", 0);
    reader_open(&reader, PREFETCH_PROFILE);
    read_boot(&reader);
    reader_close(&reader);
    log_set_sink(NULL, NULL, LOG_LEVEL_WARNING);
    assert_int_equal(blamed, 0);
}

/* What was said of mirrors that gave wrong bytes, or whose pack is damaged. */
struct blame {
    atomic_int server, second;
    char line[512]; /* that names the server first */
};

static void note_blame(void *user, enum log_level level, const char *line)
{
    struct blame *blame = user;

    (void)level;
    if (!strstr(line, "gave wrong bytes") && !strstr(line, "is damaged there"))
        return;
    blame->second += strstr(line, second.url) != NULL;
    if (!strstr(line, server.url))
        return;
    if (!blame->server)
        snprintf(blame->line, sizeof(blame->line), "%s", line);
    blame->server++;
}

static struct mirror_statistics standing(struct reader *reader, size_t mirror)
{
    struct mirror_statistics statistics[MIRRORS_MAX];

    assert_int_equal(mirrors_statistics(reader->mirrors, statistics), 2);
    return statistics[mirror];
}

/* Read the boot, of which the first of two mirrors sends wrong bytes, and wait until that is found out. */
static void boot_from_liar(struct reader *reader, struct blame *blame, bool is_named)
{
    uint64_t deadline = clock_ms() + 60000;

    liar_tell(&second, "^/(packs|maps)/", "delay:1000", 0); /* so that the streams begin at the first one */
    log_set_sink(note_blame, blame, LOG_LEVEL_WARNING);
    reader_open_as(reader, &(struct opening){.mode = PREFETCH_PROFILE, .mirror = &second});
    wait_for_some(reader, 10); /* the table is there: what streams bring is not asked for otherwise */
    read_boot(reader);
    while (is_named && !blame->server && clock_ms() < deadline)
        clock_sleep_ms(5);
    assert_int_equal(blame->server, is_named);
}

static void a_mirror_that_lies_in_the_boot_pack_is_named_and_left_for_that(void **state)
{
    struct blame blame = {0};
    struct reader reader;
    long asked;

    (void)state;
    liar_tell(&server, "^/packs/.* bytes=[1-9]", "flip", 0);
    liar_tell(&server, "^/packs/", "delay:300", 0); /* it has been asked for all streams before it is found out */
    boot_from_liar(&reader, &blame, true);
    assert_non_null(strstr(blame.line, ": packs/"));
    assert_int_equal(standing(&reader, 0).state, MIRROR_IN_USE);
    assert_int_equal(standing(&reader, 1).state, MIRROR_IN_USE);
    asked = liar_count_folder(&server, "packs");
    for (uint64_t b = 0; b < BLOCKS; b++)
        read_and_compare(&reader, b);
    assert_int_equal(liar_count_folder(&server, "packs"), asked);
    assert_int_equal(blame.server, 1);
    assert_int_equal(blame.second, 0);
    reader_close(&reader);
    log_set_sink(NULL, NULL, LOG_LEVEL_WARNING);
}

/* Change a byte of the server's pack; again, and it is as it was. */
static void spoil(const struct hints_pack *pack, uint64_t offset)
{
    char name[ARCHIVE_PATH_MAX], path[256];
    uint8_t byte;
    int fd;

    snprintf(path, sizeof(path), "%s/root/%s", server.folder, archive_path_pack(&pack->table, name));
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

/* Where the frame of PACK begins that has bytes on both sides of OFFSET; 0: there is none. */
static uint64_t frame_around(const struct hints_pack *pack, uint64_t offset)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    char path[ARCHIVE_PATH_MAX];
    struct pack_table table;
    uint64_t begin = 0;
    int folder = file_open_folder(maker.folder, false, NULL);

    assert_int_equal(file_read(folder, archive_path_pack(&pack->table, path), 64 * MIB, &bytes, NULL), 0);
    assert_int_equal(pack_parse_table(bytes.bytes, pack->table_size, &table, NULL), 0);
    for (uint32_t e = 0; e < table.count; e++)
        if (table.entries[e].offset < offset && table.entries[e].offset + table.entries[e].frame_size > offset)
            begin = table.entries[e].offset;
    pack_table_finish(&table);
    close(folder);
    return begin;
}

/* Have the server break a stream off within a frame, whose beginning is wrong. Returns where that is in PACK. */
static uint64_t break_within_frame(const struct hints_pack *pack)
{
    char match[64];

    for (size_t i = 0; i + 1 < pack->segment_count; i++) {
        uint64_t start = pack->segments[i], begin;

        begin = frame_around(pack, start + (pack->segments[i + 1] - start) / 2);
        if (!begin)
            continue;
        snprintf(match, sizeof(match), "^/packs/.* bytes=%llu-", (unsigned long long)start);
        liar_tell(&server, match, "truncate", 1);
        spoil(pack, begin);
        return begin;
    }
    fail_msg("no stream has a frame in its middle");
    return 0;
}

/* Each mirror has sent a part of it. */
static void nobody_is_blamed_for_a_frame_of_two_mirrors(void **state)
{
    struct blame blame = {0};
    struct hints hints;
    struct reader reader;
    uint64_t begin, deadline = clock_ms() + 60000;
    int folder = file_open_folder(maker.folder, false, NULL);

    (void)state;
    assert_int_equal(hints_load(folder, "disk", "1", &hints, NULL), 0);
    close(folder);
    begin = break_within_frame(&hints.packs[0]);
    boot_from_liar(&reader, &blame, false);
    while (!liar_count_folder(&second, "packs") && clock_ms() < deadline)
        clock_sleep_ms(5);
    assert_true(liar_count_folder(&second, "packs") > 0);
    spoil(&hints.packs[0], begin);
    assert_int_equal(blame.second, 0);
    assert_int_not_equal(standing(&reader, 0).state, MIRROR_DROPPED);
    assert_int_equal(standing(&reader, 1).state, MIRROR_IN_USE);
    reader_close(&reader);
    hints_finish(&hints);
    log_set_sink(NULL, NULL, LOG_LEVEL_WARNING);
}

static void a_damaged_pack_costs_time_only(void **state)
{
    (void)state;
    harm("flip", 0);
}

static void a_broken_stream_goes_on(void **state)
{
    (void)state;
    harm("truncate", 3);
}

static void a_missing_pack_is_done_without(void **state)
{
    (void)state;
    harm("status:404", 0);
}

static void a_server_without_ranges_is_coped_with(void **state)
{
    (void)state;
    harm("no-range", 0);
}

static void a_stalled_pack_does_not_hold_up_readers_for_long(void **state)
{
    uint64_t start = clock_ms();

    (void)state;
    harm("stall", 0);
    assert_true(clock_ms() - start < 30000);
}

/* The last block of each stream: those of the profile whose contents occur last for the first time. */
static void find_last(uint64_t last[PACK_STREAMS])
{
    struct digest_set *set = digest_set_create();
    uint64_t count = 0;

    for (uint64_t b = BLOCKS - 1; b < BLOCKS; b -= 2) {
        struct digest digest;

        digest_of(image + b * BLOCK_SIZE, BLOCK_SIZE, &digest);
        if (!bytes_are_zero(image + b * BLOCK_SIZE, BLOCK_SIZE) && digest_set_add(set, &digest) == 1)
            last[count++ % PACK_STREAMS] = b;
    }
    digest_set_destroy(set);
}

/* At the time that a reader asks for the last block of a stream, nothing of the stream has come; then it trickles. */
static void a_stream_that_turns_out_to_be_slow_is_overtaken(void **state)
{
    uint64_t start = clock_ms(), last[PACK_STREAMS];
    struct reader reader;

    (void)state;
    find_last(last);
    liar_tell(&server, "^/packs/", "slow:20", 0);
    liar_tell(&server, "^/packs/", "delay:700", 0);
    liar_tell(&server, "^/packs/.* bytes=0-", "chunked", 0); /* the table comes at once */
    reader_open(&reader, PREFETCH_PROFILE);
    assert_true(wait_for_some(&reader, 10) >= 10);
    for (size_t i = 0; i < PACK_STREAMS; i++)
        read_and_compare(&reader, last[i]);
    reader_close(&reader);
    assert_true(clock_ms() - start < 30000);
}

/*
 * One stream is a fiftieth as fast as the others, and would take longer than is waited for: they take most of it over.
 */
static void streams_that_have_ended_help_the_slowest(void **state)
{
    struct reader reader;

    (void)state;
    /* Without the table nothing can be divided. */
    reader_open(&reader, PREFETCH_NONE);
    packs_end(packs_begin(reader.store, "disk", "1", &image_id, disk_size(reader.disk)));
    reader_close(&reader);
    liar_reset(&server);
    liar_tell(&server, "^/packs/.* bytes=[1-9]", "slow:1000", 0);
    liar_tell(&server, "^/packs/.* bytes=[1-9]", "slow:20", 1);
    reader_open(&reader, PREFETCH_PROFILE);
    wait_for_blocks(&reader, count_blocks(2));
    read_boot(&reader);
    /* hints, a stream a segment, and those that help */
    assert_in_range(liar_count(&server, "total"), 1 + PACK_STREAMS + 1, 1 + PACK_STREAMS + 2);
    reader_close(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_boot_costs_a_handful_of_requests),
        test(streams_that_have_ended_help_the_slowest),
        test(a_second_boot_asks_for_no_block),
        test(a_warm_boot_asks_only_for_what_is_lacking),
        test(none_means_none),
        test(all_brings_everything),
        test(bad_hints_are_not_held_against_the_mirror),
        test(a_mirror_that_lies_in_the_boot_pack_is_named_and_left_for_that),
        test(nobody_is_blamed_for_a_frame_of_two_mirrors),
        test(a_damaged_pack_costs_time_only),
        test(a_broken_stream_goes_on),
        test(a_missing_pack_is_done_without),
        test(a_server_without_ranges_is_coped_with),
        test(a_stalled_pack_does_not_hold_up_readers_for_long),
        test(a_stream_that_turns_out_to_be_slow_is_overtaken),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
