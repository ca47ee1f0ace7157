/* circular boot: a machine on the mounted disk, with a throw-away overlay for what it writes. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "cmd/machine_options.h"
#include "cmd/profile_file.h"
#include "cmd/root_partition.h"
#include "cmd/running.h"
#include "cmd/signals.h"
#include "cmd/volume.h"
#include "image/archive.h"
#include "serve/mountpoint.h"
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
    struct volume volume;
    struct private_folder scratch; /* of the overlay and what else the machine needs */
    bool prepared;
    char *disk, *overlay, *variables, *display_socket, *tpm_folder, *tpm_socket;
};

static void boot_finish(struct boot *boot)
{
    const struct hypervisor *hypervisor = boot->request.hypervisor;
    const char *files[] = {boot->overlay, boot->variables, boot->display_socket};

    if (boot->prepared && hypervisor->finish)
        hypervisor->finish(&boot->request.plan);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (files[i])
            unlink(files[i]);
    if (boot->tpm_folder)
        tpm_remove(boot->tpm_folder);
    volume_close(&boot->volume);
    private_folder_remove(&boot->scratch);
    free(boot->disk);
    free(boot->overlay);
    free(boot->variables);
    free(boot->display_socket);
    free(boot->tpm_folder);
    free(boot->tpm_socket);
    machine_request_finish(&boot->request);
}

/* The files of a machine that is thrown away lie in the scratch folder. */
static int name_files(struct boot *boot, struct error *error)
{
    struct machine_plan *plan = &boot->request.plan;
    struct circular_version version;

    circular_describe(boot->volume.disk, &version);
    boot->disk = volume_disk_path(&boot->volume, boot->volume.folder.path);
    boot->overlay = path_join(boot->scratch.path, "overlay.qcow2");
    boot->variables = path_join(boot->scratch.path, "variables.fd");
    boot->display_socket = path_join(boot->scratch.path, "display");
    boot->tpm_folder = path_join(boot->scratch.path, "tpm");
    boot->tpm_socket = path_join(boot->scratch.path, "tpm.socket");
    if (!boot->disk || !boot->overlay || !boot->variables || !boot->display_socket || !boot->tpm_folder ||
        !boot->tpm_socket)
        return error_set(error, ERROR_SYSTEM, "no memory to boot");
    plan->name = version.name;
    plan->disk_is_iso = boot->volume.iso;
    plan->folder = boot->scratch.path;
    plan->disk = boot->disk;
    plan->overlay = boot->overlay;
    plan->variables = boot->variables;
    plan->display_socket = boot->display_socket;
    plan->tpm_folder = boot->tpm_folder;
    plan->tpm_socket = boot->tpm_socket;
    plan->throw_away = true;
    plan->reboot_ends = true;
    return 0;
}

/* The disk at a private mount point, and what the hypervisor needs besides. */
static int prepare(struct boot *boot, struct error *error)
{
    const struct hypervisor *hypervisor = boot->request.hypervisor;
    int result = private_folder_make(PRIVATE_SCRATCH, "boot", &boot->scratch, error);

    if (!result && !volume_is_direct(&boot->volume))
        result = volume_mount_privately(&boot->volume, "boot", error);
    if (!result)
        result = name_files(boot, error);
    if (!result && hypervisor->needs_root)
        result = root_partition_find(boot->disk, &boot->request.plan.root_partition, error);
    if (result || !hypervisor->prepare)
        return result;
    boot->prepared = true;
    return hypervisor->prepare(&boot->request.plan, error);
}

/* Wait for the machine; signals that are meant for us are passed on to it. Returns its exit status. */
static int wait_for_machine(pid_t pid, int signals)
{
    int process = (int)syscall(SYS_pidfd_open, pid, 0), number, status;

    while (process >= 0 && (number = signals_wait(signals, process)) > 0)
        kill(pid, number == SIGHUP ? SIGTERM : number);
    if (process >= 0)
        close(process);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Start what the hypervisor's command says. */
static int start_machine(const struct boot *boot, pid_t *pid_out, struct error *error)
{
    cleanup(hypervisor_command_finish) struct hypervisor_command command = {0};
    int result = boot->request.hypervisor->command(&boot->request.plan, &command, error);

    for (size_t i = 0; !result && i < command.environment.count; i++)
        if (putenv(steal_pointer(&command.environment.items[i]))) /* the environment's from now on */
            result = error_set_errno(error, errno, "cannot set the environment");
    return result ? result : process_start(command.arguments.items[0], command.arguments.items, pid_out, error);
}

static void tell_display(const struct context *context, const struct machine_plan *plan)
{
    if (plan->display == MACHINE_DISPLAY_VNC || plan->display == MACHINE_DISPLAY_SPICE)
        report_line(context, "the display is %s at the socket %s",
                    plan->display == MACHINE_DISPLAY_VNC ? "VNC" : "SPICE", plan->display_socket);
    fflush(stdout);
}

static int run_machine(const struct context *context, struct boot *boot, int *status_out, struct error *error)
{
    struct termios terminal;
    bool have_terminal = !tcgetattr(STDIN_FILENO, &terminal);
    int signals = signals_open(error), result;
    pid_t pid;

    tell_display(context, &boot->request.plan);
    result = signals < 0 ? signals : start_machine(boot, &pid, error);
    if (result)
        return result;
    *status_out = wait_for_machine(pid, signals);
    if (have_terminal) /* a QEMU that was killed leaves it raw */
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
    return 0;
}

static void tell_fetched(const struct context *context, const struct volume *volume)
{
    struct circular_statistics statistics = {.size = sizeof(statistics)};
    struct circular_version version;
    char fetched[SIZE_TEXT], stored[SIZE_TEXT];
    double share;

    circular_disk_statistics(volume->disk, &statistics);
    circular_describe(volume->disk, &version);
    share = version.stored_size ? 100.0 * (double)statistics.fetched_bytes / (double)version.stored_size : 0;
    report_line(context, "fetched %s in %llu requests, %.1f %% of the image's %s",
                size_format(statistics.fetched_bytes, fetched), (unsigned long long)statistics.requests, share,
                size_format(version.stored_size, stored));
}

/* The machine has ended with STATUS. Returns the program's. */
static int end(const struct context *context, const struct volume *volume, int status)
{
    const struct boot_options *options = context->options;
    struct error error = ERROR_INIT;

    tell_fetched(context, volume);
    return profile_file_write(context, options->record, volume->disk, &error) ? report_error(context, &error) : status;
}

/* A published disk may say what it runs on. */
static int check_architecture(const struct volume *volume, struct error *error)
{
    const struct catalog_version *version;
    struct circular_version described;
    struct manifest manifest;
    int result;

    if (volume->plain)
        return 0;
    circular_describe(volume->disk, &described);
    result = archive_find(volume->opened.archive, described.name, described.version, &version, error);
    if (!result)
        result = archive_manifest(volume->opened.archive, version, &manifest, error);
    return result ? result : machine_check_architecture(volume->source, manifest.architecture, error);
}

static int boot_volume(const struct context *context, const char *text, struct boot *boot)
{
    const struct boot_options *options = context->options;
    struct error error = ERROR_INIT;
    int status;

    boot->volume.sha256 = options->sha256;
    status = volume_open(context, text, false, &boot->volume);
    if (status == EXIT_OK && options->record && boot->volume.plain)
        status = report_usage(context, "only published disks have profiles");
    if (status != EXIT_OK)
        return status;
    if (check_architecture(&boot->volume, &error) || prepare(boot, &error) || run_machine(context, boot, &status, &error))
        return report_error(context, &error);
    return end(context, &boot->volume, status);
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
    struct boot boot = {0};
    struct error error = ERROR_INIT;
    int status = machine_options_read(context, &options->machine, &boot.request);

    if (status == EXIT_OK) {
        volume_limit_memory();
        context->client->patience_ms = MACHINE_PATIENCE_MS;
        boot.request.plan.extra = arguments + 1;
        boot.request.plan.extra_count = (size_t)count - 1;
        if (check_host(&boot, options->record, &error)) {
            status = report_error(context, &error);
        } else {
            private_folders_clean("boot");
            status = boot_volume(context, arguments[0], &boot);
        }
    }
    boot_finish(&boot);
    return status;
}

static int record_from(const struct context *context)
{
    const struct boot_options *options = context->options;
    cleanup(profile_finish) struct profile profile = {0};
    struct running running = {.fd = -1};
    struct error error = ERROR_INIT;
    int result = profile_file_check(options->record, &error);

    if (!result)
        result = running_open(options->from, &running, &error);
    if (!result)
        result = running_profile(&running, &profile, &error);
    running_close(&running);
    if (!result)
        result = profile_file_save(context, options->record, &profile, &error);
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
        return report_usage(context, "--from takes the profile of a mount: '%s' is one argument too many", arguments[0]);
    if (options->boot && !count)
        return report_usage(context, "--boot needs URL/NAME[@VERSION]");
    return options->from ? record_from(context) : run(context, count, arguments);
}

const struct command command_boot = {
    .name = "boot",
    .usage = (const char *const[]){"URL/NAME[@VERSION] [ARG...]", "URL-OF-FILE [ARG...]", NULL},
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
