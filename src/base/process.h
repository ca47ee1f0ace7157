/*
 * Other programs: found, run to their end, or started; by argument lists, never
 * through a shell.
 */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/error.h"

/* Where programs of the system are, for those who need not mind the user's PATH. */
#define PROCESS_SYSTEM_PATH "/usr/sbin:/usr/bin:/sbin:/bin"

/* The first program NAME that can be run in the folders of SEARCH_PATH ("/usr/bin:/bin") into PATH. False: none. */
bool process_find(const char *search_path, const char *name, char path[PATH_MAX]);

/*
 * Run PATH with ARGUMENTS (NULL-terminated, the first is its name) to its end, with an empty standard input, in the C
 * locale. What it prints goes to OUTPUT (replaced; NULL: dropped), NUL-terminated behind its size. SYSTEM if it cannot
 * be started or ends with a status other than 0; the message then has what it said on standard error.
 */
int process_run(const char *path, const char *const *arguments, struct buffer *output, struct error *error);

/*
 * Run PATH as process_run does, but with this process's environment, for at most TIMEOUT_MS; then it and what it has
 * started in its process group are killed. What it prints on both streams goes to OUTPUT (replaced; NULL: dropped),
 * NUL-terminated behind its size. *STATUS_OUT: its exit status, or 128 and the signal that ended it. UNAVAILABLE: time
 * was up; SYSTEM: it cannot be started.
 */
int process_try(const char *path, const char *const *arguments, unsigned timeout_ms, struct buffer *output,
                int *status_out, struct error *error);

/*
 * Wait at most TIMEOUT_MS for the child PID to end, else kill it (its group too with GROUP) and wait a second more.
 * True and *STATUS_OUT (as in process_try): it ended by itself. One that even then does not end is left to the system.
 * A PID that was waited for before is not killed: it may be another process's.
 */
bool process_wait_within(pid_t pid, unsigned timeout_ms, bool group, int *status_out);

/*
 * What CALL returns (0 to 127), called in a child that has none of this process's descriptors but its streams. It may
 * use only what is safe after a fork. Negative: no child, or it was killed.
 */
int process_apart(int (*call)(const void *user), const void *user);

/*
 * Start PATH with this process's streams and environment. It is killed if this process dies first. The caller waits
 * for PID_OUT.
 */
int process_start(const char *path, char *const *arguments, pid_t *pid_out, struct error *error);

/*
 * Process PID as a descriptor, which stands for it when its number has gone to another one; poll finds it readable when
 * the process has ended. Negative, and errno says why: there is none, or the kernel is older than Linux 5.3.
 */
int process_open(pid_t pid);

/* kill(2) of the process that FD stands for. */
int process_signal(int fd, int number);

/* Does process PID have the file PATH open? False if it may not be known. */
bool process_holds(pid_t pid, const char *path);

/* A process that goes on when this one has ended. */
struct process_launch {
    char *const *environment; /* "NAME=VALUE", besides this process's; NULL-terminated, or NULL */
    const int *fds;           /* descriptors that it inherits under the same numbers, besides its streams */
    size_t fd_count;
    int output_fd;            /* its standard output and standard error; its input is empty */
};

/* As process_start, but in a session of its own, without the terminal. The caller may wait for PID_OUT. */
int process_launch(const char *path, char *const *arguments, const struct process_launch *launch, pid_t *pid_out,
                   struct error *error);

#endif
