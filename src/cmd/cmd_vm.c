/* circular vm list, info, stop, reset, delete: machines that keep their state, from outside. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/process.h"
#include "cmd/vm.h"

#define STOP_MS       60000 /* for the guest to power itself off */
#define QUIT_MS       5000  /* for QEMU to end by itself when it must */
#define LOCK_PAUSE_MS 20

struct vm_options {
    bool force, yes;
    uint64_t timeout_ms;
};

static const struct option stop_table[] = {
    {"force", 'f', OPTION_FLAG, NULL, "end it at once, as by pulling the plug", offsetof(struct vm_options, force)},
    {"timeout", 't', OPTION_POSITIVE_DURATION, "TIME", "how long the guest may take, 60s unless told otherwise",
     offsetof(struct vm_options, timeout_ms)},
    {0},
};

static const struct option confirm_table[] = {
    {"yes", 'y', OPTION_FLAG, NULL, "do not ask", offsetof(struct vm_options, yes)},
    {0},
};

/* "stopped", or what QEMU says: "running", "paused", "io-error", ...; "busy" if it does not say. */
static void find_state(const struct vm *vm, char state_out[QMP_WORD])
{
    struct qmp *qmp = NULL;

    strcpy(state_out, "stopped");
    if (!machine_is_running(&vm->folder))
        return;
    strcpy(state_out, "busy");
    if (!vm_control(vm, &qmp, NULL))
        qmp_status(qmp, state_out, NULL);
    qmp_close(qmp);
}

static void print_row(const struct context *context, struct emit *emit, const struct vm *vm)
{
    const struct machine_record *record = &vm->record;
    char state[QMP_WORD], size[SIZE_TEXT];
    uint64_t used = vm_used_bytes(vm);

    find_state(vm, state);
    if (!context->json) {
        report_line(context, "%-16s %-10s %-12s %-12s %10s  %s", record->name, state, record->image, record->version,
                    size_format(used, size), record->archive);
        return;
    }
    emit_open(emit, NULL, '{');
    emit_text(emit, "name", record->name);
    emit_text(emit, "state", state);
    emit_text(emit, "archive", record->archive);
    emit_text(emit, "image", record->image);
    emit_text(emit, "version", record->version);
    emit_number(emit, "overlay_bytes", used);
    emit_close(emit, '}');
}

static int run_list(const struct context *context, int count, char **arguments)
{
    cleanup(arguments_finish) struct arguments names = {0};
    auto_free char *state = client_state_folder();
    struct error error = ERROR_INIT;
    struct emit emit = {0};
    int status = EXIT_OK;

    (void)count;
    (void)arguments;
    if (!state || machine_list(state, &names, &error))
        return report_error(context, &error);
    if (context->json) {
        emit_open(&emit, NULL, '{');
        emit_open(&emit, "machines", '[');
    } else if (names.count) {
        report_line(context, "%-16s %-10s %-12s %-12s %10s  %s", "NAME", "STATE", "IMAGE", "VERSION", "WRITTEN",
                    "ARCHIVE");
    }
    for (size_t i = 0; i < names.count; i++) {
        struct vm vm;
        int result = vm_open(context, names.items[i], false, &vm);

        if (result == EXIT_OK)
            print_row(context, &emit, &vm);
        else
            status = result;
        vm_close(&vm);
    }
    if (context->json) {
        emit_close(&emit, ']');
        emit_close(&emit, '}');
    }
    return status;
}

static void print_blocks(const struct context *context, struct emit *emit, const struct qmp_block *blocks, size_t count)
{
    char read[SIZE_TEXT], written[SIZE_TEXT];

    if (context->json)
        emit_open(emit, "blocks", '[');
    for (size_t i = 0; i < count; i++) {
        const struct qmp_block *block = &blocks[i];

        if (!context->json && *block->node != '#') {
            report_line(context, "%-12s read %s in %llu, written %s in %llu", block->node,
                        size_format(block->read_bytes, read), (unsigned long long)block->read_count,
                        size_format(block->write_bytes, written), (unsigned long long)block->write_count);
        } else if (context->json) {
            emit_open(emit, NULL, '{');
            emit_text(emit, "node", block->node);
            emit_number(emit, "read_bytes", block->read_bytes);
            emit_number(emit, "read_count", block->read_count);
            emit_number(emit, "write_bytes", block->write_bytes);
            emit_number(emit, "write_count", block->write_count);
            emit_close(emit, '}');
        }
    }
    if (context->json)
        emit_close(emit, ']');
}

static void print_record(const struct context *context, struct emit *emit, const struct vm *vm, const char *state,
                         pid_t pid)
{
    const struct machine_record *record = &vm->record;
    const struct {
        const char *key, *value;
    } texts[] = {
        {"name", record->name}, {"state", state}, {"archive", record->archive}, {"image", record->image},
        {"version", record->version}, {"previous", record->previous}, {"mac", record->mac}, {"folder", vm->folder.path},
    };
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"process", (uint64_t)pid}, {"ssh_port", vm_ssh_port(record)},
        {"overlay_bytes", vm_used_bytes(vm)}, {"disk_size", record->disk_size},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (context->json)
            emit_text(emit, texts[i].key, *texts[i].value ? texts[i].value : NULL);
        else if (*texts[i].value)
            report_line(context, "%-13s %s", texts[i].key, texts[i].value);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (context->json)
            emit_number(emit, numbers[i].key, numbers[i].value);
        else if (numbers[i].value)
            report_line(context, "%-13s %llu", numbers[i].key, (unsigned long long)numbers[i].value);
}

static int run_info(const struct context *context, int count, char **arguments)
{
    struct qmp_block blocks[QMP_BLOCKS_MAX];
    size_t block_count = 0;
    struct qmp *qmp = NULL;
    struct emit emit = {0};
    struct vm vm;
    char state[QMP_WORD];
    pid_t pid = 0;
    int process, status = vm_open(context, arguments[0], false, &vm);

    (void)count;
    if (status == EXIT_OK) {
        find_state(&vm, state);
        process = machine_process(&vm.folder, &pid, NULL);
        if (process >= 0)
            close(process);
        if (process >= 0 && !vm_control(&vm, &qmp, NULL))
            qmp_blocks(qmp, blocks, &block_count, NULL);
        qmp_close(qmp);
        if (context->json)
            emit_open(&emit, NULL, '{');
        print_record(context, &emit, &vm, state, pid);
        print_blocks(context, &emit, blocks, block_count);
        if (context->json)
            emit_close(&emit, '}');
    }
    vm_close(&vm);
    return status;
}

/* Has the process ended within TIMEOUT_MS? */
static bool wait_for_end(int process, uint64_t timeout_ms)
{
    struct pollfd polled = {.fd = process, .events = POLLIN};
    uint64_t now = clock_ms(), end = now + timeout_ms;

    for (; now < end; now = clock_ms())
        if (poll(&polled, 1, (int)min_u64(end - now, INT32_MAX)) > 0)
            return true;
    return false;
}

static int order(const struct vm *vm, const char *command, struct error *error)
{
    struct qmp *qmp = NULL;
    int result = vm_control(vm, &qmp, error);

    if (!result)
        result = qmp_order(qmp, command, error);
    qmp_close(qmp);
    return result;
}

/* By QMP; where QEMU does not listen, or waits for the network, by a signal. */
static int force_end(const struct vm *vm, int process, struct error *error)
{
    order(vm, "quit", NULL);
    if (wait_for_end(process, QUIT_MS))
        return 0;
    if (process_signal(process, SIGKILL) && errno != ESRCH)
        return error_set_errno(error, errno, "cannot end the machine %s", vm->record.name);
    return wait_for_end(process, QUIT_MS)
               ? 0
               : error_set(error, ERROR_BUSY, "the machine %s does not end", vm->record.name);
}

static int power_down(const struct vm *vm, int process, uint64_t timeout_ms, struct error *error)
{
    int result = order(vm, "system_powerdown", error);

    if (result == ERROR_NOT_FOUND && wait_for_end(process, QUIT_MS))
        return 0;
    if (result)
        return result;
    if (wait_for_end(process, timeout_ms))
        return 0;
    return error_set(error, ERROR_BUSY, "the machine %s has not powered itself off within %llu s; --force ends it",
                     vm->record.name, (unsigned long long)timeout_ms / 1000);
}

/* The last of its processes goes a moment after the first; then it can be started again. */
static void wait_for_lock(const struct vm *vm)
{
    for (uint64_t end = clock_ms() + QUIT_MS; machine_is_running(&vm->folder) && clock_ms() < end;)
        clock_sleep_ms(LOCK_PAUSE_MS);
}

static int run_stop(const struct context *context, int count, char **arguments)
{
    const struct vm_options *options = context->options;
    uint64_t timeout_ms = options->timeout_ms ? options->timeout_ms : STOP_MS;
    struct error error = ERROR_INIT;
    struct vm vm;
    int result, process = -1, status = vm_open(context, arguments[0], false, &vm);
    pid_t pid;

    (void)count;
    if (status == EXIT_OK) {
        process = result = machine_process(&vm.folder, &pid, &error);
        if (process >= 0)
            result = options->force ? force_end(&vm, process, &error) : power_down(&vm, process, timeout_ms, &error);
        if (result)
            status = report_error(context, &error);
        else
            wait_for_lock(&vm);
    }
    if (process >= 0)
        close(process);
    vm_close(&vm);
    return status;
}

static int run_reset(const struct context *context, int count, char **arguments)
{
    static const char *const files[] = {MACHINE_FILE_SNAPSHOT, MACHINE_FILE_VARIABLES, MACHINE_FILE_TPM,
                                        MACHINE_FILE_SERIAL};
    const struct vm_options *options = context->options;
    struct error error = ERROR_INIT;
    struct vm vm;
    int status = vm_open(context, arguments[0], true, &vm);

    (void)count;
    if (status == EXIT_OK)
        status = vm_confirm(context, options->yes, &vm, "throw away everything that is new in");
    for (const struct hypervisor *const *at = hypervisor_table; status == EXIT_OK && *at; at++)
        if ((*at)->overlay && machine_remove(&vm.folder, (*at)->overlay, &error))
            status = report_error(context, &error);
    for (size_t i = 0; status == EXIT_OK && i < sizeof(files) / sizeof(files[0]); i++)
        if (machine_remove(&vm.folder, files[i], &error))
            status = report_error(context, &error);
    vm_close(&vm);
    return status;
}

static int run_delete(const struct context *context, int count, char **arguments)
{
    const struct vm_options *options = context->options;
    struct error error = ERROR_INIT;
    struct vm vm;
    int status = vm_open(context, arguments[0], true, &vm);

    (void)count;
    if (status == EXIT_OK)
        status = vm_confirm(context, options->yes, &vm, "delete the machine");
    if (status == EXIT_OK && machine_delete(&vm.folder, &error))
        status = report_error(context, &error);
    vm_close(&vm);
    return status;
}

const struct command command_vm_list = {
    .name = "vm list",
    .usage = (const char *const[]){"", NULL},
    .summary = "list the machines that keep their state",
    .json = true,
    .run = run_list,
};

const struct command command_vm_info = {
    .name = "vm info",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "show what a machine is made from, and what its disk does",
    .json = true,
    .run = run_info,
};

const struct command command_vm_stop = {
    .name = "vm stop",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "let a machine's guest power itself off",
    .options = stop_table,
    .options_size = sizeof(struct vm_options),
    .run = run_stop,
};

const struct command command_vm_reset = {
    .name = "vm reset",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "throw away what a machine has written, as if it were new",
    .options = confirm_table,
    .options_size = sizeof(struct vm_options),
    .run = run_reset,
};

const struct command command_vm_delete = {
    .name = "vm delete",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "delete a machine with all that it has written",
    .options = confirm_table,
    .options_size = sizeof(struct vm_options),
    .run = run_delete,
};
