/* A program that outlives the one that starts it, and what other processes have open: see process.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/process.h"

bool process_holds(pid_t pid, const char *path)
{
    char folder[64];
    struct stat wanted, status;
    const struct dirent *entry;
    bool found = false;
    DIR *stream;

    if (stat(path, &wanted))
        return false;
    snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)pid);
    stream = opendir(folder);
    while (stream && !found && (entry = readdir(stream)))
        found = !fstatat(dirfd(stream), entry->d_name, &status, 0) && status.st_dev == wanted.st_dev &&
                status.st_ino == wanted.st_ino;
    if (stream)
        closedir(stream);
    return found;
}

/* Streams and inherited descriptors, in the child. Returns errno of what failed. */
static int set_descriptors(const struct process_launch *launch)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(launch->output_fd, STDOUT_FILENO) < 0 ||
        dup2(launch->output_fd, STDERR_FILENO) < 0)
        return errno;
    for (size_t i = 0; i < launch->fd_count; i++)
        if (fcntl(launch->fds[i], F_SETFD, 0))
            return errno;
    return 0;
}

/* In the child: only async-signal-safe calls, as other threads of the parent may have held any lock. */
static _Noreturn void become(const char *path, char *const *arguments, char *const *environment,
                             const struct process_launch *launch, int cause_fd)
{
    int cause;

    setsid();
    cause = set_descriptors(launch);
    if (!cause) {
        execve(path, arguments, environment);
        cause = errno;
    }
    _Exit(write(cause_fd, &cause, sizeof(cause)) == sizeof(cause) ? 127 : 126);
}

/* This process's environment with MORE before it, so that MORE counts. Heap; NULL: no memory. */
static char **join_environment(char *const *more)
{
    size_t count = 0, more_count = 0;
    char **joined;

    while (more && more[more_count])
        more_count++;
    while (environ[count])
        count++;
    joined = calloc(more_count + count + 1, sizeof(*joined));
    for (size_t i = 0; joined && i < more_count; i++)
        joined[i] = more[i];
    for (size_t i = 0; joined && i < count; i++)
        joined[more_count + i] = environ[i];
    return joined;
}

int process_launch(const char *path, char *const *arguments, const struct process_launch *launch, pid_t *pid_out,
                   struct error *error)
{
    auto_free char **environment = join_environment(launch->environment);
    int ends[2], cause = 0;
    ssize_t got;
    pid_t pid;

    if (!environment)
        return error_set(error, ERROR_SYSTEM, "no memory to start %s", path);
    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    pid = fork();
    if (pid == 0)
        become(path, arguments, environment, launch, ends[1]);
    close(ends[1]);
    /* The pipe is closed by an exec that succeeds, and carries errno of one that fails. */
    while (pid > 0 && (got = read(ends[0], &cause, sizeof(cause))) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    if (pid < 0)
        return error_set_errno(error, errno, "cannot start %s", path);
    if (got > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return error_set_errno(error, cause, "cannot start %s", path);
    }
    *pid_out = pid;
    return 0;
}
