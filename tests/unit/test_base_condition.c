/* Conditions with a deadline: until the time that was said, not before, and not after a signal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/condition.h"

struct fixture {
    pthread_mutex_t lock;
    pthread_cond_t condition;
    bool signalled;
};

static int set_up(void **state)
{
    static struct fixture fixture;

    fixture.signalled = false;
    pthread_mutex_init(&fixture.lock, NULL);
    condition_init(&fixture.condition);
    pthread_mutex_lock(&fixture.lock);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    pthread_mutex_unlock(&f->lock);
    pthread_cond_destroy(&f->condition);
    pthread_mutex_destroy(&f->lock);
    return 0;
}

static void a_wait_ends_at_its_time_and_not_before(void **state)
{
    struct fixture *f = *state;
    uint64_t us = clock_us() + 30000, ms = clock_ms() + 60;

    while (condition_wait_us(&f->condition, &f->lock, us))
        ; /* woken for nothing */
    assert_true(clock_us() >= us);
    while (condition_wait_ms(&f->condition, &f->lock, ms))
        ;
    assert_true(clock_ms() >= ms);
}

static void a_time_that_is_over_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    uint64_t begin = clock_ms();

    assert_false(condition_wait_us(&f->condition, &f->lock, clock_us()));
    assert_false(condition_wait_ms(&f->condition, &f->lock, clock_ms() - 1));
    assert_false(condition_wait_ms(&f->condition, &f->lock, 0));
    assert_true(clock_ms() - begin < 5000);
}

static void *signal_soon(void *user)
{
    struct fixture *f = user;

    clock_sleep_ms(20);
    pthread_mutex_lock(&f->lock);
    f->signalled = true;
    pthread_cond_signal(&f->condition);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* Longer than any clock says is without end. */
static void a_signal_ends_every_wait(void **state)
{
    struct fixture *f = *state;
    const uint64_t until_ms[] = {clock_ms() + 60000, UINT64_MAX / 1000 + 1, UINT64_MAX};
    pthread_t thread;

    for (size_t i = 0; i < 3; i++) {
        f->signalled = false;
        assert_int_equal(pthread_create(&thread, NULL, signal_soon, f), 0);
        while (!f->signalled)
            assert_true(condition_wait_ms(&f->condition, &f->lock, until_ms[i]));
        pthread_mutex_unlock(&f->lock);
        pthread_join(thread, NULL);
        pthread_mutex_lock(&f->lock);
    }
    assert_true(clock_ms() < until_ms[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_wait_ends_at_its_time_and_not_before, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_time_that_is_over_is_not_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_signal_ends_every_wait, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
