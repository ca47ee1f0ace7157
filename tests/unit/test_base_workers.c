/* The pool of threads: background jobs hold nobody up, and one that somebody waits for is not held up by them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/latch.h"
#include "base/workers.h"

#define THREADS 2

/* A job that says when it has begun, and ends when it may. */
struct task {
    struct job job; /* first */
    atomic_bool has_begun;
    struct latch may_end;
};

static void run(struct job *job)
{
    struct task *task = (struct task *)job;

    task->has_begun = true;
    latch_wait(&task->may_end, NULL);
}

static void submit(struct workers *workers, struct task *task, enum priority priority)
{
    task->job.run = run;
    task->has_begun = false;
    latch_init(&task->may_end);
    workers_submit(workers, &task->job, priority);
}

/* TASK, one of TASKS, is run within ten seconds. */
static void assert_begun(const struct task *tasks, const struct task *task)
{
    uint64_t until = clock_ms() + 30000;

    while (!task->has_begun && clock_ms() < until)
        clock_sleep_ms(1);
    if (!task->has_begun)
        fail_msg("job %td is not run", task - tasks);
}

static void end(struct task *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        latch_set(&tasks[i].may_end, 0, NULL);
}

static void finish(struct task *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        latch_finish(&tasks[i].may_end);
}

/* As many background jobs as there are threads: a reader's runs beside them, and background jobs beside readers'. */
static void background_jobs_have_threads_of_their_own(void **state)
{
    struct task fill[3 * THREADS], reader[THREADS], later[THREADS];
    struct workers *workers;

    (void)state;
    assert_int_equal(workers_create(THREADS, &workers, NULL), 0);
    workers_set_background(workers);
    workers_set_background(workers);
    for (size_t i = 0; i < 3 * THREADS; i++)
        submit(workers, &fill[i], PRIORITY_FILL);
    for (size_t i = 0; i < THREADS; i++)
        submit(workers, &reader[i], PRIORITY_READER);
    for (size_t i = 0; i < THREADS; i++) {
        assert_begun(fill, &fill[i]);
        assert_begun(reader, &reader[i]);
    }
    /* Threads that have nothing else to do leave background jobs to the others. */
    end(reader, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        submit(workers, &later[i], PRIORITY_READER);
    for (size_t i = 0; i < THREADS; i++)
        assert_begun(later, &later[i]);
    end(later, THREADS);
    end(fill, 3 * THREADS);
    workers_destroy(workers);
    finish(fill, 3 * THREADS);
    finish(reader, THREADS);
    finish(later, THREADS);
}

static void a_background_job_that_somebody_waits_for_is_run_at_once(void **state)
{
    struct task fill[THREADS + 4];
    struct workers *workers;

    (void)state;
    assert_int_equal(workers_create(THREADS, &workers, NULL), 0);
    workers_set_background(workers);
    for (size_t i = 0; i < THREADS + 3; i++)
        submit(workers, &fill[i], PRIORITY_FILL);
    for (size_t i = 0; i < THREADS; i++)
        assert_begun(fill, &fill[i]);
    workers_hurry(workers, &fill[0].job); /* has begun */
    workers_hurry(workers, &fill[THREADS + 2].job); /* the last one */
    assert_begun(fill, &fill[THREADS + 2]);
    submit(workers, &fill[THREADS + 3], PRIORITY_FILL); /* it is the last one now */
    workers_hurry(workers, &fill[THREADS].job);
    assert_begun(fill, &fill[THREADS]);
    end(fill, THREADS + 4);
    assert_begun(fill, &fill[THREADS + 1]);
    assert_begun(fill, &fill[THREADS + 3]);
    workers_destroy(workers);
    finish(fill, THREADS + 4);
}

/* What is submitted before is run before the end, whoever runs it. */
static void nothing_is_lost_at_the_end(void **state)
{
    struct task fill[50];

    (void)state;
    for (int background = 0; background < 2; background++) {
        struct workers *workers;

        assert_int_equal(workers_create(THREADS, &workers, NULL), 0);
        for (size_t i = 0; i < 50; i++) {
            if (background && i == 25)
                workers_set_background(workers);
            submit(workers, &fill[i], PRIORITY_FILL);
        }
        end(fill, 50);
        workers_destroy(workers);
        for (size_t i = 0; i < 50; i++)
            assert_begun(fill, &fill[i]);
        finish(fill, 50);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(background_jobs_have_threads_of_their_own),
        cmocka_unit_test(a_background_job_that_somebody_waits_for_is_run_at_once),
        cmocka_unit_test(nothing_is_lost_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
