/* A signal meets no process but the one that it is meant for. Not under valgrind, which lacks the calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
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

/* Its number may be another process's by now: only a child is killed, which keeps its number until it is waited for. */
static void only_children_are_killed(void **state)
{
    int words[2], status;
    char byte = 0;
    pid_t child, stranger;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, words), 0);
    child = fork();
    if (child == 0) {
        stranger = fork();
        if (stranger == 0) {
            stranger = getpid();
            if (write(words[1], &stranger, sizeof(stranger)) == sizeof(stranger) && read(words[1], &byte, 1) == 1)
                (void)!write(words[1], &byte, 1);
        }
        _exit(0);
    }
    close(words[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(read(words[0], &stranger, sizeof(stranger)), sizeof(stranger));
    assert_false(process_wait_within(stranger, 0, false, &status));
    assert_int_equal(send(words[0], "!", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(read(words[0], &byte, 1), 1); /* it lives */
    close(words[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_is_held_by_a_descriptor),
        cmocka_unit_test(only_children_are_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
