/* QEMU: see qemu.h. */
#include "vm/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

static bool find_program(const char *search_path, const char *name, char path[PATH_MAX])
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

static int missing(const char *what, const char *package, struct error *error)
{
    return error_set(error, ERROR_UNSUPPORTED, "%s is missing: install the Debian package %s (apt install %s)", what,
                     package, package);
}

int qemu_find(const char *search_path, struct qemu_programs *programs_out, struct error *error)
{
    static const char *const firmware[] = {"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
                                           "/usr/local/share/qemu/bios-256k.bin"};
    bool found = false;

    if (!find_program(search_path, "qemu-system-x86_64", programs_out->system))
        return missing("qemu-system-x86_64", "qemu-system-x86", error);
    if (!find_program(search_path, "qemu-img", programs_out->image))
        return missing("qemu-img", "qemu-utils", error);
    for (size_t i = 0; i < sizeof(firmware) / sizeof(firmware[0]); i++)
        found = found || !access(firmware[i], R_OK);
    return found ? 0 : missing("the BIOS for virtual machines (bios-256k.bin)", "seabios", error);
}

/* The last of what a program said on FD, in one line. */
static void read_words(int fd, char *words, size_t size)
{
    size_t used = 0;
    ssize_t got;

    while (used + 1 < size && (got = read(fd, words + used, size - 1 - used)) != 0)
        if (got > 0)
            used += (size_t)got;
        else if (errno != EINTR)
            break;
    while (used && words[used - 1] == '\n')
        used--;
    words[used] = '\0';
    for (size_t i = 0; i < used; i++)
        if (words[i] == '\n')
            words[i] = ' ';
}

/* Run a short program; what it says on standard error becomes the error's message. */
static int run_quietly(const char *path, char *const arguments[], struct error *error)
{
    int ends[2], status;
    char words[600];
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);

        dup2(null, 0);
        dup2(null, 1);
        dup2(ends[1], 2);
        execv(path, arguments);
        _exit(127);
    }
    close(ends[1]);
    if (pid > 0)
        read_words(ends[0], words, sizeof(words));
    close(ends[0]);
    if (pid < 0)
        return error_set_errno(error, errno, "cannot start %s", path);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return error_set(error, ERROR_SYSTEM, "%s failed: %s", path, words);
}

int qemu_make_overlay(const struct qemu_programs *programs, const char *disk, const char *overlay,
                      struct error *error)
{
    const char *arguments[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, overlay, NULL};

    return run_quietly(programs->image, (char *const *)(uintptr_t)arguments, error);
}

struct list {
    char **items;
    size_t count;
    bool failed;
};

static void add(struct list *list, const char *text)
{
    char **items = list->failed ? NULL : reallocarray(list->items, list->count + 2, sizeof(*items));

    list->failed = !items;
    if (!items)
        return;
    list->items = items;
    items[list->count] = strdup(text);
    list->failed = !items[list->count];
    items[++list->count] = NULL;
}

__attribute__((format(printf, 3, 4))) static void add_option(struct list *list, const char *option,
                                                             const char *format, ...)
{
    auto_free char *value = NULL;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&value, format, arguments) < 0)
        value = NULL;
    va_end(arguments);
    add(list, option);
    if (value)
        add(list, value);
    else
        list->failed = true;
}

/* As a value inside one of QEMU's comma-separated options: commas are doubled. Heap. */
static char *escape_commas(const char *text)
{
    char *escaped = malloc(2 * strlen(text) + 1), *to = escaped;

    for (; escaped && *text; text++) {
        if (*text == ',')
            *to++ = ',';
        *to++ = *text;
    }
    if (escaped)
        *to = '\0';
    return escaped;
}

char **qemu_arguments(const struct qemu_programs *programs, const struct qemu_settings *settings)
{
    auto_free char *overlay = escape_commas(settings->overlay);
    auto_free char *name = escape_commas(settings->name);
    struct list list = {0};

    if (!overlay || !name)
        return NULL;
    add(&list, programs->system);
    add_option(&list, "-name", "%s", name);
    add_option(&list, "-machine", "q35");
    add_option(&list, "-accel", "%s", settings->accelerator);
    add_option(&list, "-cpu", "max");
    add_option(&list, "-m", "%llu", (unsigned long long)(settings->memory_bytes / MIB));
    add_option(&list, "-smp", "%u", settings->cpu_count);
    add(&list, "-nographic");
    add_option(&list, "-serial", "mon:stdio");
    add(&list, "-no-reboot");
    /* What is written dies with the machine: nothing need reach the disk. */
    add_option(&list, "-drive", "file=%s,if=virtio,format=qcow2,cache=unsafe,discard=unmap", overlay);
    add_option(&list, "-netdev", "user,id=network");
    add_option(&list, "-device", "virtio-net-pci,netdev=network");
    add_option(&list, "-device", "virtio-rng-pci");
    for (size_t i = 0; i < settings->extra_count; i++)
        add(&list, settings->extra[i]);
    if (list.failed) {
        qemu_free_arguments(list.items);
        return NULL;
    }
    return list.items;
}

void qemu_free_arguments(char **arguments)
{
    for (char **at = arguments; at && *at; at++)
        free(*at);
    free(arguments);
}

int qemu_start(const struct qemu_programs *programs, char **arguments, pid_t *pid_out, struct error *error)
{
    pid_t parent = getpid(), pid;
    int ends[2], cause = 0;

    /* The pipe is closed by a successful exec, and carries errno of one that fails. */
    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    pid = fork();
    if (pid == 0) { /* only async-signal-safe calls: other threads may have held any lock */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            execv(programs->system, arguments);
        cause = errno;
        if (write(ends[1], &cause, sizeof(cause)) < 0)
            _exit(126);
        _exit(127);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return error_set_errno(error, errno, "cannot start QEMU");
    }
    if (read(ends[0], &cause, sizeof(cause)) == sizeof(cause)) {
        close(ends[0]);
        waitpid(pid, NULL, 0);
        return error_set_errno(error, cause, "cannot start %s", programs->system);
    }
    close(ends[0]);
    *pid_out = pid;
    return 0;
}
