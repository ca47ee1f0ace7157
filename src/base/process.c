/* Other programs: see process.h. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define OUTPUT_MAX (16 * MIB)
#define WORDS_MAX  600
#define LOOK_MS    5
#define REAP_MS    1000 /* for a killed process to be gone; one that the kernel does not let go of stays */

bool process_find(const char *search_path, const char *name, char path[PATH_MAX])
{
    while (*search_path) {
        size_t length = strcspn(search_path, ":");

        if (length && snprintf(path, PATH_MAX, "%.*s/%s", (int)length, search_path, name) < PATH_MAX &&
            !access(path, X_OK))
            return true;
        search_path += length + (search_path[length] == ':');
    }
    return false;
}

static int spawn(const char *path, const char *const *arguments, int output, int words, pid_t *pid_out)
{
    char *environment[] = {(char[]){"LC_ALL=C"}, (char[]){"PATH=" PROCESS_SYSTEM_PATH}, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int result;

    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, words, STDERR_FILENO);
    result = posix_spawn(pid_out, path, &actions, &attributes, (char *const *)(uintptr_t)arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return result;
}

/* Append what can be read from FD now. False: that was all, or the end of what is kept. */
static bool drain(int fd, struct buffer *buffer)
{
    ssize_t got;

    if (!buffer_reserve(buffer, 4096) || buffer->size > OUTPUT_MAX)
        return false;
    got = read(fd, buffer->bytes + buffer->size, buffer->capacity - buffer->size - 1);
    if (got > 0)
        buffer->size += (size_t)got;
    buffer->bytes[buffer->size] = '\0';
    return got > 0 || (got < 0 && errno == EINTR);
}

/* Both pipes to their ends; a program that fills one of them is not left hanging. */
static void drain_both(int output_fd, struct buffer *output, int words_fd, struct buffer *words)
{
    struct pollfd polled[2] = {{.fd = output_fd, .events = POLLIN}, {.fd = words_fd, .events = POLLIN}};

    while (polled[0].fd >= 0 || polled[1].fd >= 0) {
        if (poll(polled, 2, -1) < 0)
            continue;
        if (polled[0].revents && !drain(output_fd, output))
            polled[0].fd = -1;
        if (polled[1].revents && !drain(words_fd, words))
            polled[1].fd = -1;
    }
}

static int status_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status_of(status);
}

/* The program's own words, in one line. */
static int tell_failure(const char *path, int status, struct buffer *words, struct error *error)
{
    const char *name = strrchr(path, '/');
    char *text = words->size ? (char *)words->bytes : NULL;

    while (text && words->size && text[words->size - 1] == '\n')
        text[--words->size] = '\0';
    for (char *at = text; at && (at = strchr(at, '\n'));)
        *at = ' ';
    return error_set(error, ERROR_SYSTEM, "%s ended with status %d%s%.*s", name ? name + 1 : path, status,
                     text ? ": " : "", WORDS_MAX, text ? text : "");
}

int process_run(const char *path, const char *const *arguments, struct buffer *output, struct error *error)
{
    cleanup(buffer_finish) struct buffer dropped = {0}, words = {0};
    int output_ends[2], words_ends[2], result, status;
    pid_t pid;

    if (pipe2(output_ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    if (pipe2(words_ends, O_CLOEXEC)) {
        result = error_set_errno(error, errno, "cannot make a pipe");
        close(output_ends[0]);
        close(output_ends[1]);
        return result;
    }
    if (output)
        output->size = 0;
    result = spawn(path, arguments, output_ends[1], words_ends[1], &pid);
    close(output_ends[1]);
    close(words_ends[1]);
    if (!result)
        drain_both(output_ends[0], output ? output : &dropped, words_ends[0], &words);
    close(output_ends[0]);
    close(words_ends[0]);
    if (result)
        return error_set_errno(error, result, "cannot start %s", path);
    status = wait_for(pid);
    return status ? tell_failure(path, status, &words, error) : 0;
}

/* In the child: only async-signal-safe calls, as other threads of the parent may have held any lock. */
static void become(const char *path, char *const *arguments, pid_t parent, int cause_fd)
{
    int cause = ESRCH;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) {
        execv(path, arguments);
        cause = errno;
    }
    if (write(cause_fd, &cause, sizeof(cause)) >= 0)
        raise(SIGKILL);
    raise(SIGKILL);
}

static void become_in_group(const char *path, char *const *arguments, pid_t parent, int output_fd, int cause_fd)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

    setpgid(0, 0);
    dup2(nothing, STDIN_FILENO);
    dup2(output_fd, STDOUT_FILENO);
    dup2(output_fd, STDERR_FILENO);
    become(path, arguments, parent, cause_fd);
}

/* With this process's streams, or (OUTPUT_FD not negative) in a process group of its own that writes there. */
static int start(const char *path, char *const *arguments, int output_fd, pid_t *pid_out, struct error *error)
{
    pid_t parent = getpid(), pid;
    int ends[2], cause = 0;
    ssize_t got;

    /* The pipe is closed by an exec that succeeds, and carries errno of one that fails. */
    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    pid = fork();
    if (pid == 0 && output_fd < 0)
        become(path, arguments, parent, ends[1]);
    else if (pid == 0)
        become_in_group(path, arguments, parent, output_fd, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], &cause, sizeof(cause))) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    if (pid < 0)
        return error_set_errno(error, errno, "cannot start %s", path);
    if (got > 0) {
        wait_for(pid);
        return error_set_errno(error, cause, "cannot start %s", path);
    }
    *pid_out = pid;
    return 0;
}

int process_start(const char *path, char *const *arguments, pid_t *pid_out, struct error *error)
{
    return start(path, arguments, -1, pid_out, error);
}

/* By number: the C library has names for these two calls since glibc 2.36. */
int process_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int process_signal(int fd, int number)
{
    return (int)syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
}

/* Milliseconds from now to DEADLINE_MS, for poll. */
static int time_left(uint64_t deadline_ms)
{
    uint64_t now = clock_ms();

    return deadline_ms > now ? (int)(deadline_ms - now) : 0;
}

/* True if PID has ended before the deadline; then *STATUS_OUT is filled. Without a descriptor (kernels before Linux
 * 5.3, valgrind) it is looked at again and again. */
static bool reap(pid_t pid, int process_fd, uint64_t deadline_ms, int *status_out)
{
    struct pollfd polled = {.fd = process_fd, .events = POLLIN};
    int status, left, result;

    do {
        left = time_left(deadline_ms);
        if (process_fd >= 0)
            poll(&polled, 1, left);
        else
            poll(NULL, 0, left < LOOK_MS ? left : LOOK_MS);
        result = waitpid(pid, &status, WNOHANG);
    } while (left > 0 && (result == 0 || (result < 0 && errno == EINTR)));
    *status_out = result == pid ? status_of(status) : -1;
    return result == pid;
}

/* Has nobody waited for the child PID yet? Only so long its number is its own. */
static bool is_child(pid_t pid)
{
    siginfo_t unused;

    return !waitid(P_PID, (id_t)pid, &unused, WEXITED | WNOHANG | WNOWAIT);
}

bool process_wait_within(pid_t pid, unsigned timeout_ms, bool group, int *status_out)
{
    auto_close int process_fd = -1;
    int dropped;

    if (pid <= 0)
        return false;
    process_fd = process_open(pid);
    if (reap(pid, process_fd, clock_ms() + timeout_ms, status_out))
        return true;
    if (!is_child(pid))
        return false;
    kill(group ? -pid : pid, SIGKILL);
    reap(pid, process_fd, clock_ms() + REAP_MS, &dropped);
    return false;
}

/* Its output until it closes it or time is up. */
static void drain_within(int fd, struct buffer *output, uint64_t deadline_ms)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    int left;

    while ((left = time_left(deadline_ms)) > 0) {
        int ready = poll(&polled, 1, left);

        if ((ready > 0 && !drain(fd, output)) || ready == 0)
            return;
    }
}

int process_try(const char *path, const char *const *arguments, unsigned timeout_ms, struct buffer *output,
                int *status_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer dropped = {0};
    uint64_t deadline_ms = clock_ms() + timeout_ms;
    int ends[2], result;
    pid_t pid = -1;

    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    if (output)
        output->size = 0;
    result = start(path, (char *const *)(uintptr_t)arguments, ends[1], &pid, error);
    close(ends[1]);
    if (!result) {
        drain_within(ends[0], output ? output : &dropped, deadline_ms);
        if (!process_wait_within(pid, (unsigned)time_left(deadline_ms), true, status_out))
            result = error_set(error, ERROR_UNAVAILABLE, "%s did not end in %u.%u s", path, timeout_ms / 1000,
                               timeout_ms % 1000 / 100);
    }
    close(ends[0]);
    return result;
}

int process_apart(int (*call)(const void *user), const void *user)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        close_range(STDERR_FILENO + 1, ~0U, 0);
        _Exit(call(user));
    }
    status = pid < 0 ? -1 : wait_for(pid);
    return status < 128 ? status : -1;
}
