/* Mirrors against servers that fail and lie: who is asked, how long, and what is said in the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>

#include "mirrors_fixture.h"
#include "store/mirrors_rank.h"

static int set_up(void **state)
{
    (void)state;
    return set_up_with(3000);
}

static void the_first_mirror_is_asked(void **state)
{
    struct mirrors *mirrors = make(5000, one.url, two.url);
    struct error error;

    (void)state;
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_int_equal(liar_count(&two, "total"), 0);
    mirrors_destroy(mirrors);
}

static void a_mirror_is_added_once(void **state)
{
    struct mirrors *mirrors = make(5000, one.url, two.url);
    char with_slash[80];

    (void)state;
    snprintf(with_slash, sizeof(with_slash), "%s/", one.url);
    assert_int_equal(mirrors_add(mirrors, with_slash, NULL), 0);
    assert_int_equal(mirrors_count(mirrors), 2);
    assert_int_equal(mirrors_add(mirrors, "ftp://host/os", NULL), ERROR_INVALID);
    mirrors_destroy(mirrors);
}

/* Whatever is wrong with the first mirror, the second one delivers. */
static void the_next_mirror_helps_at_once(void **state)
{
    static const char *const behaviours[] = {"truncate", "short", "flip", "close", "reset", "status:503", "status:403",
                                             "status:404", "status:500", "oversize", "garbage", "redirect:loop",
                                             "retry-after:30"};
    struct error error;

    (void)state;
    for (size_t i = 0; i < sizeof(behaviours) / sizeof(behaviours[0]); i++) {
        struct mirrors *mirrors = make(20000, one.url, two.url);
        uint64_t start_ms = clock_ms();

        reset(NULL);
        liar_tell(&one, "x", behaviours[i], 0);
        if (fetch(mirrors, "blocks/ab/x", 0, &error))
            fail_msg("%s: %s", behaviours[i], error.message);
        /* A kept connection that closes may be one that timed out, so that is tried again at once. */
        assert_in_range(liar_count(&one, "total"), 1, strcmp(behaviours[i], "redirect:loop") ? 2 : 6);
        assert_int_equal(liar_count(&two, "total"), 1);
        assert_true(clock_ms() - start_ms < 15000);
        mirrors_destroy(mirrors);
    }
}

static void a_stalled_mirror_is_left_after_its_time(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;
    long probes, total;

    (void)state;
    liar_tell(&one, "x", "stall", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_int_equal(liar_count(&two, "total"), 1);
    /* From now on it is asked last, so nobody waits for it again. */
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    do {
        probes = liar_count(&one, "ranged"); /* they ask for a byte, at any time */
        total = liar_count(&one, "total");
    } while (liar_count(&one, "ranged") != probes);
    assert_int_equal(total - probes, 1);
    mirrors_destroy(mirrors);
}

/* Whether the first mirror is well again is found out in the background, and then it is the first again. */
static void no_reader_waits_for_a_probe(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    uint64_t start_ms;
    struct error error;

    (void)state;
    liar_tell(&one, "x", "hang", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    while (liar_count(&one, "total") < 2) {
        start_ms = clock_ms();
        assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
        assert_true(clock_ms() - start_ms < 3000); /* less than a stall */
        usleep(10 * 1000);
    }
    liar_reset(&one);
    while (liar_count(&one, "total") < 5) {
        assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
        usleep(10 * 1000);
    }
    mirrors_destroy(mirrors);
}

/* Nobody needs the second one, and yet it is known how quick it is. */
static void an_idle_mirror_is_measured(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    uint64_t until_ms = clock_ms() + 20000;
    struct error error;

    (void)state;
    for (int i = 0; i < 2 * ALLOWANCE_PARTS; i++)
        assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    while (!liar_count(&two, "ranged") && clock_ms() < until_ms)
        usleep(10 * 1000);
    assert_in_range(liar_count(&two, "ranged"), 1, 2);
    mirrors_destroy(mirrors);
}

static void what_no_mirror_has_is_not_found_after_one_pass(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;

    (void)state;
    assert_int_equal(fetch(mirrors, "blocks/ab/nowhere", 0, &error), ERROR_NOT_FOUND);
    assert_says(error, "blocks/ab/nowhere");
    assert_says(error, one.url);
    assert_says(error, two.url);
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/only-two", 0, &error), 0);
    mirrors_destroy(mirrors);
}

static void a_missing_file_is_not_given_up_while_a_mirror_is_away(void **state)
{
    struct mirrors *mirrors = make(3000, one.url, two.url);
    struct mirror_statistics statistics[MIRRORS_MAX];
    struct error error;

    (void)state;
    liar_tell(&two, "nowhere", "status:503", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/nowhere", 0, &error), ERROR_UNAVAILABLE);
    assert_says(error, "HTTP status 404");
    assert_says(error, "HTTP status 503");
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_true(liar_count(&two, "total") >= 2);
    assert_int_equal(mirrors_statistics(mirrors, statistics), 2);
    assert_int_equal(statistics[0].missing, 1);
    assert_string_equal(statistics[0].reason, ""); /* to lack a file is no fault */
    assert_string_equal(statistics[1].reason, "HTTP status 503");
    mirrors_destroy(mirrors);
}

static void damage_everywhere_is_corrupt_after_asking_past_caches(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;
    uint64_t start_ms = clock_ms();

    (void)state;
    liar_tell(&one, "x", "flip", 0);
    liar_tell(&two, "x", "short", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_CORRUPT);
    assert_says(error, "not the bytes that were wanted");
    assert_int_equal(liar_count(&one, "total"), 2);
    assert_int_equal(liar_count(&one, "fresh"), 1);
    assert_int_equal(liar_count(&two, "fresh"), 1);
    assert_true(clock_ms() - start_ms < 15000);
    mirrors_destroy(mirrors);
}

static void a_proxy_with_damaged_memory_is_passed(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    struct error error;

    (void)state;
    liar_tell(&one, "x", "flip", 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_int_equal(liar_count(&one, "fresh"), 1);
    mirrors_destroy(mirrors);
}

static void a_liar_is_named_once_and_set_aside(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;

    (void)state;
    liar_tell(&one, "x", "flip", 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_int_equal(wrong_bytes_warnings, 1);
    /* When nobody else can help, it is asked all the same. */
    liar_reset(&one);
    liar_tell(&two, "x", "status:500", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    mirrors_destroy(mirrors);
}

static void patience_ends_with_every_reason(void **state)
{
    struct mirrors *mirrors;
    char nobody[64], nowhere[] = "http://nobody.invalid/os";
    struct error error;
    uint64_t start_ms = clock_ms();

    (void)state;
    snprintf(nobody, sizeof(nobody), "http://%s", LIAR_NOBODY);
    mirrors = make(1200, nobody, one.url);
    assert_int_equal(mirrors_add(mirrors, nowhere, NULL), 0);
    liar_tell(&one, "x", "status:502", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_UNAVAILABLE);
    assert_says(error, "blocks/ab/x");
    assert_says(error, "connection refused");
    assert_says(error, "HTTP status 502");
    assert_says(error, "name unknown");
    assert_says(error, "1.2 s");
    assert_in_range(clock_ms() - start_ms, 1100, 20000);
    mirrors_destroy(mirrors);
}

static void one_pass_means_no_waiting(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;

    (void)state;
    liar_tell(&one, "x", "status:503", 0);
    liar_tell(&two, "x", "status:503", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 1, &error), ERROR_UNAVAILABLE);
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_int_equal(liar_count(&two, "total"), 1);
    mirrors_destroy(mirrors);
}

static void a_path_cannot_leave_the_archive(void **state)
{
    static const char *const paths[] = {"../root/blocks/ab/x", "blocks/../blocks/ab/x", "/blocks/ab/x", "blocks//ab/x",
                                        "./blocks/ab/x", "", "blocks/ab/x/..", "blocks/ab/x\r\nA: b"};
    struct mirrors *mirrors = make(20000, one.url, NULL);
    struct error error;

    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        assert_int_equal(fetch(mirrors, paths[i], 0, &error), ERROR_INVALID);
    assert_int_equal(liar_count(&one, "total"), 0);
    mirrors_destroy(mirrors);
}

static void refusal_is_told_at_once(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    struct error error;

    (void)state;
    liar_tell(&one, "x", "status:403", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_UNAVAILABLE);
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_says(error, "HTTP status 403");
    mirrors_destroy(mirrors);
}

static void a_server_that_asks_for_rest_gets_it(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    uint64_t start_ms = clock_ms();
    struct error error;

    (void)state;
    liar_tell(&one, "x", "retry-after:1", 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_in_range(clock_ms() - start_ms, 950, 15000);
    assert_int_equal(liar_count(&one, "total"), 2);
    mirrors_destroy(mirrors);
}

static void a_server_s_rest_is_for_all_requests(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    uint64_t start_ms = clock_ms();
    struct error error;

    (void)state;
    liar_tell(&one, "x", "retry-after:1", 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 1, &error), ERROR_UNAVAILABLE);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_in_range(clock_ms() - start_ms, 950, 15000);
    assert_int_equal(liar_count(&one, "total"), 2);
    mirrors_destroy(mirrors);
}

static void rest_is_not_longer_than_patience(void **state)
{
    struct mirrors *mirrors = make(700, one.url, NULL);
    uint64_t start_ms = clock_ms();
    struct error error;

    (void)state;
    liar_tell(&one, "x", "retry-after:3600", 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_in_range(clock_ms() - start_ms, 600, 60000);
    mirrors_destroy(mirrors);
}

static void a_folder_is_a_mirror(void **state)
{
    char folder[128], url[128], missing[128];
    struct mirrors *mirrors;
    struct error error;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/root", one.folder);
    snprintf(url, sizeof(url), "file://%s/r%%6fot/", one.folder);
    snprintf(missing, sizeof(missing), "%s/nothing-here", one.folder);
    mirrors = make(500, folder, url);
    assert_int_equal(mirrors_count(mirrors), 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/nowhere", 0, &error), ERROR_NOT_FOUND);
    assert_int_equal(fetch(mirrors, "blocks", 0, &error), ERROR_NOT_FOUND);
    assert_int_equal(fetch(mirrors, "../port", 0, &error), ERROR_INVALID);
    assert_int_equal(fetch(mirrors, "/etc/passwd", 0, &error), ERROR_INVALID);
    mirrors_destroy(mirrors);
    mirrors = make(500, missing, NULL);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_UNAVAILABLE);
    assert_says(error, "the folder does not exist");
    mirrors_destroy(mirrors);
    mirrors = make(500, missing, two.url);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    mirrors_destroy(mirrors);
}

static void a_folder_cannot_hang_or_be_left(void **state)
{
    char name[200], folder[128];
    struct mirrors *mirrors;
    struct error error;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/root", two.folder);
    snprintf(name, sizeof(name), "%s/pipe", folder);
    assert_int_equal(mkfifo(name, 0600), 0);
    snprintf(name, sizeof(name), "%s/out", folder);
    assert_int_equal(symlink("/etc/passwd", name), 0);
    mirrors = make(5000, folder, NULL);
    assert_int_equal(fetch(mirrors, "pipe", 0, &error), ERROR_NOT_FOUND);
    assert_int_equal(fetch(mirrors, "out", 0, &error), ERROR_UNAVAILABLE);
    assert_says(error, "leads out of the archive");
    mirrors_destroy(mirrors);
}

struct tally {
    atomic_int left;
    atomic_int cancelled;
    atomic_int good;
    struct latch latch;
};

static void tally_done(void *user, int code, const struct error *error)
{
    struct tally *tally = user;

    (void)error;
    tally->cancelled += code == ERROR_CANCELLED;
    tally->good += code == 0;
    if (--tally->left == 0)
        latch_set(&tally->latch, 0, NULL);
}

static void fetch_many(struct mirrors *mirrors, const char *path, int count, struct tally *tally)
{
    tally->left = count;
    latch_init(&tally->latch);
    for (int i = 0; i < count; i++) {
        struct mirrors_request request = {.path = path, .size_limit = 1000, .done = tally_done, .user = tally,
                                          .accept = accept_content, .priority = (enum priority)(i % PRIORITY_COUNT)};

        mirrors_fetch(mirrors, &request);
    }
}

/* An empty mount point, as a file system leaves it behind that is not mounted. */
static void a_folder_that_is_away_is_one_that_cannot_be_reached(void **state)
{
    char folder[128], away[128];
    struct mirrors *mirrors;
    struct error error;
    struct tally tally = {0};

    (void)state;
    snprintf(folder, sizeof(folder), "%s/root", one.folder);
    snprintf(away, sizeof(away), "%s/away", one.folder);
    assert_int_equal(rename(folder, away), 0);
    assert_int_equal(mkdir(folder, 0755), 0);
    mirrors = make(300, folder, NULL);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_UNAVAILABLE);
    assert_says(error, "there is no archive in the folder");
    mirrors_destroy(mirrors);

    mirrors = make(300, folder, two.url);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/nowhere", 0, &error), ERROR_UNAVAILABLE);
    mirrors_destroy(mirrors);

    mirrors = make(20000, folder, NULL);
    fetch_many(mirrors, "blocks/ab/x", 10, &tally);
    usleep(400 * 1000); /* the outage */
    assert_int_equal(tally.left, 10);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rename(away, folder), 0);
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 10);
    latch_finish(&tally.latch);
    assert_int_equal(fetch(mirrors, "blocks/ab/nowhere", 0, &error), ERROR_NOT_FOUND);
    mirrors_destroy(mirrors);
}

static void readers_get_their_data_when_the_network_is_back(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    struct tally tally = {0};
    uint64_t back_ms;

    (void)state;
    liar_kill(&one);
    fetch_many(mirrors, "blocks/ab/x", 50, &tally);
    usleep(1000 * 1000); /* the outage */
    assert_int_equal(tally.left, 50);
    liar_restart(&one);
    back_ms = clock_ms();
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 50);
    assert_true(clock_ms() - back_ms < 15000);
    latch_finish(&tally.latch);
    mirrors_destroy(mirrors);
}

static void destroying_ends_what_waits_and_what_is_under_way(void **state)
{
    static const char *const behaviours[] = {"status:503", "hang", "stall", "delay:20", "flip"};

    (void)state;
    for (size_t i = 0; i < sizeof(behaviours) / sizeof(behaviours[0]); i++) {
        struct mirrors *mirrors = make(60000, one.url, two.url);
        struct tally tally = {0};
        uint64_t start_ms;

        reset(NULL);
        liar_tell(&one, "x", behaviours[i], 0);
        liar_tell(&two, "x", behaviours[i], 0);
        fetch_many(mirrors, "blocks/ab/x", 100, &tally);
        while (liar_count(&one, "total") < 5)
            usleep(1000);
        start_ms = clock_ms();
        mirrors_destroy(mirrors);
        assert_int_equal(tally.left, 0);
        assert_true(clock_ms() - start_ms < 30000);
        latch_finish(&tally.latch);
    }
}

static void many_at_once_over_servers_that_fail_now_and_then(void **state)
{
    struct mirrors *mirrors = make(30000, one.url, two.url);
    struct tally tally = {0};

    (void)state;
    liar_tell(&one, "x", "reset", 40);
    liar_tell(&one, "x", "status:503", 40);
    liar_tell(&two, "x", "close", 40);
    liar_tell(&two, "x", "flip", 3);
    fetch_many(mirrors, "blocks/ab/x", 600, &tally);
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 600);
    latch_finish(&tally.latch);
    mirrors_destroy(mirrors);
}

static void without_a_mirror_nothing_is_waited_for(void **state)
{
    struct mirrors *mirrors;
    struct error error;

    (void)state;
    assert_int_equal(mirrors_create(NULL, workers, 20000, &mirrors, &error), 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_UNAVAILABLE);
    assert_int_equal(mirrors_add(mirrors, one.url, &error), ERROR_INVALID);
    mirrors_destroy(mirrors);
}

#define test(function) cmocka_unit_test_setup(function, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(the_first_mirror_is_asked),
        test(a_mirror_is_added_once),
        test(the_next_mirror_helps_at_once),
        test(a_stalled_mirror_is_left_after_its_time),
        test(no_reader_waits_for_a_probe),
        test(an_idle_mirror_is_measured),
        test(what_no_mirror_has_is_not_found_after_one_pass),
        test(a_missing_file_is_not_given_up_while_a_mirror_is_away),
        test(damage_everywhere_is_corrupt_after_asking_past_caches),
        test(a_proxy_with_damaged_memory_is_passed),
        test(a_liar_is_named_once_and_set_aside),
        test(patience_ends_with_every_reason),
        test(one_pass_means_no_waiting),
        test(a_path_cannot_leave_the_archive),
        test(refusal_is_told_at_once),
        test(a_server_that_asks_for_rest_gets_it),
        test(a_server_s_rest_is_for_all_requests),
        test(rest_is_not_longer_than_patience),
        test(readers_get_their_data_when_the_network_is_back),
        test(a_folder_is_a_mirror),
        test(a_folder_that_is_away_is_one_that_cannot_be_reached),
        test(a_folder_cannot_hang_or_be_left),
        test(destroying_ends_what_waits_and_what_is_under_way),
        test(many_at_once_over_servers_that_fail_now_and_then),
        test(without_a_mirror_nothing_is_waited_for),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
