/* The pace of requests, over links that exist only as arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "image/pace.h"

/*
 * Let requests run over a link with LATENCY_US that takes one answer in GAP_US, until COUNT answers have come; returns
 * how many requests are under way then.
 */
static unsigned run(struct pace *pace, uint64_t latency_us, uint64_t gap_us, unsigned count)
{
    uint64_t sent_us[64], due_us[64], now_us = 0, free_us = 0; /* of those under way, in rings */
    unsigned first = 0, last = 0;

    for (unsigned i = 0; i < count; i++) {
        while (last - first < pace->limit) {
            free_us = (free_us > now_us + latency_us ? free_us : now_us + latency_us) + gap_us;
            sent_us[last % 64] = now_us;
            due_us[last++ % 64] = free_us;
        }
        now_us = due_us[first % 64];
        pace_note(pace, now_us - sent_us[first++ % 64]);
    }
    return pace->limit;
}

static void a_long_link_gets_many(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 8, 32, 60);
    assert_in_range(run(&pace, 100000, 1800, 1000), 55, 60); /* takes 56 in a round trip */
}

static void a_slow_link_gets_few(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 8, 32, 60);
    assert_in_range(run(&pace, 50000, 35000, 1000), 8, 14);
}

static void a_short_link_is_not_flooded(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 8, 32, 60);
    assert_in_range(run(&pace, 200, 400, 2000), 8, 24);
}

static void a_link_that_has_become_faster_is_learned(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 8, 32, 60);
    assert_in_range(run(&pace, 50000, 35000, 500), 8, 14);
    assert_in_range(run(&pace, 50000, 500, 1000), 40, 60);
}

/* A step is never nothing, or it would stay with what is left on a slow link. */
static void a_link_of_few_requests_is_learned(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 1, 2, 60);
    assert_in_range(run(&pace, 5000, 35000, 500), 1, 7);
    assert_true(pace.cruising);
    assert_in_range(run(&pace, 50000, 500, 3000), 40, 60);
}

/* Also if one answer came so quickly that a part of its time is nothing. */
static void a_link_that_has_become_longer_is_learned(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 8, 32, 60);
    pace_note(&pace, 0);
    assert_in_range(run(&pace, 100000, 1800, 100000), 55, 60);
    assert_in_range(pace.quickest_us, 50000, 110000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_link_gets_many),
        cmocka_unit_test(a_slow_link_gets_few),
        cmocka_unit_test(a_short_link_is_not_flooded),
        cmocka_unit_test(a_link_that_has_become_faster_is_learned),
        cmocka_unit_test(a_link_of_few_requests_is_learned),
        cmocka_unit_test(a_link_that_has_become_longer_is_learned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
