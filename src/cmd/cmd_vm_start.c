/*
 * circular vm start: run a machine that keeps its state, in the background. The
 * first time it is made from a published disk. QEMU holds the machine's lock,
 * its sockets and its share of the mounted disk, so it needs this process no
 * longer than until it answers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "cmd/machine_options.h"
#include "cmd/private.h"
#include "cmd/root_partition.h"
#include "cmd/shared_disk.h"
#include "cmd/vm.h"
#include "vm/qemu.h"

#define START_MS 30000

struct start_options {
    struct machine_options machine;
    bool snapshot;
};

static const struct option start_table[] = {
    MACHINE_OPTIONS(struct start_options, machine),
    {"snapshot", 0, OPTION_FLAG, NULL, "throw away what the machine writes this time",
     offsetof(struct start_options, snapshot)},
    {0},
};

/* What a start has to undo. */
struct start {
    struct vm vm;
    bool made; /* the folder is new, and no machine yet */
    struct machine_options words;
    struct machine_request request;
    struct machine_forward forwards[MACHINE_FORWARDS_MAX + 1];
    struct shared_disk disk;
    char *overlay, *snapshot, *variables, *serial_log, *pid_file, *display_socket, *tpm_folder, *tpm_socket;
    int control_fd, serial_fd;
    int ssh_fd; /* holds the port for ssh until the hypervisor listens at it */
};
#define START_INIT                                                                                                    \
    {.vm = VM_INIT,                                                                                                   \
     .request = MACHINE_REQUEST_INIT,                                                                                 \
     .disk = SHARED_DISK_INIT,                                                                                        \
     .control_fd = -1,                                                                                                \
     .serial_fd = -1,                                                                                                 \
     .ssh_fd = -1}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void start_finish(struct start *start)
{
    if (start->made)
        machine_delete(&start->vm.folder, NULL);
    close_fd(&start->control_fd);
    close_fd(&start->serial_fd);
    close_fd(&start->ssh_fd);
    shared_disk_close(&start->disk);
    machine_request_finish(&start->request);
    free(start->words.forwards.items);
    free(start->overlay);
    free(start->snapshot);
    free(start->variables);
    free(start->serial_log);
    free(start->pid_file);
    free(start->display_socket);
    free(start->tpm_folder);
    free(start->tpm_socket);
    vm_close(&start->vm);
}

/* Take over TEXT (NULL: leave it) as a word of the record. */
static int keep_word(const struct context *context, char *word, size_t size, const char *text)
{
    if (!text)
        return EXIT_OK;
    if (strlen(text) >= size)
        return report_usage(context, "'%.40s...' is too long", text);
    strcpy(word, text);
    return EXIT_OK;
}

/* What the command line says now counts from now on. */
static int change_record(const struct context *context, struct machine_record *record, char **extra, size_t extra_count)
{
    const struct machine_options *now = &((const struct start_options *)context->options)->machine;
    auto_free char *iso = now->iso ? realpath(now->iso, NULL) : NULL;
    int status = keep_word(context, record->hypervisor, sizeof(record->hypervisor), now->hypervisor);

    if (status == EXIT_OK)
        status = keep_word(context, record->accelerator, sizeof(record->accelerator), now->accelerator);
    if (status == EXIT_OK)
        status = keep_word(context, record->display, sizeof(record->display), now->display);
    if (status == EXIT_OK)
        status = keep_word(context, record->net, sizeof(record->net), now->net);
    if (status == EXIT_OK)
        status = keep_word(context, record->iso, sizeof(record->iso), iso ? iso : now->iso);
    record->memory = now->memory ? now->memory : record->memory;
    record->cpus = now->cpus ? now->cpus : record->cpus;
    record->uefi = (record->uefi || now->uefi) && !now->bios;
    record->tpm = record->tpm || now->tpm;
    record->nested = record->nested || now->nested;
    if (now->forwards.count)
        arguments_finish(&record->forwards);
    for (size_t i = 0; i < now->forwards.count; i++)
        arguments_add(&record->forwards, now->forwards.items[i]);
    if (extra_count)
        arguments_finish(&record->arguments);
    for (size_t i = 0; i < extra_count; i++)
        arguments_add(&record->arguments, extra[i]);
    return status;
}

static const char *word_or_null(const char *word)
{
    return *word ? word : NULL;
}

/* From the record to a plan, by the same road that options take. */
static int read_record(const struct context *context, struct start *start)
{
    struct machine_record *record = &start->vm.record;
    struct machine_options *words = &start->words;

    *words = (struct machine_options){
        .hypervisor = word_or_null(record->hypervisor),
        .accelerator = word_or_null(record->accelerator),
        .memory = record->memory,
        .cpus = record->cpus,
        .tpm = record->tpm,
        .uefi = record->uefi,
        .nested = record->nested,
        .display = word_or_null(record->display),
        .net = word_or_null(record->net),
        .iso = word_or_null(record->iso),
        .serial = "none",
    };
    words->forwards.items = calloc(record->forwards.count + 1, sizeof(*words->forwards.items));
    if (!words->forwards.items)
        return report_memory(context);
    for (size_t i = 0; i < record->forwards.count; i++)
        words->forwards.items[words->forwards.count++] = record->forwards.items[i];
    return machine_options_read(context, words, &start->request);
}

/* A way in for ssh, unless there is one. The port stays the same from start to start where it can. */
static void add_ssh_forward(struct start *start)
{
    struct machine_plan *plan = &start->request.plan;
    struct machine_record *record = &start->vm.record;
    uint16_t guest = 0;

    memcpy(start->forwards, plan->forwards, plan->forward_count * sizeof(*plan->forwards));
    plan->forwards = start->forwards;
    for (size_t i = 0; i < plan->forward_count; i++)
        guest = plan->forwards[i].guest_port == 22 ? 22 : guest;
    if (guest || plan->net != MACHINE_NET_USER || plan->forward_count >= MACHINE_FORWARDS_MAX) {
        record->ssh_port = 0;
        return;
    }
    start->ssh_fd = machine_hold_port(record->ssh_port, &record->ssh_port);
    if (start->ssh_fd < 0)
        record->ssh_port = 0;
    else
        start->forwards[plan->forward_count++] =
            (struct machine_forward){.host_port = record->ssh_port, .guest_port = 22};
}

/* What a machine has written is in the form of the hypervisor that it ran in. */
static int check_form(const struct start *start, struct error *error)
{
    const struct hypervisor *own = start->request.hypervisor;
    const struct machine_record *record = &start->vm.record;

    for (const struct hypervisor *const *at = hypervisor_table; start->vm.folder.fd >= 0 && *at; at++)
        if (*at != own && (*at)->overlay && strcmp((*at)->overlay, own->overlay) &&
            !faccessat(start->vm.folder.fd, (*at)->overlay, F_OK, 0))
            return error_set(error, ERROR_EXISTS,
                             "%s has written to its disk in a form that %s has and %s does not: go on with "
                             "'--vm %s', or throw it away by 'circular vm reset %s'",
                             record->name, (*at)->title, own->title, (*at)->name, record->name);
    return 0;
}

/* Everything that the host lacks is told before anything is made or started. */
static int check_host(const struct context *context, struct start *start)
{
    const struct start_options *options = context->options;
    const struct hypervisor *hypervisor = start->request.hypervisor;
    struct machine_plan *plan = &start->request.plan;
    struct error error = ERROR_INIT;
    int result = 0;

    add_ssh_forward(start);
    plan->snapshot = options->snapshot ? MACHINE_FILE_SNAPSHOT : NULL; /* its path comes with the folder */
    plan->extra = start->vm.record.arguments.items;
    plan->extra_count = start->vm.record.arguments.count;
    if (!hypervisor->overlay)
        result = error_set(&error, ERROR_UNSUPPORTED,
                           "machines that keep their state run in QEMU or User-mode Linux, not in %s",
                           hypervisor->title);
    if (!result)
        result = check_form(start, &error);
    if (!result)
        result = hypervisor->find(plan, &error);
    if (!result)
        result = hypervisor->check(plan, &error);
    return result ? report_error(context, &error) : EXIT_OK;
}

/* Fill in where the machine comes from, and who it is. */
static int describe(struct start *start, struct error *error)
{
    struct machine_record *record = &start->vm.record;
    const struct shared_disk *disk = &start->disk;
    uint8_t random[3];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return error_set_errno(error, errno, "cannot choose an address for the machine's network card");
    snprintf(record->mac, sizeof(record->mac), "52:54:00:%02x:%02x:%02x", random[0], random[1], random[2]);
    snprintf(record->archive, sizeof(record->archive), "%s", disk->archive);
    snprintf(record->image, sizeof(record->image), "%.*s", NAME_MAX_LENGTH, disk->name);
    snprintf(record->version, sizeof(record->version), "%s", disk->version);
    record->image_id = disk->image_id;
    record->disk_size = disk->size_bytes;
    return 0;
}

/* The path of the machine's socket for PURPOSE, where paths are short: "/run/user/1000/circular/tpm-NAME". */
static int make_socket_path(const struct start *start, const char *purpose, char **path_out, struct error *error)
{
    char runtime[PATH_MAX];
    int result = private_runtime_folder(runtime, error);

    if (result)
        return result;
    *path_out = text_format("%s/%s-%s", runtime, purpose, start->vm.record.name);
    return *path_out ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a socket");
}

static int place_display(struct start *start, struct error *error)
{
    int result = make_socket_path(start, "display", &start->display_socket, error);

    if (result)
        return result;
    unlink(start->display_socket);
    start->request.plan.display_socket = start->display_socket;
    return 0;
}

/* The TPM's state is the machine's. */
static int place_tpm(struct start *start, struct error *error)
{
    int result = make_socket_path(start, "tpm", &start->tpm_socket, error);

    if (result)
        return result;
    start->tpm_folder = machine_path(&start->vm.folder, MACHINE_FILE_TPM);
    if (!start->tpm_folder)
        return error_set(error, ERROR_SYSTEM, "no memory for a TPM");
    start->request.plan.tpm_folder = start->tpm_folder;
    start->request.plan.tpm_socket = start->tpm_socket;
    return 0;
}

static int fill_plan(const struct context *context, struct start *start, struct error *error)
{
    const struct start_options *options = context->options;
    const struct machine_folder *folder = &start->vm.folder;
    struct machine_plan *plan = &start->request.plan;

    start->overlay = machine_path(folder, start->request.hypervisor->overlay);
    start->snapshot = machine_path(folder, MACHINE_FILE_SNAPSHOT);
    start->variables = machine_path(folder, MACHINE_FILE_VARIABLES);
    start->serial_log = machine_path(folder, MACHINE_FILE_SERIAL);
    start->pid_file = machine_path(folder, MACHINE_FILE_PID);
    if (!start->overlay || !start->snapshot || !start->variables || !start->serial_log || !start->pid_file)
        return error_set(error, ERROR_SYSTEM, "no memory for a machine");
    plan->name = start->vm.record.name;
    plan->folder = folder->path;
    plan->disk = start->disk.path;
    plan->overlay = start->overlay;
    plan->snapshot = options->snapshot ? start->snapshot : NULL;
    plan->variables = start->variables;
    plan->mac = start->vm.record.mac;
    plan->serial = MACHINE_SERIAL_SOCKET;
    plan->serial_log = start->serial_log;
    plan->pid_file = start->pid_file;
    start->control_fd = socket_listen(folder->fd, MACHINE_SOCKET_CONTROL, error);
    start->serial_fd = start->control_fd < 0 ? -1 : socket_listen(folder->fd, MACHINE_SOCKET_SERIAL, error);
    if (start->serial_fd < 0)
        return error->code;
    plan->control_fd = start->control_fd;
    plan->serial_fd = start->serial_fd;
    if (plan->tpm && place_tpm(start, error))
        return error->code;
    return machine_display_has_socket(plan) ? place_display(start, error) : 0;
}

/* In a child that nobody waits for: be the process of a machine whose hypervisor needs one. */
static _Noreturn void keep(const struct start *start, const int *fds, size_t fd_count, int words_fd)
{
    const int shared[] = {start->vm.folder.lock_fd, start->disk.use_fd};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), last = STDERR_FILENO;
    struct error error = ERROR_INIT;

    setsid();
    dup2(null, STDIN_FILENO);
    dup2(words_fd, STDOUT_FILENO);
    dup2(words_fd, STDERR_FILENO);
    /* Descriptors that this process does not know are whoever's who started it. */
    for (size_t i = 0; i < fd_count; i++) {
        if (fds[i] > last + 1)
            close_range((unsigned)last + 1, (unsigned)fds[i] - 1, 0);
        last = fds[i];
    }
    close_range((unsigned)last + 1, ~0U, 0);
    if (start->request.hypervisor->keep(&start->request.plan, shared, 2, &error)) {
        fprintf(stderr, "%s\n", error.message);
        fflush(stderr);
        _exit(EXIT_SYSTEM);
    }
    _exit(EXIT_OK);
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int start_keeper(struct start *start, int *fds, size_t fd_count, int words_fd, struct error *error)
{
    pid_t child;

    qsort(fds, fd_count, sizeof(*fds), by_number);
    fflush(NULL);
    child = fork();
    if (child == 0)
        keep(start, fds, fd_count, words_fd);
    return child < 0 ? error_set_errno(error, errno, "cannot start a background process") : 0;
}

static int find_root(struct start *start, struct error *error)
{
    return start->request.hypervisor->needs_root
               ? root_partition_find(start->disk.path, &start->request.plan.root_partition, error)
               : 0;
}

static int launch(struct start *start, int words_fd, struct error *error)
{
    cleanup(hypervisor_command_finish) struct hypervisor_command command = {0};
    const int iso_fd = start->request.iso_disk.use_fd;
    int fds[] = {start->vm.folder.lock_fd, start->disk.use_fd, start->control_fd, start->serial_fd, iso_fd};
    struct process_launch how = {.fds = fds, .fd_count = iso_fd >= 0 ? 5 : 4, .output_fd = words_fd};
    pid_t pid;
    int result;

    if (start->request.hypervisor->keep)
        return start_keeper(start, fds, how.fd_count, words_fd, error);
    result = start->request.hypervisor->command(&start->request.plan, &command, error);
    how.environment = command.environment.items;
    return result ? result
                  : process_launch(command.arguments.items[0], command.arguments.items, &how, &pid, error);
}

/* What QEMU has said last, if it has ended. */
static int tell_words(struct start *start, struct error *error)
{
    cleanup(buffer_finish) struct buffer words = {0};
    const char *text;

    if (file_read(start->vm.folder.fd, start->request.hypervisor->words, MIB, &words, NULL) || !words.size ||
        !buffer_append(&words, "", 1))
        return error->code;
    while (words.size > 1 && words.bytes[words.size - 2] == '\n')
        words.bytes[--words.size - 1] = '\0';
    text = strrchr((const char *)words.bytes, '\n');
    return error_set(error, ERROR_SYSTEM, "the machine does not start: %.600s",
                     text ? text + 1 : (const char *)words.bytes);
}

/* Start QEMU, and wait until it answers. */
static int run_machine(struct start *start, struct error *error)
{
    auto_close int words_fd = openat(start->vm.folder.fd, start->request.hypervisor->words,
                                     O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct qmp *qmp = NULL;
    int result = words_fd < 0 ? error_set_errno(error, errno, "cannot write in %s", start->vm.folder.path)
                              : launch(start, words_fd, error);

    if (result)
        return result;
    /* From now on they are QEMU's alone: who asks hears at once when it ends. */
    close_fd(&start->control_fd);
    close_fd(&start->serial_fd);
    result = qmp_open(start->vm.folder.fd, MACHINE_SOCKET_CONTROL, START_MS, &qmp, error);
    qmp_close(qmp);
    return result == ERROR_NOT_FOUND ? tell_words(start, error) : result;
}

static void tell(const struct context *context, const struct start *start)
{
    const struct hypervisor *hypervisor = start->request.hypervisor;
    const struct machine_plan *plan = &start->request.plan;
    const struct machine_record *record = &start->vm.record;
    uint16_t port = vm_ssh_port(record);
    char ssh[40] = "";

    if (port)
        snprintf(ssh, sizeof(ssh), ", ssh at port %u", port);
    report_line(context, "%s runs %s@%s (%s)%s; its console: circular vm console %s", record->name, record->image,
                record->version, hypervisor->keep ? hypervisor->title : plan->accelerator, ssh, record->name);
    machine_tell_display(context, plan);
}

/* Make the machine's folder, now that nothing is wrong with what was asked for. */
static int create(const struct context *context, const char *name, struct start *start)
{
    auto_free char *state = client_state_folder();
    struct error error = ERROR_INIT;

    if (!state)
        return report_memory(context);
    if (machine_create(state, name, &start->vm.folder, &error))
        return report_error(context, &error);
    start->made = true;
    return EXIT_OK;
}

/* TEXT: what a new machine is made from; NULL: it is there. */
static int start_machine(const struct context *context, const char *name, const char *text, struct start *start)
{
    struct machine_record *record = &start->vm.record;
    auto_free char *own_text = text ? NULL : location_format(record->archive, record->image, record->version);
    struct error error = ERROR_INIT;
    int status = text ? create(context, name, start) : own_text ? EXIT_OK : report_memory(context);

    if (status != EXIT_OK)
        return status;
    status = shared_disk_open(context,
                              &(struct shared_disk_wish){.text = text ? text : own_text,
                                                         .expected = text ? NULL : &record->image_id,
                                                         .published = true},
                              &start->disk);
    if (status == EXIT_OK)
        status = machine_request_open(context, &start->request);
    if (status != EXIT_OK)
        return status;
    if (machine_check_architecture(text ? text : own_text, start->disk.architecture, &error) ||
        (text && describe(start, &error)) || fill_plan(context, start, &error) || find_root(start, &error) ||
        start->request.hypervisor->prepare(&start->request.plan, &error) ||
        machine_write(&start->vm.folder, record, &error))
        return report_error(context, &error);
    start->made = false;
    if (run_machine(start, &error)) {
        start->request.hypervisor->finish(&start->request.plan);
        start->made = text && error.code != ERROR_BUSY; /* what never ran need not be kept */
        return report_error(context, &error);
    }
    tell(context, start);
    return EXIT_OK;
}

/* Open a machine that is there. *RUNS_OUT: it runs, and is not locked. */
static int open_machine(const struct context *context, const char *name, struct vm *vm, bool *runs_out)
{
    struct error error = ERROR_INIT;
    int status = vm_open(context, name, false, vm);

    if (status != EXIT_OK)
        return status;
    *runs_out = machine_is_running(&vm->folder);
    if (!*runs_out && machine_lock(&vm->folder, &error))
        return report_error(context, &error);
    return EXIT_OK;
}

static int run(const struct context *context, int count, char **arguments)
{
    const char *name = arguments[0], *text = count > 1 ? arguments[1] : NULL;
    struct start start = START_INIT;
    struct error error = ERROR_INIT;
    bool runs = false;
    int status = EXIT_OK;

    if (name_check("machine's name", name, &error))
        return report_error(context, &error);
    if (!text)
        status = open_machine(context, name, &start.vm, &runs);
    else
        snprintf(start.vm.record.name, sizeof(start.vm.record.name), "%s", name);
    if (status == EXIT_OK && runs) {
        status = vm_mend(context, &start.vm);
        start_finish(&start);
        return status;
    }
    if (status == EXIT_OK)
        status = change_record(context, &start.vm.record, arguments + 2, count > 2 ? (size_t)count - 2 : 0);
    if (status == EXIT_OK)
        status = read_record(context, &start);
    if (status == EXIT_OK)
        status = check_host(context, &start);
    if (status == EXIT_OK)
        status = start_machine(context, name, text, &start);
    start_finish(&start);
    return status;
}

const struct command command_vm_start = {
    .name = "vm start",
    .usage = (const char *const[]){"NAME URL/NAME[@VERSION] [ARG...]", "NAME", NULL},
    .summary = "start a machine that keeps its state; the first time from a disk",
    .options = start_table,
    .options_size = sizeof(struct start_options),
    .client = true,
    .run = run,
};
