/* The process behind a User-mode Linux machine: see uml_keeper.h. */
#include "vm/uml_keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "format/qmp.h"

#define PIECE     4096
#define SILENT_MS 3000 /* a machine that lives so long without a word has started too */
#define SLOW_MS   3000 /* so long the guest waits for whoever reads its console and takes nothing */

/* A connection's input that waits: for the rest of its command, or for the guest to take it. */
struct input {
    int fd; /* -1: nobody is connected */
    char bytes[PIECE];
    size_t size;
};

/* What the guest has said and whoever is connected has not taken yet; as long as there is some, it says no more. */
struct output {
    char bytes[PIECE];
    size_t size;
    uint64_t taken_ms; /* when some was taken last */
    bool slow;         /* time was up: what is not taken at once is lost, until all of a piece is taken again */
};

struct keeper {
    const struct machine_plan *plan;
    pid_t uml;
    int process_fd, network_fd, console_fd, log_fd;
    uint64_t begun_ms;
    bool spoke; /* there was something on its console */
    struct input console, control;
    struct output output; /* of the console */
};

enum { POLLED_PROCESS, POLLED_NETWORK, POLLED_GUEST, POLLED_CONSOLE, POLLED_CONTROL, POLLED_COUNT };

/* ---- Starting UML ---- */

/* In the child: only async-signal-safe calls and what needs no more. */
static _Noreturn void become(const struct hypervisor_command *command, int console, const int *fds, size_t fd_count,
                             pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < fd_count; i++)
        fcntl(fds[i], F_SETFD, 0);
    for (size_t i = 0; i < command->environment.count; i++)
        putenv(command->environment.items[i]);
    if (getppid() == parent && dup2(console, STDIN_FILENO) >= 0)
        execv(command->arguments.items[0], command->arguments.items);
    dprintf(STDERR_FILENO, "cannot start %s: %s\n", command->arguments.items[0], strerror(errno)); /* uml.log */
    _Exit(127);
}

static int run_uml(struct keeper *keeper, const struct hypervisor_command *command, const int *fds, size_t fd_count,
                   struct error *error)
{
    pid_t parent = getpid();
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return error_set_errno(error, errno, "cannot make a console");
    keeper->console_fd = ends[0];
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    keeper->uml = fork();
    if (keeper->uml == 0)
        become(command, ends[1], fds, fd_count, parent);
    close(ends[1]);
    if (keeper->uml < 0)
        return error_set_errno(error, errno, "cannot start %s", command->arguments.items[0]);
    keeper->begun_ms = clock_ms();
    keeper->process_fd = process_open(keeper->uml);
    return keeper->process_fd < 0 ? error_set_errno(error, errno, "cannot watch %s", command->arguments.items[0]) : 0;
}

static int write_pid(const struct machine_plan *plan, struct error *error)
{
    char text[24];
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());

    return file_write_atomic(AT_FDCWD, plan->pid_file, text, (size_t)length, FILE_PRIVATE, error);
}

/* ---- The console ---- */

static void hang_up(struct input *input)
{
    close(input->fd);
    input->fd = -1;
}

static void drop(char *bytes, size_t *size, size_t count)
{
    memmove(bytes, bytes + count, *size - count);
    *size -= count;
}

/* As much as whoever is connected takes. */
static void pass_words(struct keeper *keeper)
{
    struct output *output = &keeper->output;
    ssize_t sent = send(keeper->console.fd, output->bytes, output->size, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent > 0) {
        drop(output->bytes, &output->size, (size_t)sent);
        output->taken_ms = clock_ms();
    } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        output->size = 0;
    }
    output->slow = output->size && (output->slow || clock_ms() - output->taken_ms >= SLOW_MS);
    if (output->slow)
        output->size = 0;
}

/* What the guest says goes to the log, and to whoever is there. False: it has closed it. */
static bool take_words(struct keeper *keeper)
{
    struct output *output = &keeper->output;
    ssize_t got = read(keeper->console_fd, output->bytes, sizeof(output->bytes));

    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    keeper->spoke |= got > 0;
    if (write(keeper->log_fd, output->bytes, (size_t)got) < 0) /* a full disk is no reason to stop the machine */
        errno = 0;
    if (keeper->console.fd >= 0 && got > 0) {
        output->size = (size_t)got;
        output->taken_ms = clock_ms();
        pass_words(keeper);
    }
    return got > 0;
}

/* Read what there is room for. False: it is over. */
static bool fill(struct input *input)
{
    ssize_t got = recv(input->fd, input->bytes + input->size, sizeof(input->bytes) - input->size, MSG_DONTWAIT);

    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    input->size += (size_t)got;
    return got > 0;
}

/* What was typed goes to the guest as fast as that takes it, also when whoever typed it has gone. */
static void type_keys(struct keeper *keeper)
{
    ssize_t written = keeper->console.size ? write(keeper->console_fd, keeper->console.bytes, keeper->console.size) : 0;

    if (written > 0)
        drop(keeper->console.bytes, &keeper->console.size, (size_t)written);
}

/* ---- Control ---- */

static void say(const struct keeper *keeper, const char *text)
{
    send(keeper->control.fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/*
 * UML's own control socket takes a word; here Ctrl-Alt-Del, upon which the guest reboots, which is its end now. Returns
 * NULL, or why it cannot be pressed.
 */
static const char *press_power_button(const struct keeper *keeper)
{
    struct {
        uint32_t magic, version, length;
        char text[512];
    } request = {.magic = 0xcafebabe, .version = 2, .length = sizeof("cad"), .text = "cad"};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_free char *ends = path_join(keeper->plan->folder, UML_FILE_ENDS);
    auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct error error = ERROR_INIT;

    if (!ends || fd < 0 ||
        snprintf(address.sun_path, sizeof(address.sun_path), "%s/" UML_UMID "/mconsole", keeper->plan->folder) >=
            (int)sizeof(address.sun_path))
        return "this host has no memory or socket for it";
    if (file_write_atomic(AT_FDCWD, ends, "", 0, FILE_PRIVATE, &error))
        return error.code == ERROR_NO_SPACE ? "the disk of this host is full"
                                            : "its folder on this host cannot be written in";
    if (sendto(fd, &request, sizeof(request), MSG_DONTWAIT, (struct sockaddr *)&address, sizeof(address)) > 0)
        return NULL;
    unlink(ends); /* else the guest's own next reboot were its end */
    return "its kernel does not listen yet, or any more: try again in a moment";
}

static void answer(struct keeper *keeper, const char *command, uint64_t id)
{
    const char *value = "{}", *fault = NULL;
    char text[256];

    if (!strcmp(command, "query-status"))
        value = "{\"status\": \"running\", \"running\": true}";
    else if (!strcmp(command, "query-blockstats"))
        value = "[]";
    else if (!strcmp(command, "system_powerdown"))
        fault = press_power_button(keeper);
    else if (strcmp(command, "qmp_capabilities") && strcmp(command, "quit"))
        fault = "User-mode Linux does not do this";
    if (!fault)
        snprintf(text, sizeof(text), "{\"return\": %s, \"id\": %" PRIu64 "}\n", value, id);
    else
        snprintf(text, sizeof(text),
                 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}, \"id\": %" PRIu64 "}\n", fault, id);
    say(keeper, text);
    if (!strcmp(command, "quit"))
        kill(keeper->uml, SIGKILL);
}

/* All commands that are whole. Who sends what is none is not listened to any longer. */
static void take_commands(struct keeper *keeper)
{
    struct input *control = &keeper->control;
    size_t length;

    while (control->fd >= 0 && (length = qmp_command_length(control->bytes, control->size))) {
        char command[QMP_WORD];
        uint64_t id;

        if (qmp_parse_command(control->bytes, length, command, &id, NULL)) {
            hang_up(control);
            return;
        }
        answer(keeper, command, id);
        drop(control->bytes, &control->size, length);
    }
    if (control->fd >= 0 && control->size == sizeof(control->bytes))
        hang_up(control);
}

/* ---- The loop ---- */

/* One at a time; others wait. */
static void accept_one(int listen_fd, struct input *input)
{
    input->fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
}

static void greet(struct keeper *keeper)
{
    keeper->control.size = 0;
    accept_one(keeper->plan->control_fd, &keeper->control);
    if (keeper->control.fd >= 0)
        say(keeper, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n");
}

static void choose_polled(const struct keeper *keeper, struct pollfd polled[POLLED_COUNT])
{
    bool started = keeper->spoke || clock_ms() - keeper->begun_ms > SILENT_MS;
    const struct input *console = &keeper->console;
    bool full = keeper->output.size, room = console->size < sizeof(console->bytes);

    polled[POLLED_PROCESS] = (struct pollfd){.fd = full ? -1 : keeper->process_fd, .events = POLLIN};
    polled[POLLED_NETWORK] = (struct pollfd){.fd = keeper->network_fd, .events = POLLIN};
    polled[POLLED_GUEST] = (struct pollfd){.fd = full ? -1 : keeper->console_fd, .events = POLLIN};
    if (console->size)
        polled[POLLED_GUEST].events |= POLLOUT;
    polled[POLLED_CONSOLE] = (struct pollfd){.fd = keeper->plan->serial_fd, .events = POLLIN};
    if (console->fd >= 0)
        polled[POLLED_CONSOLE] = (struct pollfd){.fd = full || room ? console->fd : -1,
                                                 .events = (short)((full ? POLLOUT : 0) | (room ? POLLIN : 0))};
    polled[POLLED_CONTROL] = (struct pollfd){.fd = keeper->control.fd, .events = POLLIN};
    if (keeper->control.fd < 0 && started)
        polled[POLLED_CONTROL].fd = keeper->plan->control_fd;
}

static void talk(struct keeper *keeper, short events)
{
    struct input *console = &keeper->console;

    if (console->fd < 0) {
        if (events)
            accept_one(keeper->plan->serial_fd, console);
        return;
    }
    if (keeper->output.size)
        pass_words(keeper);
    if (events & ~POLLOUT && console->size < sizeof(console->bytes) && !fill(console)) {
        hang_up(console);
        keeper->output.size = 0;
        keeper->output.slow = false;
    }
}

/* The guest's card is plugged into nothing then, and another network would not know it. */
static void tell_network_ended(struct keeper *keeper)
{
    dprintf(STDERR_FILENO, "the network has ended: the guest has none until the machine is started again\n");
    close(keeper->network_fd);
    keeper->network_fd = -1;
}

/* Until UML has ended. */
static void serve(struct keeper *keeper)
{
    struct pollfd polled[POLLED_COUNT];

    for (;;) {
        choose_polled(keeper, polled);
        if (poll(polled, POLLED_COUNT, polled[POLLED_CONTROL].fd < 0 || keeper->output.size ? SILENT_MS : -1) < 0)
            continue;
        if (polled[POLLED_GUEST].revents & (POLLIN | POLLHUP) && !take_words(keeper)) {
            close(keeper->console_fd);
            keeper->console_fd = -1;
        }
        if (polled[POLLED_PROCESS].revents && !(polled[POLLED_GUEST].revents & POLLIN))
            return;
        if (polled[POLLED_NETWORK].revents)
            tell_network_ended(keeper);
        type_keys(keeper);
        talk(keeper, polled[POLLED_CONSOLE].revents);
        if (polled[POLLED_CONTROL].revents && keeper->control.fd < 0)
            greet(keeper);
        else if (polled[POLLED_CONTROL].revents && !fill(&keeper->control))
            hang_up(&keeper->control);
        take_commands(keeper);
    }
}

int uml_keep(const struct machine_plan *plan, const struct hypervisor_command *command, pid_t network, const int *fds,
             size_t fd_count, struct error *error)
{
    struct keeper keeper = {.plan = plan, .network_fd = -1, .console = {.fd = -1}, .control = {.fd = -1}};
    int result;

    keeper.log_fd = open(plan->serial_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (keeper.log_fd < 0)
        return error_set_errno(error, errno, "cannot write %s", plan->serial_log);
    result = write_pid(plan, error);
    if (!result)
        result = run_uml(&keeper, command, fds, fd_count, error);
    if (result)
        return result;
    if (network)
        keeper.network_fd = process_open(network);
    serve(&keeper);
    while (waitpid(keeper.uml, NULL, 0) < 0 && errno == EINTR)
        ;
    return 0;
}
