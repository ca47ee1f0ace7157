/* The pool of threads: background jobs hold nobody up, and one that somebody waits for is not held up by them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/latch.h"
#include "base/workers.h"

#define THREADS 2

/* A job that says when it has begun, and ends when it may. */
struct task {
    struct job job; /* first */
    struct latch begun;
    struct latch may_end;
};

static void run(struct job *job)
{
    struct task *task = (struct task *)job;

    latch_set(&task->begun, 0, NULL);
    latch_wait(&task->may_end, NULL);
}

static void submit(struct workers *workers, struct task *task, enum priority priority)
{
    task->job.run = run;
    latch_init(&task->begun);
    latch_init(&task->may_end);
    workers_submit(workers, &task->job, priority);
}

static void end(struct task *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        latch_set(&tasks[i].may_end, 0, NULL);
}

static void finish(struct task *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        latch_finish(&tasks[i].begun);
        latch_finish(&tasks[i].may_end);
    }
}

/* As many background jobs as there are threads: a reader's runs beside them, and background jobs beside readers'. */
static void background_jobs_have_threads_of_their_own(void **state)
{
    struct task fill[THREADS], reader[THREADS];
    struct workers *workers;

    (void)state;
    assert_int_equal(workers_create(THREADS, &workers, NULL), 0);
    workers_set_background(workers);
    workers_set_background(workers);
    for (size_t i = 0; i < THREADS; i++)
        submit(workers, &fill[i], PRIORITY_FILL);
    for (size_t i = 0; i < THREADS; i++)
        submit(workers, &reader[i], PRIORITY_READER);
    for (size_t i = 0; i < THREADS; i++) {
        latch_wait(&fill[i].begun, NULL);
        latch_wait(&reader[i].begun, NULL);
    }
    end(fill, THREADS);
    end(reader, THREADS);
    workers_destroy(workers);
    finish(fill, THREADS);
    finish(reader, THREADS);
}

static void a_background_job_that_somebody_waits_for_is_run_at_once(void **state)
{
    struct task fill[THREADS + 3];
    struct workers *workers;

    (void)state;
    assert_int_equal(workers_create(THREADS, &workers, NULL), 0);
    workers_set_background(workers);
    for (size_t i = 0; i < THREADS + 3; i++)
        submit(workers, &fill[i], PRIORITY_FILL);
    for (size_t i = 0; i < THREADS; i++)
        latch_wait(&fill[i].begun, NULL);
    workers_hurry(workers, &fill[0].job); /* has begun */
    workers_hurry(workers, &fill[THREADS + 2].job); /* the last one */
    latch_wait(&fill[THREADS + 2].begun, NULL);
    workers_hurry(workers, &fill[THREADS].job);
    latch_wait(&fill[THREADS].begun, NULL);
    end(fill, THREADS + 3);
    workers_destroy(workers);
    latch_wait(&fill[THREADS + 1].begun, NULL);
    finish(fill, THREADS + 3);
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
            latch_wait(&fill[i].begun, NULL);
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
