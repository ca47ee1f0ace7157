/* Going into the background: a fork, and a pipe for the one byte that says "ready". */
#include "cmd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"

static int ready_fd = -1;

/* Exits with the status of the command: the child's, unless it goes on living. */
static _Noreturn void wait_in_parent(pid_t child, int fd)
{
    char byte;
    int status;
    ssize_t got;

    while ((got = read(fd, &byte, 1)) < 0 && errno == EINTR)
        ;
    if (got == 1)
        _exit(EXIT_OK);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status))
        _exit(WEXITSTATUS(status));
    fprintf(stderr, "circular: the background process was ended by a signal: %s\n", strsignal(WTERMSIG(status)));
    _exit(EXIT_SYSTEM);
}

int daemon_begin(struct error *error)
{
    int ends[2];
    pid_t child;

    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    fflush(NULL);
    child = fork();
    if (child < 0) {
        close(ends[0]);
        close(ends[1]);
        return error_set_errno(error, errno, "cannot start a background process");
    }
    if (child > 0) {
        close(ends[1]);
        wait_in_parent(child, ends[0]);
    }
    close(ends[0]);
    ready_fd = ends[1];
    return 0;
}

static void log_to_system(void *user, enum log_level level, const char *line)
{
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

    (void)user;
    syslog(priorities[level], "%s", line);
}

static void leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    fflush(NULL);
    for (int fd = 0; null >= 0 && fd <= 2; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    setsid();
}

void daemon_leave(const struct context *context)
{
    enum log_level levels[] = {LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG};

    openlog("circular", LOG_PID, LOG_DAEMON);
    log_set_sink(log_to_system, NULL, levels[context->verbose < 2 ? context->verbose : 2]);
    leave_terminal();
}

bool daemon_ready(const struct context *context)
{
    daemon_leave(context);
    /* Not before: whoever waits for the parent's end may also wait for the output to be closed. */
    if (write(ready_fd, "", 1) != 1)
        return false;
    close(ready_fd);
    ready_fd = -1;
    return true;
}
