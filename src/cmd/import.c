/*
 * Importing: qemu-img writes into a file of ours that has no name, so that
 * nothing is left over whatever happens to either process.
 */
#include "cmd/import.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "format/foreign.h"

#define STAT_BLOCK 512
#define OUTPUT_MAX 65536
#define OUTPUT_FD 9 /* of the image in qemu-img */
#define CHECK_LEAKED 3 /* what `qemu-img check` returns for clusters that nobody needs */
#define CHECK_UNSUPPORTED 63

static const struct foreign_format *recognise(int fd, uint64_t *missing_bytes_out)
{
    uint8_t head[FOREIGN_HEAD_SIZE], tail[FOREIGN_TAIL_SIZE];
    off_t end = lseek(fd, 0, SEEK_END);
    ssize_t head_size = file_pread_full(fd, head, sizeof(head), 0, NULL), tail_size = 0;
    uint64_t size = end < 0 ? 0 : (uint64_t)end, wanted;

    if (size >= FOREIGN_TAIL_SIZE)
        tail_size = file_pread_full(fd, tail, sizeof(tail), size - FOREIGN_TAIL_SIZE, NULL);
    head_size = head_size < 0 ? 0 : head_size;
    wanted = foreign_vdi_size(head, (size_t)head_size);
    *missing_bytes_out = wanted > size ? wanted - size : 0;
    return foreign_recognise(head, (size_t)head_size, tail, tail_size < 0 ? 0 : (size_t)tail_size);
}

/* Start qemu-img with its output in LOG and, if IMAGE is not -1, that as its descriptor OUTPUT_FD. */
static int start(char *const *arguments, int log, int image, pid_t *pid_out, struct error *error)
{
    posix_spawn_file_actions_t actions;
    int result;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, log, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, log, STDERR_FILENO);
    if (image >= 0)
        posix_spawn_file_actions_adddup2(&actions, image, OUTPUT_FD);
    result = posix_spawnp(pid_out, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (result == ENOENT)
        return error_set(error, ERROR_UNSUPPORTED, "reading it needs qemu-img, which is not installed (on Debian: "
                         "apt install qemu-utils)");
    return result ? error_set_errno(error, result, "cannot start qemu-img") : 0;
}

/* Wait for PID; while it works, say how much of IMAGE (may be -1) is there. */
static int await(pid_t pid, int image, const struct progress *progress, int *status_out, struct error *error)
{
    auto_close int handle = process_open(pid);
    struct pollfd waiting = {.fd = handle, .events = POLLIN};
    bool cancelled = false;
    struct stat now;

    while (handle >= 0 && poll(&waiting, 1, 200) == 0) {
        uint64_t done = image >= 0 && !fstat(image, &now) ? (uint64_t)now.st_blocks * STAT_BLOCK : 0;

        if (!cancelled && !progress_update(progress, done, 0)) {
            cancelled = true;
            kill(pid, SIGTERM);
        }
    }
    while (waitpid(pid, status_out, 0) < 0)
        if (errno != EINTR)
            return error_set_errno(error, errno, "cannot wait for qemu-img");
    /* Ctrl-C on the terminal reaches qemu-img as well, and may end it before us. */
    cancelled = cancelled || !progress_update(progress, 0, 0);
    return cancelled ? error_set(error, ERROR_CANCELLED, "converting was broken off; nothing was published") : 0;
}

/* Run qemu-img; its output, NUL-terminated, in TEXT (OUTPUT_MAX bytes). Returns its exit status or an error code. */
static int run(char *const *arguments, int image, const struct progress *progress, char *text, struct error *error)
{
    auto_close int log = memfd_create("qemu-img", MFD_CLOEXEC);
    ssize_t length;
    pid_t pid;
    int status = 0, result;

    if (log < 0)
        return error_set_errno(error, errno, "cannot make a temporary file");
    result = start(arguments, log, image, &pid, error);
    if (!result)
        result = await(pid, image, progress, &status, error);
    if (result)
        return result;
    length = pread(log, text, OUTPUT_MAX - 1, 0);
    text[length < 0 ? 0 : length] = '\0';
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    return error_set(error, ERROR_SYSTEM, "qemu-img was ended by signal %d", WTERMSIG(status));
}

/* The first line that qemu-img said. */
static int fail_with(int code, char *text, struct error *error)
{
    text[strcspn(text, "\n")] = '\0';
    if (strstr(text, strerror(ENOSPC)))
        code = ERROR_NO_SPACE;
    return error_set(error, code, "%.800s", *text ? text : "qemu-img failed");
}

/* In qemu-img's JSON a quote inside a text is escaped, so these words are members. */
static bool refers_to_others(const char *information)
{
    static const char member[] = "\"filename\": ";
    const char *own = NULL;
    size_t length = 0;

    if (strstr(information, "\"backing-filename\": ") || strstr(information, "\"data-file\": "))
        return true;
    for (const char *at = information; (at = strstr(at, member));) {
        at += sizeof(member) - 1;
        if (!own) {
            own = at;
            length = strcspn(own, "\n");
            length -= length && own[length - 1] == ',';
        } else if (strncmp(at, own, length)) {
            return true;
        }
    }
    return false;
}

static int check_alone(char *path, const struct foreign_format *format, char *text, struct error *error)
{
    char *arguments[] = {(char[]){"qemu-img"}, (char[]){"info"}, (char[]){"--output=json"}, (char[]){"-f"},
                         strdupa(format->qemu_name), path, NULL};
    int result = run(arguments, -1, NULL, text, error);

    if (result)
        return result < 0 ? result : fail_with(ERROR_SYSTEM, text, error);
    if (!refers_to_others(text))
        return 0;
    return error_set(error, ERROR_INVALID, "it refers to other files; if you trust who made it, say --format %s",
                     format->name);
}

/* Converting takes what is missing of a truncated image for zeros. */
static int check_whole(char *path, const struct foreign_format *format, char *text, struct error *error)
{
    char *arguments[] = {(char[]){"qemu-img"}, (char[]){"check"}, (char[]){"-q"}, (char[]){"-f"},
                         strdupa(format->qemu_name), path, NULL};
    int result = run(arguments, -1, NULL, text, error);

    if (result < 0 || result == 0 || result == CHECK_LEAKED || result == CHECK_UNSUPPORTED)
        return result < 0 ? result : 0;
    return fail_with(ERROR_CORRUPT, text, error);
}

/* An empty file without a name. */
static int make_temporary(const char *folder, struct error *error)
{
    auto_free char *path = path_join(folder, ".tmp-import-XXXXXX");
    auto_close int folder_fd = file_open_folder(folder, true, error);
    int fd;

    if (folder_fd < 0)
        return folder_fd;
    if (!path)
        return error_set(error, ERROR_SYSTEM, "no memory for a path");
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(error, errno, "cannot make a temporary file in %s", folder);
    unlink(path);
    return fd;
}

static int convert(const struct context *context, char *path, const struct foreign_format *format, int image,
                   char *text, struct error *error)
{
    char output[] = "/dev/fd/9"; /* OUTPUT_FD */
    char *arguments[] = {(char[]){"qemu-img"}, (char[]){"convert"}, (char[]){"-f"}, strdupa(format->qemu_name),
                         (char[]){"-O"}, (char[]){"raw"}, path, output, NULL};
    struct progress *progress = progress_begin(context, "Converting");
    int result = run(arguments, image, progress, text, error);

    progress_end(progress);
    return result > 0 ? fail_with(ERROR_SYSTEM, text, error) : result;
}

/* An absolute path cannot be taken for one of qemu-img's protocols ("nbd:", "json:"). */
static int convert_file(const struct context *context, const char *path, const struct foreign_format *format,
                        bool trusted, const char *folder, struct error *error)
{
    auto_free char *absolute = realpath(path, NULL);
    auto_free char *text = malloc(OUTPUT_MAX);
    struct stat before, after;
    auto_close int image = -1;
    int result = 0;

    if (!absolute || !text || stat(absolute, &before))
        return error_set_errno(error, errno, "cannot find %s", path);
    if (!trusted)
        result = check_alone(absolute, format, text, error);
    if (!result)
        result = check_whole(absolute, format, text, error);
    if (!result)
        image = result = make_temporary(folder, error);
    if (result >= 0)
        result = convert(context, absolute, format, image, text, error);
    if (result)
        return error_prefix(error, "%s (%s)", path, format->name);
    if (stat(absolute, &after) || before.st_size != after.st_size || before.st_ino != after.st_ino ||
        memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)))
        return error_set(error, ERROR_CHANGED, "%s changed while it was read; nothing was published", path);
    return steal_fd(&image);
}

int import_open(const struct context *context, const char *path, const char *format, const char *folder,
                struct import *import_out, struct error *error)
{
    const struct foreign_format *known = format ? foreign_find(format) : NULL, *seen;
    uint64_t missing_bytes;
    auto_close int fd = -1;

    *import_out = (struct import){.fd = -1};
    if (format && !known)
        return error_set(error, ERROR_INVALID, "unknown format '%.50s': raw, iso, qcow2, vmdk, vdi, vhd or vhdx",
                         format);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    if (fd < 0)
        return error_set_errno(error, errno, "cannot open %s", path);
    seen = recognise(fd, &missing_bytes);
    known = known ? known : seen;
    if (known->qemu_name && known == seen && missing_bytes)
        return error_set(error, ERROR_CORRUPT, "%s (%s) is truncated: %llu bytes are missing", path, known->name,
                         (unsigned long long)missing_bytes);
    import_out->format = known->name;
    import_out->fd = known->qemu_name ? convert_file(context, path, known, format, folder, error) : steal_fd(&fd);
    return import_out->fd < 0 ? import_out->fd : 0;
}

void import_close(struct import *import)
{
    if (import->fd >= 0)
        close(import->fd);
    import->fd = -1;
}
