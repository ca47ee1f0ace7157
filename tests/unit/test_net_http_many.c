/* Many requests of the HTTP client at once: their order, their end, and that nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net_http_fixture.h"

static void many_run_at_once_but_not_too_many(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct tally tally = {0};

    (void)state;
    liar_tell(&liar, "big", "delay:20", 0);
    fetch_many(with, &tally, 100, PRIORITY_READER, NULL);
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 100);
    /* The server may count one as running when its answer is already here. */
    assert_in_range(liar_count(&liar, "most_parallel"), 4, 12);
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

/* Wait until LIAR has accepted COUNT connections more than BEFORE. Each question is one; they are not counted. */
static int64_t connections_since(int64_t before, int64_t count)
{
    static int64_t asked;
    uint64_t until_ms = clock_ms() + 30000;
    int64_t seen;

    if (!before)
        asked = 0;
    do
        seen = (int64_t)liar_count(&liar, "connections") - before - asked++;
    while (seen < count && clock_ms() < until_ms && !usleep(1000));
    return seen;
}

static void connections_are_opened_before_they_are_needed(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct answer answer;
    struct tally tally = {0};
    int64_t before;

    (void)state;
    liar_tell(&liar, "big", "delay:100", 0);
    before = connections_since(0, 0);
    begin(with, &(struct http_request){.more_soon = 5}, liar.url, "/small", &answer);
    assert_int_equal(finish(&answer), 0);
    assert_int_equal(connections_since(before, 6), 6);
    fetch_many(with, &tally, 6, PRIORITY_READER, NULL);
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 6);
    assert_true(liar_count(&liar, "most_parallel") >= 4);
    assert_int_equal(connections_since(before, 6), 7); /* the last question */
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

/* What is there, or under way, counts. */
static void connections_are_not_opened_beyond_the_limit(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct answer answers[2];
    struct tally tally = {0};
    int64_t before;

    (void)state;
    liar_tell(&liar, "big", "delay:20000", 0); /* so that their connections are not free again */
    before = connections_since(0, 0);
    fetch_many(with, &tally, 4, PRIORITY_READER, NULL);
    assert_int_equal(connections_since(before, 4), 4);
    for (size_t i = 0; i < 2; i++)
        begin(with, &(struct http_request){.more_soon = 7}, liar.url, "/small", &answers[i]);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(finish(&answers[i]), 0);
    assert_in_range(connections_since(before, 6), 6, 8);
    http_client_destroy(with);
    latch_finish(&tally.latch);
}

/* Nobody has said that the others are to be redirected, too. */
static void connections_are_not_opened_where_a_redirect_leads(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct liar other;
    struct answer answer;
    char redirect[100];
    int64_t before;

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    snprintf(redirect, sizeof(redirect), "redirect:%s/small", other.url);
    liar_tell(&liar, "small", redirect, 0);
    before = connections_since(0, 0);
    begin(with, &(struct http_request){.more_soon = 5}, liar.url, "/small", &answer);
    assert_int_equal(finish(&answer), 0);
    assert_int_equal(connections_since(before, 6), 6);
    assert_int_equal(liar_count(&other, "connections"), 2); /* the question is one */
    http_client_destroy(with);
    liar_finish(&other);
}

/* Begin a request and wait until it is there; the connection that it came by. */
static long begin_on(struct http_client *with, const struct http_request *request, const char *path,
                     struct answer *answer)
{
    long before = liar_count(&liar, "total");

    begin(with, request, liar.url, path, answer);
    while (liar_count(&liar, "total") == before)
        usleep(1000);
    return liar_count(&liar, "last_connection");
}

/* It could be idle for longer than the one that was used last. */
static void what_is_shared_goes_on_where_the_last_one_ended(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct answer oldest, shared, last, next;
    long connection;

    (void)state;
    liar_tell(&liar, "small", "delay:20000", 1);
    begin_on(with, &(struct http_request){0}, "/small", &oldest);
    liar_tell(&liar, "big", "hang", 1);
    begin_on(with, &(struct http_request){.shared = true}, "/big", &shared);
    liar_tell(&liar, "small", "slow:10", 1);
    connection = begin_on(with, &(struct http_request){.shared = true}, "/small", &last);
    liar_reset(&liar); /* an end to the delay */
    assert_int_equal(finish(&oldest), 0);
    assert_int_equal(finish(&last), 0);
    assert_int_equal(begin_on(with, &(struct http_request){.shared = true}, "/small", &next), connection);
    assert_int_equal(finish(&next), 0);
    http_client_destroy(with);
    assert_int_equal(finish(&shared), ERROR_CANCELLED);
}

static void a_reader_passes_the_background(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct tally tally = {0};
    struct answer answer;
    uint64_t start_ms;

    (void)state;
    liar_tell(&liar, "big", "delay:20000", 0);
    fetch_many(with, &tally, 200, PRIORITY_FILL, NULL);
    while (liar_count(&liar, "total") < 4)
        usleep(1000);
    start_ms = clock_ms();
    assert_int_equal(get(with, liar.url, "/small", &answer), 0);
    assert_true(clock_ms() - start_ms < 9000); /* no time-out was waited for */
    assert_int_equal(tally.left, 200);
    assert_in_range(liar_count(&liar, "total"), 5, 6); /* of eight places */
    http_client_destroy(with);
    assert_int_equal(tally.cancelled, 200);
    latch_finish(&tally.latch);
}

static void without_readers_no_place_is_kept_for_them(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8, .no_readers = true});
    struct tally tally = {0};
    uint64_t until_ms = clock_ms() + 30000;

    (void)state;
    liar_tell(&liar, "big", "delay:20000", 0);
    fetch_many(with, &tally, 20, PRIORITY_FILL, NULL);
    while (liar_count(&liar, "total") < 8 && clock_ms() < until_ms)
        usleep(1000);
    assert_int_equal(liar_count(&liar, "total"), 8);
    http_client_destroy(with);
    latch_finish(&tally.latch);
}

static void a_stalled_host_does_not_hold_up_another(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 4});
    struct tally tally = {0};
    struct liar other;
    struct answer answer;
    uint64_t start_ms;

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    start_ms = clock_ms();
    liar_tell(&liar, "big", "hang", 0);
    fetch_many(with, &tally, 50, PRIORITY_READER, NULL);
    assert_int_equal(get(with, other.url, "/small", &answer), 0);
    assert_true(clock_ms() - start_ms < 8000); /* no time-out was waited for */
    http_client_destroy(with);
    assert_int_equal(tally.cancelled, 50);
    latch_finish(&tally.latch);
    liar_finish(&other);
}

/* Without this, each would wait for its own turn to find out. */
static void who_queues_for_a_silent_host_is_told_soon(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 4, .stall_timeout_ms = 400});
    struct tally tally = {0};
    uint64_t start_ms = clock_ms();

    (void)state;
    liar_tell(&liar, "big", "hang", 0);
    fetch_many(with, &tally, 50, PRIORITY_READER, NULL);
    latch_wait(&tally.latch, NULL);
    assert_true(clock_ms() - start_ms >= 400);
    assert_in_range(liar_count(&liar, "total"), 0, 24); /* six turns of thirteen */
    assert_int_equal(tally.good + tally.cancelled, 0);
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

static void an_owner_s_requests_can_be_cancelled(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct tally mine = {0}, others = {0};

    (void)state;
    liar_tell(&liar, "big", "delay:20000", 0); /* nothing is over before it is cancelled */
    fetch_many(with, &mine, 50, PRIORITY_READER, &mine);
    fetch_many(with, &others, 20, PRIORITY_READER, &others);
    while (liar_count(&liar, "total") < 4)
        usleep(1000);
    http_cancel(with, &mine);
    assert_int_equal(mine.left, 0);
    assert_int_equal(mine.cancelled, 50);
    liar_reset(&liar);
    latch_wait(&others.latch, NULL);
    assert_int_equal(others.good, 20);
    latch_finish(&mine.latch);
    latch_finish(&others.latch);
    http_client_destroy(with);
}

static void the_rate_is_kept(void **state)
{
    struct http_client *with = make(&(struct http_settings){.rate_limit = 800000, .stall_timeout_ms = 1500});
    struct tally tally = {0};
    uint64_t start_ms = clock_ms();

    (void)state;
    fetch_many(with, &tally, 8, PRIORITY_FILL, NULL); /* 2.4 MB */
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 8);
    /* Not faster, and though each waits for its turn, none counts as stalled. */
    assert_in_range(clock_ms() - start_ms, 2500, 30000);
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

/* ---- Ending ---- */

static void destroying_cancels_everything(void **state)
{
    static const char *const behaviours[] = {"hang", "stall", "delay:50", "slow:1000"};

    (void)state;
    for (size_t i = 0; i < sizeof(behaviours) / sizeof(behaviours[0]); i++) {
        struct http_client *with = make(&(struct http_settings){0});
        struct tally tally = {0};
        uint64_t start_ms;

        liar_reset(&liar);
        liar_tell(&liar, "big", behaviours[i], 0);
        fetch_many(with, &tally, 100, PRIORITY_READER, NULL);
        while (liar_count(&liar, "total") < 10)
            usleep(1000);
        start_ms = clock_ms();
        http_client_destroy(with);
        assert_int_equal(tally.left, 0);
        assert_true(clock_ms() - start_ms < 9000); /* no time-out was waited for */
        latch_finish(&tally.latch);
    }
}

/* A callback may ask for more. */
struct chain {
    int left;
    char url[100];
    struct latch latch;
};

static void on_link(void *user, const struct http_response *response)
{
    struct chain *chain = user;

    assert_int_equal(response->code, 0);
    if (--chain->left == 0)
        latch_set(&chain->latch, 0, NULL);
    else
        http_fetch(client, &(struct http_request){.url = chain->url, .done = on_link, .user = chain});
}

static void a_callback_may_ask_for_more(void **state)
{
    struct chain chain = {.left = 50};

    (void)state;
    latch_init(&chain.latch);
    snprintf(chain.url, sizeof(chain.url), "%s/small", liar.url);
    http_fetch(client, &(struct http_request){.url = chain.url, .done = on_link, .user = &chain});
    latch_wait(&chain.latch, NULL);
    latch_finish(&chain.latch);
}

#define test(function) cmocka_unit_test_setup(function, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(many_run_at_once_but_not_too_many),
        test(connections_are_opened_before_they_are_needed),
        test(connections_are_not_opened_beyond_the_limit),
        test(connections_are_not_opened_where_a_redirect_leads),
        test(what_is_shared_goes_on_where_the_last_one_ended),
        test(a_reader_passes_the_background),
        test(without_readers_no_place_is_kept_for_them),
        test(a_stalled_host_does_not_hold_up_another),
        test(who_queues_for_a_silent_host_is_told_soon),
        test(an_owner_s_requests_can_be_cancelled),
        test(the_rate_is_kept),
        test(destroying_cancels_everything),
        test(a_callback_may_ask_for_more),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
