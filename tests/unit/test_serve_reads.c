/*
 * Reads under way: each request is answered exactly once, whoever comes first,
 * and a part that is here is not held up by one that does not come. The library
 * beneath is played by this test, which decides when each piece ends.
 */
#include "serve/reads.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define PIECES_MAX 64

/* What the library was asked for, and has not answered yet. */
struct asked {
    uint8_t *bytes;
    size_t size;
    uint64_t offset;
    void (*done)(void *user, ssize_t result, const struct circular_error *error);
    void *user;
};

static struct asked asked[PIECES_MAX];
static size_t asked_count;

void circular_pread_async(struct circular_disk *disk, void *bytes, size_t size, uint64_t offset,
                          void (*done)(void *user, ssize_t result, const struct circular_error *error), void *user)
{
    (void)disk;
    assert_true(asked_count < PIECES_MAX);
    asked[asked_count++] = (struct asked){bytes, size, offset, done, user};
}

static const struct read_source whole = {.node = 7};

/* A request as the host sees it. */
struct request {
    _Atomic int answers;
    int code;
    size_t size;
    uint8_t *bytes;
    struct read *watched;
    bool interrupt_at_once;
    pthread_mutex_t *lock; /* held while an interrupt is handled, as libfuse does */
};

static _Atomic int released;

static void host_watch(void *user, struct read *read)
{
    struct request *request = user;

    if (request->lock)
        pthread_mutex_lock(request->lock);
    request->watched = read;
    if (request->lock)
        pthread_mutex_unlock(request->lock);
    if (read && request->interrupt_at_once)
        reads_interrupt(read);
}

static void host_answer(void *user, int code, const void *bytes, size_t size)
{
    struct request *request = user;

    request->code = code;
    request->size = size;
    if (!code) {
        request->bytes = malloc(size);
        memcpy(request->bytes, bytes, size);
    }
    atomic_fetch_add(&request->answers, 1);
}

static void host_release(void *user, uint64_t node)
{
    (void)user;
    assert_int_equal(node, 7);
    atomic_fetch_add(&released, 1);
}

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 16));
}

static void end_piece(size_t index, int code)
{
    const struct asked *piece = &asked[index];
    struct circular_error error = {.code = code, .message = "made to fail"};

    for (size_t i = 0; i < piece->size; i++)
        piece->bytes[i] = byte_at(piece->offset + i);
    if (code)
        piece->done(piece->user, code, &error);
    else
        piece->done(piece->user, (ssize_t)piece->size, NULL);
}

static struct reads *begin(void)
{
    struct read_host host = {host_watch, host_answer, host_release, NULL};
    struct reads *reads;

    asked_count = 0;
    released = 0;
    assert_int_equal(reads_create(&host, &reads, NULL), 0);
    return reads;
}

static void end(struct reads *reads, int expected_releases)
{
    assert_true(reads_wait(reads, 1000));
    assert_int_equal(released, expected_releases);
    reads_stop(reads);
    reads_destroy(reads);
}

static void expect_bytes(struct request *request, uint64_t offset, size_t size)
{
    assert_int_equal(request->answers, 1);
    assert_int_equal(request->code, 0);
    assert_int_equal(request->size, size);
    for (size_t i = 0; i < size; i++)
        if (request->bytes[i] != byte_at(offset + i))
            fail_msg("byte %zu is wrong", i);
    free(request->bytes);
}

static void a_read_is_cut_at_blocks_and_answered_when_all_is_here(void **state)
{
    struct reads *reads = begin();
    struct request request = {0};

    (void)state;
    reads_start(reads, &request, &whole, 200000, 60000, true);
    assert_int_equal(asked_count, 4);
    assert_int_equal(asked[0].size, PIECE_SIZE - 60000);
    for (size_t i = 1; i < asked_count; i++)
        assert_int_equal(asked[i].offset % PIECE_SIZE, 0);
    end_piece(2, 0);
    end_piece(0, 0);
    end_piece(3, 0);
    assert_int_equal(request.answers, 0);
    end_piece(1, 0);
    expect_bytes(&request, 60000, 200000);
    end(reads, 1);
}

static void the_largest_read_fits(void **state)
{
    struct reads *reads = begin();
    struct request request = {0};

    (void)state;
    reads_start(reads, &request, &whole, READ_SIZE_MAX, 1, true);
    assert_int_equal(asked_count, READ_SIZE_MAX / PIECE_SIZE + 1);
    for (size_t i = 0; i < asked_count; i++)
        end_piece(i, 0);
    expect_bytes(&request, 1, READ_SIZE_MAX);
    end(reads, 1);
}

static void a_volume_in_pieces_is_read_where_they_lie(void **state)
{
    cleanup(extents_finish) struct extents extents = {0};
    struct read_source volume = {.node = 7, .extents = &extents};
    struct reads *reads = begin();
    struct request request = {0};

    (void)state;
    assert_true(extents_append(&extents, 8192, 8192, &(uint64_t){PIECE_SIZE - 4096}, 1));
    assert_true(extents_append(&extents, 16384, 4096, (uint64_t[]){1000000, 2000000}, 2));
    reads_start(reads, &request, &volume, 20480, 100, true);
    assert_int_equal(asked_count, 6);
    assert_int_equal(asked[0].offset, PIECE_SIZE - 3996);
    assert_int_equal(asked[1].offset, PIECE_SIZE);
    assert_int_equal(asked[2].offset, 1000000);
    assert_int_equal(asked[3].offset, 2000000);
    assert_int_equal(asked[4].offset, 1004096);
    assert_int_equal(asked[5].offset, 2004096);
    assert_int_equal(asked[5].size, 100);
    for (size_t i = asked_count; i-- > 0;)
        end_piece(i, 0);
    assert_int_equal(request.code, 0);
    for (size_t i = 0, at = 0; i < asked_count; at += asked[i++].size)
        for (size_t j = 0; j < asked[i].size; j++)
            assert_int_equal(request.bytes[at + j], byte_at(asked[i].offset + j));
    free(request.bytes);
    end(reads, 1);
}

static void one_bad_piece_fails_the_read_once(void **state)
{
    struct reads *reads = begin();
    struct request request = {0};

    (void)state;
    reads_start(reads, &request, &whole, 3 * PIECE_SIZE, 0, false);
    end_piece(0, 0);
    end_piece(1, ERROR_UNAVAILABLE);
    end_piece(2, ERROR_CORRUPT);
    assert_int_equal(request.answers, 1);
    assert_int_equal(request.code, ERROR_UNAVAILABLE);
    end(reads, 1);
}

static char last_line[2000];
static int line_count;

static void keep_line(void *user, enum log_level level, const char *line)
{
    (void)user;
    (void)level;
    line_count++;
    snprintf(last_line, sizeof(last_line), "%s", line);
}

static void failures_are_told_but_not_each_of_a_flood(void **state)
{
    struct reads *reads = begin();

    (void)state;
    line_count = 0;
    log_set_sink(keep_line, NULL, LOG_LEVEL_ERROR);
    for (int i = 0; i < 100; i++) {
        struct request request = {0};

        asked_count = 0;
        reads_start(reads, &request, &whole, 4096, 123456, false);
        end_piece(0, i ? ERROR_UNAVAILABLE : ERROR_CANCELLED);
        if (i == 0)
            assert_int_equal(line_count, 0);
        if (i == 1)
            assert_string_equal(last_line, "a read at 123456 failed: made to fail");
    }
    assert_in_range(line_count, 1, 10);
    log_set_sink(NULL, NULL, LOG_LEVEL_ERROR);
    end(reads, 100);
}

static void an_interrupt_answers_at_once_and_late_bytes_go_nowhere(void **state)
{
    struct reads *reads = begin();
    struct request first = {0}, second = {.interrupt_at_once = true}, third = {0};

    (void)state;
    reads_start(reads, &first, &whole, PIECE_SIZE, 0, true);
    reads_interrupt(first.watched);
    assert_int_equal(first.answers, 1);
    assert_int_equal(first.code, ERROR_CANCELLED);
    end_piece(0, 0);
    assert_int_equal(first.answers, 1);

    reads_start(reads, &second, &whole, PIECE_SIZE, 0, true);
    assert_int_equal(second.answers, 1);
    assert_int_equal(second.code, ERROR_CANCELLED);
    end_piece(1, 0);
    assert_int_equal(second.answers, 1);

    reads_start(reads, &third, &whole, PIECE_SIZE, PIECE_SIZE, true);
    end_piece(2, 0);
    expect_bytes(&third, PIECE_SIZE, PIECE_SIZE);
    assert_null(third.watched); /* was told that interrupts no longer matter */
    end(reads, 3);
}

static bool answered_within(struct request *request, uint64_t ms)
{
    uint64_t until = clock_ms() + ms;

    while (!atomic_load(&request->answers) && clock_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return atomic_load(&request->answers) != 0;
}

static void what_is_half_here_fails_early_only_for_those_who_may_ask_again(void **state)
{
    struct reads *reads = begin();
    struct request half = {0}, direct = {0}, nothing = {0};

    (void)state;
    reads_start(reads, &half, &whole, 2 * PIECE_SIZE, 0, true);
    reads_start(reads, &direct, &whole, 2 * PIECE_SIZE, 0, false);
    reads_start(reads, &nothing, &whole, 2 * PIECE_SIZE, 0, true);
    end_piece(0, 0);
    end_piece(2, 0);
    assert_true(answered_within(&half, 30000));
    assert_int_equal(half.code, ERROR_UNAVAILABLE);
    assert_false(answered_within(&direct, 100));
    assert_false(answered_within(&nothing, 1));
    end_piece(1, 0);
    assert_int_equal(half.answers, 1);
    end_piece(3, 0);
    expect_bytes(&direct, 0, 2 * PIECE_SIZE);
    end_piece(4, 0);
    end_piece(5, 0);
    expect_bytes(&nothing, 0, 2 * PIECE_SIZE);
    end(reads, 3);
}

static void *interrupt_main(void *user)
{
    struct request *request = user;

    pthread_mutex_lock(request->lock);
    if (request->watched)
        reads_interrupt(request->watched);
    pthread_mutex_unlock(request->lock);
    return NULL;
}

/* The two ends of a read at the same time, many times; ThreadSanitizer may watch. */
static void interrupts_and_results_race_for_one_answer(void **state)
{
    struct reads *reads = begin();
    int interrupted = 0;

    (void)state;
    for (int i = 0; i < 500; i++) {
        pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        struct request request = {.lock = &lock};
        pthread_t thread;

        asked_count = 0;
        reads_start(reads, &request, &whole, 4096, 0, true);
        assert_int_equal(pthread_create(&thread, NULL, interrupt_main, &request), 0);
        for (volatile int spin = 0; spin < i * 100; spin++)
            ;
        end_piece(0, 0);
        pthread_join(thread, NULL);
        assert_int_equal(request.answers, 1);
        interrupted += request.code != 0;
        free(request.bytes);
    }
    print_message("# %d of 500 were interrupted\n", interrupted);
    end(reads, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_is_cut_at_blocks_and_answered_when_all_is_here),
        cmocka_unit_test(the_largest_read_fits),
        cmocka_unit_test(a_volume_in_pieces_is_read_where_they_lie),
        cmocka_unit_test(one_bad_piece_fails_the_read_once),
        cmocka_unit_test(failures_are_told_but_not_each_of_a_flood),
        cmocka_unit_test(an_interrupt_answers_at_once_and_late_bytes_go_nowhere),
        cmocka_unit_test(what_is_half_here_fails_early_only_for_those_who_may_ask_again),
        cmocka_unit_test(interrupts_and_results_race_for_one_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
