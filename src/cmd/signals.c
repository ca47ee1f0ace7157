/* Signals as a descriptor: handlers that write to a pipe. No signal is blocked, as any thread may take it. */
#include "cmd/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

static int pipe_end = -1; /* written by handlers */

static void on_signal(int number)
{
    int saved = errno;
    char byte = (char)number;

    /* A full pipe has signals enough. */
    if (write(pipe_end, &byte, 1) < 0)
        errno = saved;
    errno = saved;
}

int signals_open(struct error *error)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return error_set_errno(error, errno, "cannot wait for signals");
    pipe_end = ends[1];
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    return ends[0];
}

/* In a child: they end this process again. */
static void signals_reset(void)
{
    if (pipe_end < 0)
        return;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    pipe_end = -1;
}

pid_t signals_fork(void)
{
    sigset_t ours, before;
    pid_t child;

    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, &before);
    child = fork();
    if (child == 0)
        signals_reset();
    sigprocmask(SIG_SETMASK, &before, NULL);
    return child;
}

int signals_add(int number)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    return sigaction(number, &action, NULL);
}

int signals_wait(int signals_fd, int other_fd)
{
    struct pollfd polled[2] = {{.fd = signals_fd, .events = POLLIN}, {.fd = other_fd, .events = POLLIN}};

    return signals_wait_among(polled, 2, -1);
}

int signals_wait_among(struct pollfd *polled, nfds_t count, int timeout_ms)
{
    char number;

    for (;;) {
        int ready = poll(polled, count, timeout_ms);

        if (ready < 0)
            continue;
        if (polled[0].revents && read(polled[0].fd, &number, 1) == 1)
            return number;
        if (ready > (polled[0].revents != 0) || !ready)
            return 0;
    }
}
