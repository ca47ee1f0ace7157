/* Asking a mount: see inquiry.h. Who asks is a child, which is left behind when there is no answer. */
#include "cmd/inquiry.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/process.h"
#include "cmd/cmd.h"
#include "cmd/signals.h"
#include "serve/mountpoint.h"

void inquiry_keep_only(int fd)
{
    if (fd > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
}

int inquire(const char *path, const char *attribute, unsigned within_ms, char *text, size_t size)
{
    bool answered;
    int ends[2], status;
    pid_t child;

    if (pipe2(ends, O_CLOEXEC))
        return ERROR_UNAVAILABLE;
    child = signals_fork();
    if (child == 0) {
        struct statfs unused;
        /* The kernel knows a file's attributes after its server has died; the file system's it asks for each time. */
        ssize_t got;

        inquiry_keep_only(ends[1]); /* a lock that it kept as long as the server hangs would keep others */
        got = attribute ? getxattr(path, attribute, text, size - 1) : statfs(path, &unused);
        _exit(got >= 0 && write(ends[1], text, (size_t)got) == got ? EXIT_OK : EXIT_NOT_FOUND);
    }
    close(ends[1]);
    answered = child > 0 && process_wait_within(child, within_ms, false, &status);
    if (answered && attribute && (status != EXIT_OK || read(ends[0], text, size - 1) < 0))
        text[0] = '\0';
    close(ends[0]);
    if (!answered)
        return ERROR_UNAVAILABLE;
    return status == EXIT_OK ? 0 : ERROR_NOT_FOUND;
}

int inquiry_check(const char *path, const char *shown, struct error *error)
{
    if (inquire(path, NULL, INQUIRY_MS, NULL, 0) != ERROR_UNAVAILABLE)
        return 0;
    return error_set(error, ERROR_UNAVAILABLE,
                     "%s gives no answer: the process that serves it is stopped or hangs; once that is killed, "
                     "'circular umount' removes what it left", shown);
}
