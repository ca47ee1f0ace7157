/* circular vm console and ssh: into a running machine. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/process.h"
#include "cmd/accelerators.h"
#include "cmd/vm.h"

#define ESCAPE 0x1d /* Ctrl-] */

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t written = write(fd, bytes, size);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

/* Move what FROM has to TO. False: it is over; the escape character, which counts at a terminal only, was met. */
static bool copy(int from, int to, bool escapes)
{
    char bytes[4096];
    ssize_t got = read(from, bytes, sizeof(bytes));
    const char *escape = escapes && got > 0 ? memchr(bytes, ESCAPE, (size_t)got) : NULL;

    if (got < 0 && errno == EINTR)
        return true;
    if (got <= 0 || !write_all(to, bytes, escape ? (size_t)(escape - bytes) : (size_t)got))
        return false;
    return !escape;
}

/* Until the escape character comes or the machine ends. The end of an input that is no terminal changes nothing. */
static void connect_streams(int console, bool terminal)
{
    struct pollfd polled[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = console, .events = POLLIN}};

    for (;;) {
        if (poll(polled, 2, -1) < 0)
            continue;
        if (polled[1].revents && !copy(console, STDOUT_FILENO, false))
            return;
        if (polled[0].revents && !copy(STDIN_FILENO, console, terminal)) {
            if (terminal)
                return;
            polled[0].fd = -1;
        }
    }
}

static int run_console(const struct context *context, int count, char **arguments)
{
    struct termios saved, raw;
    bool terminal = !tcgetattr(STDIN_FILENO, &saved);
    struct error error = ERROR_INIT;
    struct vm vm;
    int console = -1, status = vm_open(context, arguments[0], false, &vm);

    (void)count;
    if (status == EXIT_OK) {
        console = socket_connect(vm.folder.fd, MACHINE_SOCKET_SERIAL, &error);
        if (console == ERROR_NOT_FOUND)
            error_set(&error, ERROR_NOT_FOUND, "the machine %s does not run", vm.record.name);
        if (console < 0)
            status = report_error(context, &error);
    }
    if (console >= 0) {
        if (terminal) {
            fprintf(stderr, "The console of %s; Ctrl-] leaves it.\n", vm.record.name);
            raw = saved;
            cfmakeraw(&raw);
            tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
        }
        connect_streams(console, terminal);
        if (terminal) {
            tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
            fputc('\n', stderr);
        }
        close(console);
    }
    vm_close(&vm);
    return status;
}

struct ssh_options {
    const char *user;
};

static const struct option ssh_table[] = {
    {"user", 'l', OPTION_TEXT, "USER", "log in as this user; root unless told otherwise",
     offsetof(struct ssh_options, user)},
    {0},
};

/* The command line of ssh: each machine has its own list of known host keys, since all are at 127.0.0.1. */
static int ssh_arguments(const struct vm *vm, const char *user, char **words, size_t word_count,
                         struct arguments *arguments, struct error *error)
{
    auto_free char *known = machine_path(&vm->folder, "known_hosts");
    char program[PATH_MAX];
    uint16_t port = vm_ssh_port(&vm->record);

    if (!machine_is_running(&vm->folder))
        return error_set(error, ERROR_NOT_FOUND, "the machine %s does not run", vm->record.name);
    if (!port)
        return error_set(error, ERROR_UNSUPPORTED, "no port of this host leads to port 22 of %s: start it with "
                                                   "--forward PORT:22", vm->record.name);
    if (!process_find(program_search_path(), "ssh", program))
        return error_set(error, ERROR_UNSUPPORTED, "ssh is missing: install the Debian package openssh-client "
                                                   "(apt install openssh-client)");
    arguments_add(arguments, program);
    arguments_add_option(arguments, "-p", "%u", port);
    arguments_add_option(arguments, "-o", "HostKeyAlias=circular-%s", vm->record.name);
    arguments_add_option(arguments, "-o", "UserKnownHostsFile=\"%s\"", known ? known : "/dev/null");
    arguments_add_option(arguments, "-o", "StrictHostKeyChecking=accept-new");
    arguments_add_option(arguments, "-l", "%s", user ? user : "root");
    arguments_add(arguments, "127.0.0.1");
    for (size_t i = 0; i < word_count; i++)
        arguments_add(arguments, words[i]);
    return arguments->failed ? error_set(error, ERROR_SYSTEM, "no memory for ssh") : 0;
}

static int run_ssh(const struct context *context, int count, char **arguments)
{
    cleanup(arguments_finish) struct arguments words = {0};
    const struct ssh_options *options = context->options;
    struct error error = ERROR_INIT;
    struct vm vm;
    int status = vm_open(context, arguments[0], false, &vm);

    if (status == EXIT_OK) {
        if (!ssh_arguments(&vm, options->user, arguments + 1, (size_t)count - 1, &words, &error)) {
            execv(words.items[0], words.items);
            error_set_errno(&error, errno, "cannot start ssh");
        }
        status = report_error(context, &error);
    }
    vm_close(&vm);
    return status;
}

const struct command command_vm_console = {
    .name = "vm console",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "connect this terminal to a machine's serial port; Ctrl-] leaves",
    .run = run_console,
};

const struct command command_vm_ssh = {
    .name = "vm ssh",
    .usage = (const char *const[]){"NAME [WORD...]", NULL},
    .summary = "log in to a machine, or run a command there, over ssh",
    .options = ssh_table,
    .options_size = sizeof(struct ssh_options),
    .run = run_ssh,
};
