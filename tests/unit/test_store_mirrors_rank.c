/* Which mirror is asked next, from what was measured: pure functions over made-up traffic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/mirrors_rank.h"

#define ALL(count) ((UINT32_C(1) << (count)) - 1)
#define MS UINT64_C(1000)
#define KB UINT64_C(1000)

/* A mirror of the simulation: requests are served one after the other at RATE, each after a latency. */
struct server {
    uint64_t latency_us, rate;
    uint64_t busy_until_us;
    uint64_t served;
    struct measure measure;
};

struct flying {
    unsigned server;
    uint64_t sent_us, first_us, done_us;
};

enum { SERVERS = 3, WINDOW = 24 };
#define SIZE UINT64_C(64000)

static void send(struct server *servers, unsigned count, struct flying *flying, uint64_t now_us)
{
    const struct measure *measures[SERVERS];
    struct server *server;

    for (unsigned i = 0; i < count; i++)
        measures[i] = &servers[i].measure;
    flying->server = rank_choose(measures, count, ALL(count), RANK_BULK, SIZE);
    server = &servers[flying->server];
    flying->sent_us = now_us;
    flying->first_us = now_us + server->latency_us;
    if (server->busy_until_us > flying->first_us)
        flying->first_us = server->busy_until_us;
    server->busy_until_us = flying->done_us = flying->first_us + SIZE * 1000000 / server->rate;
    measure_begin(&server->measure, SIZE, now_us);
}

/* Bulk work with WINDOW requests at once for DURATION_US from *NOW_US. */
static void simulate(struct server *servers, unsigned count, uint64_t *now_us, uint64_t duration_us)
{
    struct flying flying[WINDOW];
    uint64_t end_us = *now_us + duration_us;

    for (unsigned i = 0; i < count; i++)
        servers[i].served = 0;
    for (unsigned i = 0; i < WINDOW; i++)
        send(servers, count, &flying[i], *now_us);
    while (*now_us < end_us) {
        struct flying *next = &flying[0];

        for (unsigned i = 1; i < WINDOW; i++)
            if (flying[i].done_us < next->done_us)
                next = &flying[i];
        *now_us = next->done_us;
        servers[next->server].served += SIZE;
        measure_end(&servers[next->server].measure,
                    &(struct measured){.size = SIZE, .bytes = SIZE, .first_byte_us = next->first_us - next->sent_us,
                                       .total_us = *now_us - next->sent_us, .answered = true}, *now_us);
        send(servers, count, next, *now_us);
    }
    for (unsigned i = 0; i < WINDOW; i++)
        measure_end(&servers[flying[i].server].measure, &(struct measured){.size = SIZE}, *now_us);
}

static void answer(struct measure *measure, uint64_t first_byte_us, uint64_t now_us)
{
    measure_begin(measure, 1000, now_us - first_byte_us);
    measure_end(measure, &(struct measured){.size = 1000, .bytes = 1000, .first_byte_us = first_byte_us,
                                            .total_us = first_byte_us, .reader = true, .answered = true}, now_us);
}

static void the_order_given_counts_before_anything_is_measured(void **state)
{
    struct measure a = {0}, b = {0};
    const struct measure *measures[] = {&a, &b};

    (void)state;
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 0);
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_BULK, 1000), 0);
    assert_int_equal(rank_choose(measures, 2, 2, RANK_BULK, 1000), 1);
    /* One that answers is better than one that nobody knows. */
    answer(&b, 30 * MS, 1000000);
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 1);
}

static void demand_goes_where_it_is_answered_soonest(void **state)
{
    struct measure a = {0}, b = {0};
    const struct measure *measures[] = {&a, &b};

    (void)state;
    for (int i = 0; i < 20; i++) {
        answer(&a, 100 * MS, 1000000 + (uint64_t)i);
        answer(&b, 20 * MS, 1000000 + (uint64_t)i);
    }
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 1);
    /* It changes when they do. */
    for (int i = 0; i < 40; i++)
        answer(&b, 400 * MS, 2000000 + (uint64_t)i);
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 0);
}

static void a_small_difference_does_not_change_the_order(void **state)
{
    struct measure a = {0}, b = {0};
    const struct measure *measures[] = {&a, &b};

    (void)state;
    for (int i = 0; i < 20; i++) {
        answer(&a, 1200, 1000000 + (uint64_t)i);
        answer(&b, 300, 1000000 + (uint64_t)i);
    }
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 0);
}

static void size_counts_where_the_rate_is_known(void **state)
{
    struct measure near = {.first_byte_us = 5 * MS, .least_us = 5 * MS, .rate = 100 * KB};
    struct measure far = {.first_byte_us = 100 * MS, .least_us = 100 * MS, .rate = 10000 * KB};
    const struct measure *measures[] = {&near, &far};

    (void)state;
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 0);
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000000), 1);
}

static void who_often_lacks_the_block_is_asked_later(void **state)
{
    struct measure near = {.first_byte_us = 50 * MS, .least_us = 50 * MS}, far = {.first_byte_us = 90 * MS};
    const struct measure *measures[] = {&near, &far};

    (void)state;
    for (int i = 0; i < 20; i++) {
        measure_begin(&near, 1000, 1000000);
        measure_end(&near, &(struct measured){.size = 1000, .first_byte_us = 50 * MS, .total_us = 50 * MS,
                                              .answered = true, .missing = true}, 1000000);
    }
    assert_int_equal(rank_choose(measures, 2, ALL(2), RANK_DEMAND, 1000), 1);
}

/* Servers whose rates are a known proportion get about that proportion of the bytes. */
static void bulk_is_spread_in_proportion_to_the_rates(void **state)
{
    struct server servers[] = {{.latency_us = 20 * MS, .rate = 4000 * KB}, {.latency_us = 20 * MS, .rate = 1000 * KB}};
    uint64_t now_us = 1000000;

    (void)state;
    simulate(servers, 2, &now_us, 10 * 1000 * MS);
    simulate(servers, 2, &now_us, 10 * 1000 * MS);
    /* Both are used to their limit. */
    assert_in_range(servers[0].served, 36000 * KB, 40100 * KB);
    assert_in_range(servers[1].served, 9000 * KB, 10100 * KB);
}

static void a_mirror_far_away_has_its_share(void **state)
{
    struct server servers[] = {{.latency_us = 5 * MS, .rate = 1000 * KB}, {.latency_us = 200 * MS, .rate = 4000 * KB}};
    uint64_t now_us = 1000000;

    (void)state;
    simulate(servers, 2, &now_us, 10 * 1000 * MS);
    simulate(servers, 2, &now_us, 10 * 1000 * MS);
    assert_in_range(servers[1].served, 24000 * KB, 40100 * KB);
    assert_in_range(servers[0].served, 5000 * KB, 10100 * KB);
}

static void shares_follow_the_rates_when_they_change(void **state)
{
    struct server servers[] = {{.latency_us = 20 * MS, .rate = 4000 * KB}, {.latency_us = 20 * MS, .rate = 500 * KB}};
    uint64_t now_us = 1000000;

    (void)state;
    simulate(servers, 2, &now_us, 5 * 1000 * MS);
    servers[0].rate = 500 * KB;
    servers[1].rate = 4000 * KB;
    simulate(servers, 2, &now_us, 10 * 1000 * MS);
    simulate(servers, 2, &now_us, 10 * 1000 * MS);
    assert_in_range(servers[1].served, 32000 * KB, 40100 * KB);
}

static void the_95th_percentile_of_waits(void **state)
{
    struct measure measure = {0};

    (void)state;
    for (uint64_t i = 1; i < RANK_WAITS_MIN; i++) {
        answer(&measure, i * MS, 1000000 + i);
        assert_int_equal(measure_slow_us(&measure), 0);
    }
    answer(&measure, 8 * MS, 1000000);
    assert_int_equal(measure_slow_us(&measure), 8 * MS);
    for (uint64_t i = 64; i >= 1; i--)
        answer(&measure, i * MS, 1000000);
    assert_int_equal(measure_slow_us(&measure), 61 * MS); /* three of 64 are longer */
    for (uint64_t i = 0; i < RANK_WAITS; i++)
        answer(&measure, 7 * MS, 1000000);
    assert_int_equal(measure_slow_us(&measure), 7 * MS); /* those of long ago are forgotten */
}

static void an_idle_mirror_is_worth_a_probe(void **state)
{
    struct measure a = {0}, b = {0};
    const struct measure *measures[] = {&a, &b};

    (void)state;
    answer(&a, 1 * MS, 50000 * MS);
    assert_int_equal(rank_stale(measures, 2, ALL(2), 50000), 1); /* never measured */
    answer(&b, 1 * MS, 51000 * MS);
    assert_int_equal(rank_stale(measures, 2, ALL(2), 52000), -1);
    assert_int_equal(rank_stale(measures, 2, ALL(2), 50000 + RANK_STALE_MS), 0);
    measure_begin(&a, 1, 70000 * MS);
    assert_int_equal(rank_stale(measures, 2, 1, 90000), -1); /* it is under way */
}

static void extra_requests_are_a_sixteenth_at_most(void **state)
{
    struct allowance allowance = {0};
    unsigned spent = 0;

    (void)state;
    for (int i = 0; i < 1600; i++) {
        allowance_earn(&allowance);
        spent += allowance_spend(&allowance);
    }
    assert_int_equal(spent, 100);
    for (int i = 0; i < 100000; i++)
        allowance_earn(&allowance);
    for (spent = 0; allowance_spend(&allowance); spent++)
        ;
    assert_int_equal(spent, 4); /* a long quiet time is no licence for a burst */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_given_counts_before_anything_is_measured),
        cmocka_unit_test(demand_goes_where_it_is_answered_soonest),
        cmocka_unit_test(a_small_difference_does_not_change_the_order),
        cmocka_unit_test(size_counts_where_the_rate_is_known),
        cmocka_unit_test(who_often_lacks_the_block_is_asked_later),
        cmocka_unit_test(bulk_is_spread_in_proportion_to_the_rates),
        cmocka_unit_test(a_mirror_far_away_has_its_share),
        cmocka_unit_test(shares_follow_the_rates_when_they_change),
        cmocka_unit_test(the_95th_percentile_of_waits),
        cmocka_unit_test(an_idle_mirror_is_worth_a_probe),
        cmocka_unit_test(extra_requests_are_a_sixteenth_at_most),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
