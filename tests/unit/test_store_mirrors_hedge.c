/* Mirrors that are slow: a second request for a reader who waits too long, and who is asked from then on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "mirrors_fixture.h"

static int set_up(void **state)
{
    (void)state;
    return set_up_with(20000);
}

static struct mirror_statistics statistics_of(struct mirrors *mirrors, unsigned index)
{
    struct mirror_statistics statistics[MIRRORS_MAX];

    assert_true(mirrors_statistics(mirrors, statistics) > index);
    return statistics[index];
}

/* Second requests so far; before what is tested there may be some, too, if the machine is busy. */
static uint64_t count_hedges(struct mirrors *mirrors)
{
    return statistics_of(mirrors, 0).hedges + statistics_of(mirrors, 1).hedges;
}

/* COUNT reads, all of which must be right. */
static void read_often(struct mirrors *mirrors, int count)
{
    struct error error;

    for (int i = 0; i < count; i++)
        if (fetch(mirrors, "blocks/ab/x", 0, &error))
            fail_msg("%s", error.message);
}

/* The same, and how long it took. */
static uint64_t read_once_ms(struct mirrors *mirrors)
{
    uint64_t start_ms = clock_ms();

    read_often(mirrors, 1);
    return clock_ms() - start_ms;
}

/*
 * The first mirror behaves so for a read that finds out by a second request. On a busy machine that may take more than
 * one read: others may have had the second requests that were allowed, and the other mirror may be the quicker one.
 */
static void read_past(struct mirrors *mirrors, const char *behaviour)
{
    for (int i = 0; i < 8; i++) {
        uint64_t won, took_ms;

        read_often(mirrors, 32);
        won = statistics_of(mirrors, 1).hedges_won;
        liar_tell(&one, "x", behaviour, 1);
        took_ms = read_once_ms(mirrors);
        if (statistics_of(mirrors, 1).hedges_won == won)
            continue;
        assert_int_equal(statistics_of(mirrors, 1).hedges_won, won + 1);
        assert_true(took_ms < 10000);
        return;
    }
    fail_msg("%s: no second request", behaviour);
}

static void a_reader_does_not_wait_for_a_slow_answer(void **state)
{
    static const char *const behaviours[] = {"delay:15000", "hang", "stall"};

    (void)state;
    for (size_t i = 0; i < sizeof(behaviours) / sizeof(behaviours[0]); i++) {
        struct mirrors *mirrors = make(20000, one.url, two.url);
        uint64_t start_ms;

        reset(NULL);
        liar_tell(&two, "x", "delay:100", 0); /* so that it is the other one that is asked first */
        read_past(mirrors, behaviours[i]);
        /* Nobody waits for the slow one at the end, either. */
        start_ms = clock_ms();
        mirrors_destroy(mirrors);
        assert_true(clock_ms() - start_ms < 10000);
    }
}

static void before_anything_is_known_a_second_is_waited(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    uint64_t start_ms;
    struct error error;

    (void)state;
    for (int i = 0; i < 16; i++) /* for the allowance */
        assert_int_equal(fetch(mirrors, "blocks/ab/nowhere", 1, &error), ERROR_NOT_FOUND);
    liar_put(&two, "catalog.json", CONTENT, sizeof(CONTENT) - 1);
    liar_tell(&one, "catalog", "hang", 0);
    start_ms = clock_ms();
    assert_int_equal(fetch(mirrors, "catalog.json", 0, &error), 0);
    assert_in_range(clock_ms() - start_ms, 900, 15000);
    mirrors_destroy(mirrors);
}

/* A server that has become slow as a whole is not asked twice for everything. */
static void second_requests_are_few(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);

    (void)state;
    read_often(mirrors, 32);
    liar_tell(&one, "x", "delay:400", 0);
    liar_tell(&two, "x", "delay:400", 0);
    read_often(mirrors, 16);
    assert_in_range(count_hedges(mirrors), 1, 48 / 16);
    mirrors_destroy(mirrors);
}

static void a_wrong_second_answer_does_no_harm(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    uint64_t won;

    (void)state;
    read_often(mirrors, 32);
    won = statistics_of(mirrors, 1).hedges_won;
    liar_tell(&two, "x", "flip", 0);
    for (int i = 0; i < 8 && !statistics_of(mirrors, 1).bad_blocks; i++) { /* as read_past */
        liar_tell(&one, "x", "delay:2500", 1);
        read_often(mirrors, 17);
    }
    assert_int_equal(statistics_of(mirrors, 1).hedges_won, won);
    assert_int_equal(statistics_of(mirrors, 1).bad_blocks, 1);
    assert_int_equal(statistics_of(mirrors, 1).state, MIRROR_DROPPED);
    assert_int_equal(statistics_of(mirrors, 1).state_ms, 0); /* for the rest of the session */
    assert_int_equal(wrong_bytes_warnings, 1);
    mirrors_destroy(mirrors);
}

static void nobody_waits_for_bulk_work(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct mirrors_request request = {.path = "blocks/ab/x", .size_limit = 1000, .accept = accept_content,
                                      .priority = PRIORITY_FILL};
    uint64_t before;
    struct error error;

    (void)state;
    read_often(mirrors, 32);
    before = count_hedges(mirrors);
    liar_tell(&one, "x", "delay:500", 0);
    liar_tell(&two, "x", "delay:500", 0);
    assert_int_equal(mirrors_fetch_wait(mirrors, &request, &error), 0);
    assert_int_equal(count_hedges(mirrors), before);
    mirrors_destroy(mirrors);
}

/* With one mirror alone, its connection may be dead without anybody being told. */
static void a_lone_mirror_is_asked_again_on_another_connection(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    uint64_t won;

    (void)state;
    read_often(mirrors, 16);
    won = statistics_of(mirrors, 0).hedges_won;
    liar_tell(&one, "x", "hang", 1);
    assert_in_range(read_once_ms(mirrors), 1500, 15000);
    assert_int_equal(statistics_of(mirrors, 0).hedges_won, won + 1);
    mirrors_destroy(mirrors);
}

static void fill_done(void *user, int code, const struct error *error)
{
    latch_set(user, code, error);
}

/* What was begun when nobody waited for it, and rests for good: the connection lives, so that nothing is noticed. */
static void who_comes_to_wait_for_a_resting_request_gets_another(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    struct latch latch;
    const struct mirrors_request request = {.path = "blocks/ab/x", .size_limit = 1000, .accept = accept_content,
                                            .priority = PRIORITY_FILL, .done = fill_done, .user = &latch};
    uint64_t start_ms, won;

    (void)state;
    latch_init(&latch);
    read_often(mirrors, 32);
    won = statistics_of(mirrors, 0).hedges_won;
    liar_tell(&one, "x", "hang", 1);
    mirrors_fetch(mirrors, &request);
    start_ms = clock_ms();
    mirrors_hurry(mirrors, &latch);
    assert_int_equal(latch_wait(&latch, NULL), 0);
    assert_in_range(clock_ms() - start_ms, 1500, 8000);
    assert_int_equal(statistics_of(mirrors, 0).hedges_won, won + 1);
    mirrors_destroy(mirrors);
    latch_finish(&latch);
}

/* The first requests have not earned a second one yet: it is asked for as soon as others have. */
static void a_second_request_is_made_when_it_has_been_earned(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    struct latch latch;
    const struct mirrors_request request = {.path = "blocks/ab/x", .size_limit = 1000, .accept = accept_content,
                                            .priority = PRIORITY_READER, .done = fill_done, .user = &latch};
    uint64_t start_ms = clock_ms();

    (void)state;
    latch_init(&latch);
    liar_tell(&one, "x", "hang", 1);
    mirrors_fetch(mirrors, &request);
    while (liar_count(&one, "total") < 1 || clock_ms() - start_ms < 2500)
        usleep(10 * 1000);
    read_often(mirrors, 32);
    assert_int_equal(latch_wait(&latch, NULL), 0);
    assert_in_range(clock_ms() - start_ms, 2500, 10000);
    mirrors_destroy(mirrors);
    latch_finish(&latch);
}

static void readers_go_to_the_mirror_that_answers_soonest(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    long before;

    (void)state;
    read_often(mirrors, 16); /* for the allowance */
    liar_tell(&one, "x", "delay:1500", 0);
    while (!statistics_of(mirrors, 1).first_byte_us) /* the other one is found by a second request */
        read_often(mirrors, 1);
    read_often(mirrors, 5);
    before = liar_count(&one, "total");
    read_often(mirrors, 40);
    assert_true(liar_count(&one, "total") - before <= 10);
    assert_true(statistics_of(mirrors, 0).first_byte_us > statistics_of(mirrors, 1).first_byte_us);
    assert_true(statistics_of(mirrors, 1).slow_us > 0);
    mirrors_destroy(mirrors);
}

/* One is near, but lacks what is wanted, or is not there any more. */
static void the_quickest_is_one_that_gives_something(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;

    (void)state;
    liar_tell(&two, ".", "delay:80", 0);
    assert_int_equal(mirrors_first_byte_us(mirrors), 0);
    read_often(mirrors, 1);
    assert_true(mirrors_first_byte_us(mirrors) > 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(fetch(mirrors, "blocks/ab/only-two", 0, &error), 0);
    assert_true(mirrors_first_byte_us(mirrors) >= 80000);
    mirrors_destroy(mirrors);

    mirrors = make(20000, one.url, two.url);
    read_often(mirrors, 1);
    liar_kill(&one);
    read_often(mirrors, 1);
    assert_true(mirrors_first_byte_us(mirrors) >= 80000);
    mirrors_destroy(mirrors);
}

static void what_may_change_comes_from_the_origin(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    uint64_t before;
    struct error error;
    long asked;

    (void)state;
    liar_put(&one, "catalog.json", CONTENT, sizeof(CONTENT) - 1);
    liar_put(&two, "catalog.json", CONTENT, sizeof(CONTENT) - 1);
    liar_tell(&one, ".", "delay:60", 0);
    read_often(mirrors, 40);
    liar_reset(&two);
    before = statistics_of(mirrors, 1).hedges;
    for (int i = 0; i < 5; i++)
        assert_int_equal(fetch(mirrors, "catalog.json", 0, &error), 0);
    asked = liar_count(&two, "total"); /* on a busy machine somebody may wait a second, and ask again there */
    assert_true((uint64_t)asked <= statistics_of(mirrors, 1).hedges - before);
    mirrors_destroy(mirrors);
}

struct bulk {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int under_way;
    int failed;
};

static void bulk_done(void *user, int code, const struct error *error)
{
    struct bulk *bulk = user;

    (void)error;
    pthread_mutex_lock(&bulk->lock);
    bulk->under_way--;
    bulk->failed += code != 0;
    pthread_cond_signal(&bulk->changed);
    pthread_mutex_unlock(&bulk->lock);
}

/* COUNT requests, AT_ONCE of them at a time. */
static void fetch_bulk(struct mirrors *mirrors, const char *path, int count, int at_once)
{
    struct bulk bulk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

    for (int i = 0; i < count; i++) {
        pthread_mutex_lock(&bulk.lock);
        while (bulk.under_way == at_once)
            pthread_cond_wait(&bulk.changed, &bulk.lock);
        bulk.under_way++;
        pthread_mutex_unlock(&bulk.lock);
        mirrors_fetch(mirrors, &(struct mirrors_request){.path = path, .size_limit = 100000, .done = bulk_done,
                                                         .priority = PRIORITY_FILL, .user = &bulk});
    }
    pthread_mutex_lock(&bulk.lock);
    while (bulk.under_way)
        pthread_cond_wait(&bulk.changed, &bulk.lock);
    pthread_mutex_unlock(&bulk.lock);
    assert_int_equal(bulk.failed, 0);
}

static void bulk_work_is_spread_over_the_mirrors(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    char *block = calloc(1, 50000);

    (void)state;
    liar_put(&one, "blocks/cd/y", block, 50000);
    liar_put(&two, "blocks/cd/y", block, 50000);
    liar_tell(&one, "y", "delay:100", 0);
    liar_tell(&two, "y", "delay:100", 0);
    fetch_bulk(mirrors, "blocks/cd/y", 150, 16);
    assert_true(statistics_of(mirrors, 0).requests >= 15);
    assert_true(statistics_of(mirrors, 1).requests >= 15);
    assert_true(statistics_of(mirrors, 0).rate > 0);
    mirrors_destroy(mirrors);
    free(block);
}

static void a_dead_mirror_takes_little_of_the_bulk_work(void **state)
{
    char nobody[64];
    struct mirrors *mirrors;

    (void)state;
    snprintf(nobody, sizeof(nobody), "http://%s", LIAR_NOBODY);
    mirrors = make(20000, nobody, one.url);
    fetch_bulk(mirrors, "blocks/ab/x", 100, 8);
    assert_true(statistics_of(mirrors, 0).requests <= 10);
    assert_int_equal(statistics_of(mirrors, 0).state, MIRROR_UNREACHABLE);
    assert_string_equal(statistics_of(mirrors, 0).reason, "connection refused");
    mirrors_destroy(mirrors);
}

/* It is not asked before, also if the others do not have what is wanted. */
static void who_asks_for_rest_gets_it_though_no_other_helps(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    struct error error;

    (void)state;
    liar_tell(&two, "x", "status:404", 0);
    liar_tell(&one, "x", "retry-after:8", 1);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 1, &error), ERROR_UNAVAILABLE);
    assert_int_equal(statistics_of(mirrors, 0).state, MIRROR_RESTING);
    assert_in_range(statistics_of(mirrors, 0).state_ms, 1, 8000);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 1, &error), ERROR_UNAVAILABLE);
    assert_int_equal(liar_count(&one, "total"), 1);
    assert_in_range(read_once_ms(mirrors), 500, 20000);
    assert_int_equal(liar_count(&one, "total"), 2);
    mirrors_destroy(mirrors);
}

static void passwords_are_not_in_statistics(void **state)
{
    char url[128];
    struct mirrors *mirrors;

    (void)state;
    snprintf(url, sizeof(url), "http://someone:secret@%s", one.url + strlen("http://"));
    mirrors = make(20000, url, NULL);
    read_often(mirrors, 1);
    assert_null(strstr(statistics_of(mirrors, 0).url, "secret"));
    assert_int_equal(statistics_of(mirrors, 0).bytes, sizeof(CONTENT) - 1);
    mirrors_destroy(mirrors);
}

static void *read_in_background(void *user)
{
    struct error error;

    return fetch(user, "blocks/ab/x", 0, &error) ? user : NULL;
}

/* However long the network was away, a reader notices soon that it is back. */
static void a_lone_reader_notices_that_the_network_is_back(void **state)
{
    struct mirrors *mirrors = make(60000, one.url, NULL);
    pthread_t reader;
    uint64_t back_ms;
    void *failed;

    (void)state;
    read_often(mirrors, 1);
    liar_kill(&one);
    assert_int_equal(pthread_create(&reader, NULL, read_in_background, mirrors), 0);
    usleep(4000 * 1000); /* the outage */
    liar_restart(&one);
    back_ms = clock_ms();
    pthread_join(reader, &failed);
    assert_null(failed);
    assert_true(clock_ms() - back_ms < 20000);
    mirrors_destroy(mirrors);
}

#define test(function) cmocka_unit_test_setup(function, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_reader_does_not_wait_for_a_slow_answer),
        test(before_anything_is_known_a_second_is_waited),
        test(second_requests_are_few),
        test(a_wrong_second_answer_does_no_harm),
        test(nobody_waits_for_bulk_work),
        test(a_lone_mirror_is_asked_again_on_another_connection),
        test(who_comes_to_wait_for_a_resting_request_gets_another),
        test(a_second_request_is_made_when_it_has_been_earned),
        test(readers_go_to_the_mirror_that_answers_soonest),
        test(the_quickest_is_one_that_gives_something),
        test(what_may_change_comes_from_the_origin),
        test(bulk_work_is_spread_over_the_mirrors),
        test(a_dead_mirror_takes_little_of_the_bulk_work),
        test(who_asks_for_rest_gets_it_though_no_other_helps),
        test(passwords_are_not_in_statistics),
        test(a_lone_reader_notices_that_the_network_is_back),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
