/* circular boot: a machine on the mounted disk, with a throw-away overlay for what it writes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "cmd/boot_watch.h"
#include "cmd/machine_options.h"
#include "cmd/menu.h"
#include "cmd/profile_file.h"
#include "cmd/root_partition.h"
#include "cmd/running.h"
#include "cmd/signals.h"
#include "cmd/volume.h"
#include "serve/mountpoint.h"
#include "vm/qmp.h"
#include "vm/tpm.h"

struct boot_options {
    struct machine_options machine;
    bool snapshot;
    const char *record, *sha256;
    bool boot;        /* of profile record: --boot */
    const char *from; /* --from */
};

#define BOOT_OPTIONS                                                                                                  \
    MACHINE_OPTIONS(struct boot_options, machine), MACHINE_SERIAL_OPTION(struct boot_options, machine)

static const struct option boot_table[] = {
    BOOT_OPTIONS,
    {"snapshot", 0, OPTION_FLAG, NULL, "throw away what the machine writes; boot always does",
     offsetof(struct boot_options, snapshot)},
    {"sha256", 0, OPTION_TEXT, "DIGEST", VOLUME_SHA256_HELP, offsetof(struct boot_options, sha256)},
    {"record", 0, OPTION_TEXT, "FILE", VOLUME_RECORD_HELP, offsetof(struct boot_options, record)},
    {0},
};

static const struct option record_table[] = {
    {"output", 'o', OPTION_TEXT, "FILE", "where the profile goes", offsetof(struct boot_options, record)},
    {"boot", 0, OPTION_FLAG, NULL, "boot URL/NAME[@VERSION] once", offsetof(struct boot_options, boot)},
    {"from", 0, OPTION_TEXT, "DIR", "take it from this mount, which is in use",
     offsetof(struct boot_options, from)},
    BOOT_OPTIONS,
    {0},
};

/* What a boot has to undo. */
struct boot {
    struct machine_request request;
    struct shared_disk disk;
    struct boot_watch watch;
    uint64_t fetched_before, requests_before; /* by those who had the disk mounted already */
    char *chosen;                  /* by a person, from an archive: what to boot */
    struct private_folder scratch; /* of the overlay and what else the machine needs */
    bool prepared;
    char *overlay, *variables, *display_socket, *tpm_folder, *tpm_socket, *control;
};

static void boot_finish(struct boot *boot)
{
    const struct hypervisor *hypervisor = boot->request.hypervisor;
    const char *files[] = {boot->overlay, boot->variables, boot->display_socket, boot->control};

    if (boot->prepared && hypervisor->finish)
        hypervisor->finish(&boot->request.plan);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (files[i])
            unlink(files[i]);
    if (boot->tpm_folder)
        tpm_remove(boot->tpm_folder);
    shared_disk_close(&boot->disk);
    private_folder_remove(&boot->scratch);
    free(boot->chosen);
    free(boot->overlay);
    free(boot->variables);
    free(boot->display_socket);
    free(boot->tpm_folder);
    free(boot->tpm_socket);
    free(boot->control);
    if (boot->request.plan.control_fd > 0)
        close(boot->request.plan.control_fd);
    machine_request_finish(&boot->request);
}

/* The files of a machine that is thrown away lie in the scratch folder. */
static int name_files(struct boot *boot, struct error *error)
{
    struct machine_plan *plan = &boot->request.plan;

    boot->overlay = path_join(boot->scratch.path, "overlay.qcow2");
    boot->variables = path_join(boot->scratch.path, "variables.fd");
    boot->display_socket = path_join(boot->scratch.path, "display");
    boot->tpm_folder = path_join(boot->scratch.path, "tpm");
    boot->tpm_socket = path_join(boot->scratch.path, "tpm.socket");
    if (!boot->overlay || !boot->variables || !boot->display_socket || !boot->tpm_folder ||
        !boot->tpm_socket)
        return error_set(error, ERROR_SYSTEM, "no memory to boot");
    plan->name = boot->disk.name;
    plan->disk_is_iso = boot->disk.iso;
    plan->folder = boot->scratch.path;
    plan->disk = boot->disk.path;
    plan->overlay = boot->overlay;
    plan->variables = boot->variables;
    plan->display_socket = boot->display_socket;
    plan->tpm_folder = boot->tpm_folder;
    plan->tpm_socket = boot->tpm_socket;
    plan->throw_away = true;
    plan->reboot_ends = true;
    return 0;
}

/* Where the machine is told that its disk is another one: see boot_watch.h. */
static int open_control(struct boot *boot, struct error *error)
{
    auto_close int folder = open(boot->scratch.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = folder < 0 ? error_set_errno(error, errno, "cannot open %s", boot->scratch.path)
                        : socket_listen(folder, BOOT_CONTROL, error);

    boot->control = path_join(boot->scratch.path, BOOT_CONTROL);
    if (fd > 0)
        boot->request.plan.control_fd = fd;
    return fd < 0 ? fd : boot->control ? 0 : error_set(error, ERROR_SYSTEM, "no memory to boot");
}

/* What the hypervisor needs besides the disk. */
static int prepare(struct boot *boot, struct error *error)
{
    const struct hypervisor *hypervisor = boot->request.hypervisor;
    int result = private_folder_make(PRIVATE_SCRATCH, "boot", &boot->scratch, error);

    if (!result)
        result = name_files(boot, error);
    if (!result && hypervisor->mending == MENDING_BY_QMP)
        result = open_control(boot, error);
    if (!result && hypervisor->needs_root)
        result = root_partition_find(boot->disk.path, &boot->request.plan.root_partition, error);
    if (result || !hypervisor->prepare)
        return result;
    boot->prepared = true;
    return hypervisor->prepare(&boot->request.plan, error);
}

/* Start what the hypervisor's command says. */
static int start_machine(struct boot *boot, pid_t *pid_out, struct error *error)
{
    int *control = &boot->request.plan.control_fd;
    cleanup(hypervisor_command_finish) struct hypervisor_command command = {0};
    int result = boot->request.hypervisor->command(&boot->request.plan, &command, error);

    for (size_t i = 0; !result && i < command.environment.count; i++)
        if (putenv(steal_pointer(&command.environment.items[i]))) /* the environment's from now on */
            result = error_set_errno(error, errno, "cannot set the environment");
    if (!result && *control > 0 && fcntl(*control, F_SETFD, 0))
        result = error_set_errno(error, errno, "cannot hand on the machine's socket");
    if (!result)
        result = process_start(command.arguments.items[0], command.arguments.items, pid_out, error);
    if (*control > 0) /* the machine's alone */
        close(*control);
    *control = 0;
    return result;
}

static int run_machine(const struct context *context, struct boot *boot, int *status_out, struct error *error)
{
    struct termios terminal;
    bool have_terminal = !tcgetattr(STDIN_FILENO, &terminal);
    int signals = signals_open(error), result;

    machine_tell_display(context, &boot->request.plan);
    fflush(stdout);
    result = signals < 0 ? signals : start_machine(boot, &boot->watch.machine, error);
    if (result)
        return result;
    *status_out = boot_watch(context, &boot->watch, signals);
    if (have_terminal) /* a QEMU that was killed leaves it raw */
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
    return 0;
}

/*
 * What was fetched while the machine ran; if others use the same mount, for all of them. UNAVAILABLE: the mount does
 * not answer.
 */
static int tell_fetched(const struct context *context, const struct boot *boot)
{
    char fetched[SIZE_TEXT], stored[SIZE_TEXT];
    uint64_t bytes, requests, all = boot->disk.stored_bytes;
    int result = shared_disk_fetched(&boot->disk, &bytes, &requests);

    if (result == ERROR_UNAVAILABLE)
        report_line(context, "the process that serves the disk does not answer: what was fetched is not known");
    if (result)
        return result;
    if (!boot->watch.disk_lost) { /* else whoever had counted has gone */
        bytes -= boot->fetched_before;
        requests -= boot->requests_before;
    }
    report_line(context, "fetched %s in %llu requests%s, %.1f %% of the image's %s", size_format(bytes, fetched),
                (unsigned long long)requests,
                boot->watch.disk_lost ? " since another process serves the disk" : "",
                all ? 100.0 * (double)bytes / (double)all : 0, size_format(all, stored));
    return 0;
}

static int keep_profile(const struct context *context, const char *mount, const char *path, struct error *error)
{
    cleanup(profile_finish) struct profile profile = {0};
    struct running running = {.fd = -1};
    int result = running_open(mount, &running, error);

    if (!result)
        result = running_profile(&running, &profile, error);
    running_close(&running);
    return result ? result : profile_file_save(context, path, &profile, error);
}

/* The machine has ended with STATUS. Returns the program's. */
static int end(const struct context *context, const struct boot *boot, int status)
{
    const struct boot_options *options = context->options;
    struct error error = ERROR_INIT;
    bool hangs = tell_fetched(context, boot) == ERROR_UNAVAILABLE;

    if (options->record && hangs)
        error_set(&error, ERROR_UNAVAILABLE, "the process that recorded the boot does not answer");
    else if (options->record && boot->watch.disk_lost)
        error_set(&error, ERROR_UNAVAILABLE, "the process that recorded the boot has ended before it");
    else if (!options->record || !keep_profile(context, boot->disk.path, options->record, &error))
        return status;
    error_prefix(&error, "%s is not written", options->record);
    return report_error(context, &error);
}

/* Have the disk mounted. A profile is of one boot: nobody else may read meanwhile. */
static int open_disk(const struct context *context, const char *text, struct boot *boot)
{
    const struct boot_options *options = context->options;
    const struct shared_disk_wish wish = {.text = text,
                                          .sha256 = options->sha256,
                                          .or_archive = true,
                                          .as_told = true,
                                          .alone = options->record != NULL};
    struct volume volume = {.sha256 = options->sha256};
    struct error error = ERROR_INIT;
    int status;

    if (options->record && volume_is_file(text, &volume))
        return report_usage(context, "only published disks have profiles");
    status = shared_disk_open(context, &wish, &boot->disk);
    boot->watch = (struct boot_watch){.request = &boot->request, .disk = &boot->disk, .wish = wish};
    if (status == EXIT_OK && machine_check_architecture(text, boot->disk.architecture, &error))
        status = report_error(context, &error);
    if (status == EXIT_OK && !boot->disk.fresh)
        shared_disk_fetched(&boot->disk, &boot->fetched_before, &boot->requests_before);
    return status == EXIT_OK ? machine_request_open(context, &boot->request) : status;
}

/* The same; where TEXT (NULL: the configured one) is an archive, a person chooses from it. */
static int choose_disk(const struct context *context, const char *text, struct boot *boot)
{
    int status = text ? open_disk(context, text, boot) : SHARED_DISK_ARCHIVE;

    if (status != SHARED_DISK_ARCHIVE)
        return status;
    status = menu_choose(context, text, &boot->chosen);
    if (status == EXIT_OK && !boot->chosen)
        return EXIT_CANCELLED;
    return status == EXIT_OK ? open_disk(context, boot->chosen, boot) : status;
}

static int boot_disk(const struct context *context, const char *text, struct boot *boot)
{
    struct error error = ERROR_INIT;
    int status = choose_disk(context, text, boot);

    if (status != EXIT_OK)
        return status;
    if (prepare(boot, &error) || run_machine(context, boot, &status, &error))
        return report_error(context, &error);
    return end(context, boot, status);
}

/* Everything that the host lacks is told before anything is opened. */
static int check_host(const struct boot *boot, const char *record, struct error *error)
{
    const struct hypervisor *hypervisor = boot->request.hypervisor;
    int result = profile_file_check(record, error);

    if (!result)
        result = hypervisor->find(&boot->request.plan, error);
    if (!result && hypervisor->check)
        result = hypervisor->check(&boot->request.plan, error);
    return result ? result : mountpoint_check_host(error);
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct boot_options *options = context->options;
    const char *text = count && *arguments[0] != '-' ? arguments[0] : NULL; /* else it is the hypervisor's */
    struct boot boot = {.request = MACHINE_REQUEST_INIT, .disk = SHARED_DISK_INIT};
    struct error error = ERROR_INIT;
    int status = machine_options_read(context, &options->machine, &boot.request);

    if (status == EXIT_OK) {
        boot.request.plan.extra = text ? arguments + 1 : arguments;
        boot.request.plan.extra_count = (size_t)count - (text ? 1 : 0);
        if (check_host(&boot, options->record, &error)) {
            status = report_error(context, &error);
        } else {
            private_folders_clean("boot");
            status = boot_disk(context, text, &boot);
        }
    }
    boot_finish(&boot);
    return status;
}

static int record_from(const struct context *context)
{
    const struct boot_options *options = context->options;
    struct error error = ERROR_INIT;
    int result = profile_file_check(options->record, &error);

    if (!result)
        result = keep_profile(context, options->from, options->record, &error);
    return result ? report_error(context, &error) : EXIT_OK;
}

static int run_record(const struct context *context, int count, char **arguments)
{
    const struct boot_options *options = context->options;

    if (!options->record)
        return report_usage(context, "--output is needed");
    if (options->boot == (options->from != NULL))
        return report_usage(context, "one of --boot and --from is needed");
    if (options->from && count)
        return report_usage(context, "--from takes the profile of a mount: '%s' is one argument too many",
                            arguments[0]);
    if (options->boot && !count)
        return report_usage(context, "--boot needs URL/NAME[@VERSION]");
    return options->from ? record_from(context) : run(context, count, arguments);
}

const struct command command_boot = {
    .name = "boot",
    .usage = (const char *const[]){"URL/NAME[@VERSION] [ARG...]", "URL-OF-FILE [ARG...]", "[URL] [ARG...]", NULL},
    .summary = "boot a published disk in a machine; what it writes is thrown away",
    .options = boot_table,
    .options_size = sizeof(struct boot_options),
    .client = true,
    .run = run,
};

const struct command command_profile_record = {
    .name = "profile record",
    .usage = (const char *const[]){"URL/NAME[@VERSION] [ARG...]", "", NULL},
    .summary = "write which blocks a boot, or the readers of a mount, have read",
    .options = record_table,
    .options_size = sizeof(struct boot_options),
    .client = true,
    .run = run_record,
};
