/* Progress: a bar on a terminal, plain lines elsewhere, nothing if quiet, and Ctrl-C asks the job to stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "cmd/options.h"

/* Standard error is given to what is tested, and taken back. */
struct capture {
    int reader, saved;
    char text[65536];
    size_t size;
};

static void capture_begin(struct capture *capture, bool terminal)
{
    struct winsize size = {.ws_row = 24, .ws_col = 100};
    int ends[2];

    capture->size = 0;
    if (terminal)
        assert_int_equal(openpty(&ends[0], &ends[1], NULL, NULL, &size), 0);
    else
        assert_int_equal(pipe(ends), 0);
    capture->reader = ends[0];
    capture->saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    fcntl(capture->reader, F_SETFL, O_NONBLOCK);
}

static void capture_read(struct capture *capture)
{
    ssize_t got = read(capture->reader, capture->text + capture->size, sizeof(capture->text) - capture->size - 1);

    if (got > 0)
        capture->size += (size_t)got;
    capture->text[capture->size] = '\0';
}

static void capture_end(struct capture *capture)
{
    capture_read(capture);
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    close(capture->reader);
}

/* A job of 1 GiB of which a MiB is done every few milliseconds, until PATTERN was printed or MS are over. */
static void work_until(struct progress *progress, struct capture *capture, const char *pattern, uint64_t ms)
{
    uint64_t end = clock_ms() + ms, done = 100 * MIB;

    while (clock_ms() < end && !(pattern && strstr(capture->text, pattern))) {
        assert_true(progress_update(progress, done, GIB));
        if (done < 500 * MIB)
            done += MIB;
        poll(NULL, 0, 5);
        capture_read(capture);
    }
    if (pattern)
        assert_non_null(strstr(capture->text, pattern));
}

static void a_terminal_gets_a_bar(void **state)
{
    struct client_options client = {.insecure = true};
    struct context context = {.client = &client};
    struct capture capture = {0};
    struct progress *progress;

    (void)state;
    capture_begin(&capture, true);
    progress = progress_begin(&context, "pulling");
    work_until(progress, &capture, " left", 10000);
    progress_end(progress);
    capture_end(&capture);
    assert_non_null(strstr(capture.text, "\rpulling (insecure) [###"));
    assert_non_null(strstr(capture.text, " MiB of 1.0 GiB  "));
    assert_non_null(strstr(capture.text, "/s  0:"));
    assert_null(strchr(capture.text, '\n'));
    assert_string_equal(capture.text + capture.size - 4, "\r\033[K"); /* nothing is left on the line */
}

static void a_file_gets_plain_lines(void **state)
{
    struct context context = {0};
    struct capture capture = {0};
    struct progress *progress;

    (void)state;
    capture_begin(&capture, false);
    progress = progress_begin(&context, "pulling");
    work_until(progress, &capture, "\n", 20000);
    progress_end(progress);
    capture_end(&capture);
    assert_true(!strncmp(capture.text, "circular: pulling: ", 19));
    assert_non_null(strstr(capture.text, "MiB of 1.0 GiB"));
    assert_null(strchr(capture.text, '\r'));
    assert_null(strchr(capture.text, '\033'));
}

static void quiet_is_quiet(void **state)
{
    struct context context = {.quiet = true};
    struct capture capture = {0};
    struct progress *progress;

    (void)state;
    capture_begin(&capture, true);
    progress = progress_begin(&context, "pulling");
    work_until(progress, &capture, NULL, 500);
    progress_end(progress);
    capture_end(&capture);
    assert_int_equal(capture.size, 0);
}

static void an_interrupt_asks_the_job_to_stop(void **state)
{
    struct context context = {.quiet = true};
    struct sigaction action;
    struct progress *progress;

    (void)state;
    progress = progress_begin(&context, "pulling");
    assert_true(progress_update(progress, 1, 2));
    raise(SIGINT);
    assert_false(progress_update(progress, 1, 2));
    sigaction(SIGINT, NULL, &action);
    assert_true(action.sa_handler == SIG_DFL); /* the second one ends the program */
    progress_end(progress);
    progress = progress_begin(&context, "writing");
    assert_false(progress_update(progress, 1, 2)); /* what comes after the job is to stop too */
    progress_end(progress);
    progress_end(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_terminal_gets_a_bar),
        cmocka_unit_test(a_file_gets_plain_lines),
        cmocka_unit_test(quiet_is_quiet),
        cmocka_unit_test(an_interrupt_asks_the_job_to_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
