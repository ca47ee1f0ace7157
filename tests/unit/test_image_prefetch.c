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
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "archive_maker.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/digest_set.h"
#include "base/file.h"
#include "base/log.h"
#include "format/pack.h"
#include "image/ahead.h"
#include "image/pack.h"
#include "liar.h"
#include "net/http.h"

#define BLOCK_SIZE 4096
#define BLOCKS 600

static struct liar server, second; /* which holds the same archive */
static struct http_client *client;
static struct workers *workers;
static struct archive_maker maker;
static uint8_t *image;
static struct digest image_id;
static char cache_folder[128];

/* What a client has. */
struct reader {
    struct cache *cache;
    struct mirrors *mirrors;
    struct store *store;
    struct disk *disk;
    struct ahead *ahead;
};

static int set_up(void **state)
{
    char command[512];
    struct profile profile = {.block_size = BLOCK_SIZE, .boot_count = 1};
    struct pack_settings settings = {.archive = maker.folder, .name = "disk", .profile = &profile};
    struct pack_result result;
    struct error error;

    (void)state;
    archive_maker_init(&maker);
    image = make_image((uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE, 7);
    image_id = archive_maker_add(&maker, "disk", "1", image, (uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE);
    archive_maker_publish(&maker);
    profile.image = image_id;
    for (uint64_t b = 0; b < BLOCKS / 2; b++) /* every other block, backwards in two halves */
        assert_int_equal(profile_append(&profile, (BLOCKS - 1 - 2 * b) % BLOCKS, (uint32_t)b, &error), 0);
    if (pack_write(&settings, &result, &error))
        fail_msg("%s", error.message);
    assert_true(result.boot_blocks > 100);
    profile_finish(&profile);
    /* The same disk with packs of everything, and no profile. */
    archive_maker_add(&maker, "bare", "1", image, (uint64_t)BLOCKS * BLOCK_SIZE, BLOCK_SIZE);
    archive_maker_publish(&maker);
    settings = (struct pack_settings){.archive = maker.folder, .name = "bare", .all = true};
    if (pack_write(&settings, &result, &error))
        fail_msg("%s", error.message);
    assert_true(result.boot_blocks == 0 && result.rest_blocks > 200);
    liar_start(&server, NULL);
    liar_start(&second, NULL);
    snprintf(command, sizeof(command), "cp -r %s/. %s/root/ && cp -r %s/. %s/root/", maker.folder, server.folder,
             maker.folder, second.folder);
    assert_int_equal(system(command), 0);
    return http_client_create(&(struct http_settings){.stall_timeout_ms = 1500}, &client, NULL) ||
           workers_create(2, &workers, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    http_client_destroy(client);
    workers_destroy(workers);
    liar_finish(&server);
    liar_finish(&second);
    archive_maker_finish(&maker);
    free(image);
    return 0;
}

static int fresh_cache(void **state)
{
    (void)state;
    liar_reset(&server);
    liar_reset(&second);
    make_folder(cache_folder);
    return 0;
}

static int drop_cache(void **state)
{
    (void)state;
    remove_folder(cache_folder);
    return 0;
}

/* What a reader opens, and how. */
struct opening {
    const char *name; /* "bare"; NULL: "disk", which has a boot pack */
    enum prefetch_mode mode;
    const struct liar *mirror; /* beside the first; NULL: none */
    const struct profile *kept;
};

static void reader_open_at(struct reader *reader, const char *url, const struct opening *opening)
{
    struct store_settings settings = {.workers = workers};
    struct error error;

    *reader = (struct reader){0};
    assert_int_equal(cache_open(cache_folder, 0, &reader->cache, &error), 0);
    assert_int_equal(mirrors_create(client, workers, 5000, &reader->mirrors, &error), 0);
    assert_int_equal(mirrors_add(reader->mirrors, url, &error), 0);
    if (opening->mirror)
        assert_int_equal(mirrors_add(reader->mirrors, opening->mirror->url, &error), 0);
    settings.cache = reader->cache;
    settings.mirrors = reader->mirrors;
    assert_int_equal(store_open(&settings, &reader->store, &error), 0);
    reader->ahead = ahead_begin(reader->store, opening->name ? opening->name : "disk", NULL, opening->mode, true);
    if (disk_open(reader->store, &image_id, &reader->disk, &error))
        fail_msg("%s", error.message);
    ahead_disk(reader->ahead, reader->disk, opening->kept);
}

static void reader_open_as(struct reader *reader, const struct opening *opening)
{
    reader_open_at(reader, server.url, opening);
}

static void reader_open(struct reader *reader, enum prefetch_mode mode)
{
    reader_open_as(reader, &(struct opening){.mode = mode});
}

static void reader_close(struct reader *reader)
{
    mirrors_cancel(reader->mirrors);
    ahead_leave(reader->ahead, reader->disk);
    disk_close(reader->disk);
    ahead_end(reader->ahead);
    store_close(reader->store);
    mirrors_destroy(reader->mirrors);
    cache_close(reader->cache);
}

static void read_and_compare(struct reader *reader, uint64_t block)
{
    uint8_t bytes[BLOCK_SIZE];
    struct error error;

    if (disk_read(reader->disk, bytes, BLOCK_SIZE, block * BLOCK_SIZE, &error) != BLOCK_SIZE)
        fail_msg("block %llu: %s", (unsigned long long)block, error.message);
    assert_memory_equal(bytes, image + block * BLOCK_SIZE, BLOCK_SIZE);
}

static void read_boot(struct reader *reader)
{
    for (uint64_t b = 0; b < BLOCKS / 2; b++)
        read_and_compare(reader, (BLOCKS - 1 - 2 * b) % BLOCKS);
}

/* Different blocks among every STEP-th, from the last one down. */
static uint64_t count_blocks(uint64_t step)
{
    struct digest_set *set = digest_set_create();
    struct digest digest;
    uint64_t count = 0;

    for (uint64_t i = 0; i < BLOCKS / step; i++) {
        const uint8_t *block = image + (BLOCKS - 1 - step * i) * BLOCK_SIZE;

        digest_of(block, BLOCK_SIZE, &digest);
        if (!bytes_are_zero(block, BLOCK_SIZE))
            count += (uint64_t)digest_set_add(set, &digest);
    }
    digest_set_destroy(set);
    return count;
}

/* Until so many are cached, or for 20 s. Returns how many are. */
static uint64_t wait_for_some(struct reader *reader, uint64_t wanted)
{
    uint64_t deadline = clock_ms() + 20000;
    struct cache_usage usage;

    do
        assert_int_equal(cache_measure(reader->cache, &usage, NULL), 0);
    while (usage.block_count < wanted && clock_ms() < deadline);
    return usage.block_count;
}

static void wait_for_blocks(struct reader *reader, uint64_t wanted)
{
    assert_int_equal(wait_for_some(reader, wanted), wanted);
}

static void a_boot_costs_a_handful_of_requests(void **state)
{
    struct reader reader;

    (void)state;
    reader_open(&reader, PREFETCH_PROFILE);
    wait_for_blocks(&reader, count_blocks(2));
    read_boot(&reader);
    /* hints, map, and a stream a segment */
    assert_true(liar_count(&server, "total") <= 2 + PACK_STREAMS);
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

/* Nobody has made a boot pack or a profile. Blocks one by one until it is clear that no reader needs them. */
static void packs_of_the_rest_are_streamed_when_nobody_waits(void **state)
{
    uint64_t count = count_blocks(1);
    struct reader reader;

    (void)state;
    liar_tell(&server, "^/blocks/", "delay:3500", 0);
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    wait_for_blocks(&reader, count);
    assert_true(liar_count_folder(&server, "packs") > 0);
    assert_in_range(liar_count_folder(&server, "blocks"), 1, count / 2);
    reader_close(&reader);
}

static void packs_of_the_rest_wait_for_readers(void **state)
{
    struct reader reader;

    (void)state;
    liar_tell(&server, "^/blocks/", "delay:1000", 0);
    reader_open_as(&reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    for (uint64_t b = BLOCKS - 1; b > BLOCKS - 500; b -= 97) /* five seconds */
        read_and_compare(&reader, b);
    assert_int_equal(liar_count_folder(&server, "packs"), 0);
    reader_close(&reader);
}

/* A reader for whom the packs of the rest trickle. */
static void open_trickling(struct reader *reader)
{
    uint64_t until = clock_ms() + 20000;

    liar_tell(&server, "^/blocks/", "delay:3500", 60);
    liar_tell(&server, "^/packs/", "slow:20", 0);
    liar_tell(&server, "^/packs/.* bytes=0-", "chunked", 1); /* the table comes at once */
    reader_open_as(reader, &(struct opening){.name = "bare", .mode = PREFETCH_ALL});
    while (liar_count_folder(&server, "packs") < 2 && clock_ms() < until)
        clock_sleep_ms(10);
    assert_true(liar_count_folder(&server, "packs") >= 2);
}

/* Who needs blocks of such a stream has them fetched apart; many of them are its end, and all comes block by block. */
static void readers_do_not_wait_for_packs_of_the_rest(void **state)
{
    struct reader reader;
    uint64_t start;

    (void)state;
    open_trickling(&reader);
    start = clock_ms();
    for (uint64_t b = BLOCKS - 1; b > BLOCKS - 100; b--)
        read_and_compare(&reader, b);
    assert_true(clock_ms() - start < 10000);
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
    assert_true(clock_ms() - start < 10000);
    reader_close(&reader);
}

/* What earlier runs have read comes first, block by block; then the packs. */
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
    assert_in_range(liar_count_folder(&server, "blocks"), 1, count);
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

/* What was said of mirrors that gave wrong bytes. */
struct blame {
    atomic_int server, second;
    char line[512]; /* that names the server first */
};

static void note_blame(void *user, enum log_level level, const char *line)
{
    struct blame *blame = user;

    (void)level;
    if (!strstr(line, "gave wrong bytes"))
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
    uint64_t deadline = clock_ms() + 10000;

    liar_tell(&second, "^/(packs|maps)/", "delay:200", 0); /* so that the streams begin at the first one */
    log_set_sink(note_blame, blame, LOG_LEVEL_WARNING);
    reader_open_as(reader, &(struct opening){.mode = PREFETCH_PROFILE, .mirror = &second});
    read_boot(reader);
    while (is_named && !blame->server && clock_ms() < deadline)
        clock_sleep_ms(5);
    assert_int_equal(blame->server, is_named);
}

static void a_mirror_that_lies_in_the_boot_pack_is_named_and_left(void **state)
{
    struct blame blame = {0};
    struct reader reader;
    long asked;

    (void)state;
    liar_tell(&server, "^/packs/.* bytes=[1-9]", "flip", 0);
    boot_from_liar(&reader, &blame, true);
    assert_non_null(strstr(blame.line, "and is not used any more: packs/"));
    assert_int_equal(standing(&reader, 0).state, MIRROR_DROPPED);
    assert_int_equal(standing(&reader, 0).state_ms, 0); /* for the rest of the session */
    assert_int_equal(standing(&reader, 1).state, MIRROR_IN_USE);
    asked = liar_count(&server, "total");
    for (uint64_t b = 0; b < BLOCKS; b++)
        read_and_compare(&reader, b);
    assert_int_equal(liar_count(&server, "total"), asked);
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
    uint64_t begin;
    int folder = file_open_folder(maker.folder, false, NULL);

    (void)state;
    assert_int_equal(hints_load(folder, "disk", "1", &hints, NULL), 0);
    close(folder);
    begin = break_within_frame(&hints.packs[0]);
    boot_from_liar(&reader, &blame, false);
    spoil(&hints.packs[0], begin);
    assert_true(liar_count_folder(&second, "packs") > 0);
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
    assert_true(clock_ms() - start < 10000);
}

/* One stream is a twentieth as fast as the others, and would take ten seconds: those take most of it over. */
static void streams_that_have_ended_help_the_slowest(void **state)
{
    uint64_t start = clock_ms();
    struct reader reader;

    (void)state;
    liar_tell(&server, "^/packs/.* bytes=[1-9]", "slow:1000", 0);
    liar_tell(&server, "^/packs/.* bytes=[1-9]", "slow:50", 1);
    reader_open(&reader, PREFETCH_PROFILE);
    wait_for_blocks(&reader, count_blocks(2));
    assert_true(clock_ms() - start < 6000);
    read_boot(&reader);
    assert_in_range(liar_count(&server, "total"), 2 + PACK_STREAMS + 1, 2 + PACK_STREAMS + 2);
    reader_close(&reader);
}

#define test(function) cmocka_unit_test_setup_teardown(function, fresh_cache, drop_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_boot_costs_a_handful_of_requests),
        test(streams_that_have_ended_help_the_slowest),
        test(a_second_boot_asks_for_no_block),
        test(a_warm_boot_asks_only_for_what_is_lacking),
        test(none_means_none),
        test(all_brings_everything),
        test(packs_of_the_rest_are_streamed_when_nobody_waits),
        test(packs_of_the_rest_wait_for_readers),
        test(readers_do_not_wait_for_packs_of_the_rest),
        test(who_leaves_does_not_wait_for_packs_of_the_rest),
        test(packs_of_the_rest_are_streamed_behind_a_profile),
        test(packs_of_the_rest_are_left_alone_unless_all_is_wanted),
        test(packs_of_another_image_are_left_alone),
        test(bad_hints_are_not_held_against_the_mirror),
        test(a_mirror_that_lies_in_the_boot_pack_is_named_and_left),
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
