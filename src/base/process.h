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
 * Start PATH with this process's streams and environment. It is killed if this process dies first. The caller waits
 * for PID_OUT.
 */
int process_start(const char *path, char *const *arguments, pid_t *pid_out, struct error *error);

#endif
