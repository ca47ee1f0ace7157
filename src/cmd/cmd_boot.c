/* circular boot: QEMU on the mounted disk, with a throw-away overlay for what it writes. */
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
#include "cmd/profile_file.h"
#include "cmd/signals.h"
#include "cmd/volume.h"
#include "serve/mountpoint.h"
#include "vm/qemu.h"

#define MEMORY_DEFAULT (2 * GIB)
#define CPUS_MAX       255

struct boot_options {
    uint64_t memory;
    uint64_t cpus;
    const char *accelerator;
    const char *prefetch, *record;
};

#define MACHINE_OPTIONS                                                                                               \
    {"memory", 0, OPTION_POSITIVE_SIZE, "SIZE", "memory of the machine, 2G unless told otherwise",                    \
     offsetof(struct boot_options, memory)},                                                                          \
    {"cpus", 0, OPTION_POSITIVE_NUMBER, "COUNT", "processors of the machine, 1 unless told otherwise",                \
     offsetof(struct boot_options, cpus)},                                                                            \
    {"accel", 0, OPTION_TEXT, "NAME", "tcg, which works everywhere, or kvm, which is fast where it works; tcg "       \
     "unless told otherwise", offsetof(struct boot_options, accelerator)},                                            \
    {"prefetch", 0, OPTION_TEXT, "WHAT", VOLUME_PREFETCH_HELP, offsetof(struct boot_options, prefetch)}

static const struct option boot_table[] = {
    MACHINE_OPTIONS,
    {"record", 0, OPTION_TEXT, "FILE", VOLUME_RECORD_HELP, offsetof(struct boot_options, record)},
    {0},
};

static const struct option record_table[] = {
    {"output", 'o', OPTION_TEXT, "FILE", "where the profile goes", offsetof(struct boot_options, record)},
    MACHINE_OPTIONS,
    {0},
};

/* What a boot has to undo. */
struct boot {
    struct volume volume;
    struct private_folder scratch; /* of the overlay */
    char *disk;
    char *overlay;
};

static void boot_finish(struct boot *boot)
{
    if (boot->overlay)
        unlink(boot->overlay);
    volume_close(&boot->volume);
    private_folder_remove(&boot->scratch);
    free(boot->disk);
    free(boot->overlay);
}

/* The disk at a private mount point, and the overlay on it. */
static int prepare(const struct qemu_programs *programs, struct boot *boot, struct error *error)
{
    int result = private_folder_make(PRIVATE_SCRATCH, "boot", &boot->scratch, error);

    if (!result)
        result = volume_mount_privately(&boot->volume, "boot", error);
    if (result)
        return result;
    boot->disk = volume_disk_path(&boot->volume, boot->volume.folder.path);
    boot->overlay = path_join(boot->scratch.path, "overlay.qcow2");
    if (!boot->disk || !boot->overlay)
        return error_set(error, ERROR_SYSTEM, "no memory to boot");
    return qemu_make_overlay(programs, boot->disk, boot->overlay, error);
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

static int run_machine(const struct context *context, const struct qemu_programs *programs, struct boot *boot,
                       char **extra, size_t extra_count, int *status_out, struct error *error)
{
    const struct boot_options *options = context->options;
    struct qemu_settings settings = {
        .name = boot->volume.opened.location.name,
        .overlay = boot->overlay,
        .accelerator = options->accelerator ? options->accelerator : "tcg",
        .memory_bytes = options->memory ? options->memory : MEMORY_DEFAULT,
        .cpu_count = options->cpus ? (unsigned)options->cpus : 1,
        .extra = extra,
        .extra_count = extra_count,
    };
    char **arguments = qemu_arguments(programs, &settings);
    struct termios terminal;
    bool have_terminal = !tcgetattr(STDIN_FILENO, &terminal);
    int signals = signals_open(error), result;
    pid_t pid;

    if (!arguments)
        return error_set(error, ERROR_SYSTEM, "no memory to boot");
    result = signals < 0 ? signals : process_start(programs->system, arguments, &pid, error);
    qemu_free_arguments(arguments);
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

static int check_options(const struct context *context)
{
    const struct boot_options *options = context->options;

    if (options->accelerator && strcmp(options->accelerator, "tcg") && strcmp(options->accelerator, "kvm"))
        return report_usage(context, "--accel is tcg or kvm, not '%s'", options->accelerator);
    if (options->cpus > CPUS_MAX)
        return report_usage(context, "--cpus can be %d at most", CPUS_MAX);
    if (options->memory && options->memory < MIB)
        return report_usage(context, "--memory is a size such as 2G; %llu bytes are too few",
                            (unsigned long long)options->memory);
    return EXIT_OK;
}

static int boot_volume(const struct context *context, const struct qemu_programs *programs, const char *text,
                       char **extra, size_t extra_count)
{
    struct boot boot = {0};
    struct error error = ERROR_INIT;
    const struct boot_options *options = context->options;
    int status = volume_parse_prefetch(context, options->prefetch, &boot.volume.prefetch);

    if (status == EXIT_OK)
        status = volume_open(context, text, false, &boot.volume);

    if (status == EXIT_OK) {
        if (prepare(programs, &boot, &error) ||
            run_machine(context, programs, &boot, extra, extra_count, &status, &error))
            status = report_error(context, &error);
        else
            status = end(context, &boot.volume, status);
    }
    boot_finish(&boot);
    return status;
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct boot_options *options = context->options;
    const char *search_path = getenv("PATH");
    struct qemu_programs programs;
    struct error error = ERROR_INIT;
    int status = check_options(context);

    if (status != EXIT_OK)
        return status;
    volume_limit_memory();
    if (profile_file_check(options->record, &error) ||
        qemu_find(search_path ? search_path : "/usr/bin:/bin", &programs, &error) ||
        mountpoint_check_host(&error))
        return report_error(context, &error);
    private_folders_clean("boot");
    return boot_volume(context, &programs, arguments[0], arguments + 1, (size_t)count - 1);
}

static int run_record(const struct context *context, int count, char **arguments)
{
    const struct boot_options *options = context->options;

    return options->record ? run(context, count, arguments) : report_usage(context, "--output is needed");
}

const struct command command_boot = {
    .name = "boot",
    .usage = (const char *const[]){"URL/NAME[@VERSION] [QEMU-ARG...]", NULL},
    .summary = "boot a published disk in QEMU; what it writes is thrown away",
    .options = boot_table,
    .options_size = sizeof(struct boot_options),
    .client = true,
    .run = run,
};

const struct command command_profile_record = {
    .name = "profile record",
    .usage = (const char *const[]){"URL/NAME[@VERSION] [QEMU-ARG...]", NULL},
    .summary = "boot a published disk in QEMU once and write which blocks it read",
    .options = record_table,
    .options_size = sizeof(struct boot_options),
    .client = true,
    .run = run_record,
};
