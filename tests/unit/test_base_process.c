/* Processes that are held by a descriptor, so that a signal meets no other. Not under valgrind, which lacks the calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"

static void a_process_is_held_by_a_descriptor(void **state)
{
    struct pollfd polled = {.events = POLLIN};
    int status = 0;
    pid_t child;

    (void)state;
    assert_true(process_open(0) < 0 && errno == EINVAL);
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    polled.fd = process_open(child);
    assert_int_equal(poll(&polled, 1, 0), 0);
    assert_int_equal(process_signal(polled.fd, SIGTERM), 0);
    assert_int_equal(poll(&polled, 1, 10000), 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    assert_true(process_signal(polled.fd, SIGTERM) < 0 && errno == ESRCH);
    close(polled.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_is_held_by_a_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
