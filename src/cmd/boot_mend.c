/* Having a disk mounted again by a child: see boot_mend.h. */
#include "cmd/boot_mend.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/mend.h"
#include "cmd/signals.h"
#include "image/archive.h"
#include "vm/qemu.h"

#define ANSWER_MS    5000
#define SOON_MS      200  /* who ends the server, as systemd does with a session, may end this one in a moment too */
#define LONG_MS      10000
#define PAUSE_MS     2000 /* before a disk that could not be mounted again is tried again; then twice as long ... */
#define PAUSE_MS_MAX 60000

/* What the child answers with; the descriptors of a disk that is mounted come beside it. */
struct answer {
    int status; /* an exit status */
    bool lasting; /* no other try would do */
    struct shared_disk disk;
};

void boot_reap(int *process_fd)
{
    siginfo_t ended;

    waitid(P_PIDFD, (id_t)*process_fd, &ended, WEXITED | WNOHANG);
    close(*process_fd);
    *process_fd = -1;
}

void boot_part_lose(struct boot_part *part)
{
    boot_reap(&part->disk->server_fd);
    part->next_ms = clock_ms() + SOON_MS;
    part->pause_ms = PAUSE_MS;
}

void boot_part_tell_unwatched(const struct context *context, const struct boot_part *part)
{
    if (*part->disk->folder && part->disk->server_fd < 0)
        report_line(context, "the process that serves the %s, which an older program has started, cannot be watched: "
                    "should it end, the machine will not be given the %s again", part->title, part->title);
    fflush(stdout);
}

/* It is mounted again, as FRESH: let the machine have it. */
static int give(const struct boot_watch *watch, const struct boot_part *part, const struct shared_disk *fresh,
                struct error *error)
{
    auto_close int folder = -1;
    struct qmp *qmp = NULL;
    bool mended;
    int result;

    if (fresh->server_fd < 0 && !shared_disk_is_alive(fresh))
        return error_set(error, ERROR_UNAVAILABLE, "the process that serves the %s has ended again", part->title);
    if (watch->request->hypervisor->mending == MENDING_BY_ITSELF)
        return 0;
    folder = open(watch->request->plan.folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    result = folder < 0 ? error_set_errno(error, errno, "cannot open %s", watch->request->plan.folder)
                        : qmp_open(folder, BOOT_CONTROL, ANSWER_MS, &qmp, error);
    if (!result)
        result = part->node ? qemu_replace_cdrom(qmp, part->node, fresh->path, error)
                            : mend_disk(qmp, watch->machine, fresh, &mended, error);
    qmp_close(qmp);
    return result;
}

static void send_answer(int channel, const struct answer *answer)
{
    const int fds[] = {answer->disk.use_fd, answer->disk.server_fd};
    struct iovec bytes = {.iov_base = (void *)answer, .iov_len = sizeof(*answer)};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(fds))];
    } beside = {0};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
    size_t count = fds[0] < 0 ? 0 : fds[1] < 0 ? 1 : 2;

    if (answer->status == EXIT_OK && count) {
        message.msg_control = &beside;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        beside.header.cmsg_level = SOL_SOCKET;
        beside.header.cmsg_type = SCM_RIGHTS;
        beside.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&beside.header), fds, count * sizeof(int));
    }
    sendmsg(channel, &message, MSG_NOSIGNAL);
}

/* False: the child has ended without one. */
static bool receive_answer(int channel, struct answer *answer_out)
{
    int fds[] = {-1, -1};
    struct iovec bytes = {.iov_base = answer_out, .iov_len = sizeof(*answer_out)};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(fds))];
    } beside = {0};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof(beside)};
    ssize_t got;

    while ((got = recvmsg(channel, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (got != sizeof(*answer_out))
        return false;
    if (message.msg_controllen && beside.header.cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(&beside.header), min_u64(sizeof(fds), beside.header.cmsg_len - CMSG_LEN(0)));
    answer_out->disk.use_fd = fds[0];
    answer_out->disk.server_fd = fds[1];
    return true;
}

/* Would every other try end with STATUS too? The archive was there when the machine was started. */
static bool is_lasting(const struct shared_disk *disk, int status)
{
    return status == EXIT_INTEGRITY || status == EXIT_SIGNATURE ||
           (status == EXIT_NOT_FOUND && !archive_is_away(disk->archive));
}

/* In the child. */
static _Noreturn void mount_and_give(const struct context *context, const struct boot_watch *watch,
                                     const struct boot_part *part, int channel)
{
    struct answer answer = {.disk = SHARED_DISK_INIT};
    struct error error = ERROR_INIT;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(part->said, STDERR_FILENO);
    answer.status = shared_disk_open_again(context, part->disk, &part->wish, &answer.disk);
    answer.lasting = is_lasting(part->disk, answer.status);
    if (answer.status == EXIT_OK && give(watch, part, &answer.disk, &error))
        answer.status = report_error(context, &error);
    fflush(NULL);
    send_answer(channel, &answer);
    _exit(EXIT_OK);
}

static int start_child(const struct context *context, const struct boot_watch *watch, struct boot_part *part,
                       struct error *error)
{
    auto_close int said = memfd_create("said", MFD_CLOEXEC);
    int ends[2];

    if (said < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return error_set_errno(error, errno, "cannot mount the %s again", part->title);
    part->said = steal_fd(&said);
    part->answer = ends[0];
    fflush(NULL);
    part->child = signals_fork();
    if (part->child == 0)
        mount_and_give(context, watch, part, ends[1]);
    close(ends[1]);
    if (part->child < 0) {
        error_set_errno(error, errno, "cannot start a background process");
        boot_part_abandon(part);
        return error->code;
    }
    part->next_ms = clock_ms() + LONG_MS;
    return 0;
}

static void try_later(struct boot_part *part)
{
    part->next_ms = clock_ms() + part->pause_ms;
    part->pause_ms = min_u64(2 * part->pause_ms, PAUSE_MS_MAX);
}

/* What the child has printed, unless that is what it printed the last time. */
static void tell_said(struct boot_part *part)
{
    char text[sizeof(part->told)];
    ssize_t got = pread(part->said, text, sizeof(text) - 1, 0);

    text[got > 0 ? got : 0] = '\0';
    if (!strcmp(text, part->told))
        return;
    fputs(text, stderr);
    strcpy(part->told, text);
}

void boot_part_due(const struct context *context, struct boot_watch *watch, struct boot_part *part)
{
    const struct hypervisor *hypervisor = watch->request->hypervisor;
    struct error error = ERROR_INIT;

    part->next_ms = 0;
    if (part->answer >= 0) {
        report_line(context, "the process that served the %s has ended, and it takes long to mount it again",
                    part->title);
        fflush(stdout);
    } else if (hypervisor->mending == MENDING_NEVER) {
        error_set(&error, ERROR_UNAVAILABLE,
                  "the process that served the %s has ended, and %s cannot be given it again: what the machine has not "
                  "read yet it cannot read; end it and boot again",
                  part->title, hypervisor->title);
        report_error(context, &error);
    } else if (start_child(context, watch, part, &error)) {
        report_error(context, &error);
        try_later(part);
    }
}

static void take_over(const struct context *context, struct boot_watch *watch, struct boot_part *part,
                      const struct shared_disk *fresh)
{
    shared_disk_close(part->disk);
    *part->disk = *fresh;
    part->next_ms = 0;
    *part->told = '\0';
    watch->disk_lost |= part->disk == watch->disk;
    report_line(context, "the process that served the %s has ended; another one serves it now", part->title);
    boot_part_tell_unwatched(context, part);
    fflush(stdout);
}

void boot_part_answered(const struct context *context, struct boot_watch *watch, struct boot_part *part)
{
    struct answer answer;
    bool answered = receive_answer(part->answer, &answer);
    struct error error = ERROR_INIT;

    tell_said(part);
    while (answered && waitpid(part->child, NULL, 0) < 0 && errno == EINTR)
        ;
    boot_part_abandon(part);
    if (answered && answer.status == EXIT_OK) {
        take_over(context, watch, part, &answer.disk);
    } else if (!answered || !answer.lasting) {
        try_later(part);
    } else {
        error_set(&error, ERROR_UNAVAILABLE,
                  "the process that served the %s has ended, and the machine is not given it again: what it has not "
                  "read yet it cannot read; end it and boot again",
                  part->title);
        report_error(context, &error);
    }
}

void boot_part_abandon(struct boot_part *part)
{
    part->next_ms = 0;
    if (part->answer < 0)
        return;
    close(part->answer);
    close(part->said);
    part->answer = part->said = -1;
    /* One that the kernel makes wait may take a while to end: it is the system's then. */
    if (part->child > 0 && waitpid(part->child, NULL, WNOHANG) == 0 && !kill(part->child, SIGKILL))
        waitpid(part->child, NULL, WNOHANG);
}
