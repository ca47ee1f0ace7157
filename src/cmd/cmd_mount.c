/* circular mount: a published disk, a whole catalog, or the file system inside a disk, at a mount point. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "cmd/daemon.h"
#include "cmd/inquiry.h"
#include "cmd/profile_file.h"
#include "cmd/signals.h"
#include "cmd/volume.h"
#include "serve/filesystem.h"
#include "serve/mountpoint.h"

struct mount_options {
    bool foreground;
    bool allow_other;
    const char *record, *sha256;
    bool inside; /* --fs */
    uint64_t partition;
    const char *volume;
};

static const struct option mount_table[] = {
    {"foreground", 'f', OPTION_FLAG, NULL, "stay in the foreground", offsetof(struct mount_options, foreground)},
    {"allow-other", 0, OPTION_FLAG, NULL, "let other users read it too",
     offsetof(struct mount_options, allow_other)},
    {"record", 0, OPTION_TEXT, "FILE", VOLUME_RECORD_HELP, offsetof(struct mount_options, record)},
    {"sha256", 0, OPTION_TEXT, "DIGEST", VOLUME_SHA256_HELP, offsetof(struct mount_options, sha256)},
    {"fs", 0, OPTION_FLAG, NULL, "mount the file system inside the disk, read-only; for root",
     offsetof(struct mount_options, inside)},
    {"partition", 0, OPTION_POSITIVE_NUMBER, "NUMBER", "with --fs: that of this partition, not of the largest",
     offsetof(struct mount_options, partition)},
    {"volume", 0, OPTION_TEXT, "NAME", "with --fs: that of this logical volume, NAME or GROUP/NAME",
     offsetof(struct mount_options, volume)},
    {0},
};

static void tell_mounted(const struct context *context, const struct volume *volume, const char *folder)
{
    auto_free char *disk = volume->disk ? volume_disk_path(volume, folder) : NULL;
    struct circular_version version;
    char size[SIZE_TEXT];

    if (disk) {
        circular_describe(volume->disk, &version);
        report_line(context, "%s is %s, %s", disk, volume->source, size_format(version.disk_size, size));
    } else {
        report_line(context, "%s holds the %zu version%s of %s", folder, circular_archive_count(volume->archive),
                    circular_archive_count(volume->archive) == 1 ? "" : "s",
                    volume->source);
    }
    fflush(stdout);
}

static void tell_end(const struct context *context, const struct volume *volume)
{
    struct circular_statistics statistics = {.size = sizeof(statistics)};
    char size[SIZE_TEXT];

    if (volume->archive)
        circular_archive_statistics(volume->archive, &statistics);
    else
        circular_disk_statistics(volume->disk, &statistics);
    report_line(context, "fetched %s in %llu requests", size_format(statistics.fetched_bytes, size),
                (unsigned long long)statistics.requests);
}

/*
 * The file system inside the disk at FOLDER. The disk itself is mounted where nobody sees it, and hidden as soon as
 * the file system holds it: unmounting FOLDER then ends everything.
 */
static int mount_inside(const struct context *context, struct volume *volume, const char *folder,
                        struct error *error)
{
    const struct mount_options *options = context->options;
    auto_free char *disk = volume_disk_path(volume, volume->folder.path);
    auto_free char *name = NULL;
    struct filesystem_settings settings = {
        .disk = disk,
        .server = volume->server,
        .partition = (unsigned)min_u64(options->partition, UINT_MAX),
        .volume = options->volume,
        .folder = folder,
    };
    struct filesystem filesystem;
    char size[SIZE_TEXT], where[32] = "";

    if (volume_keep(volume, error))
        return error->code;
    /* By the first two numbers running.c finds this process. */
    name = text_format(FILESYSTEM_LOOP_NAME "%d.%d:%s", (int)getpid(), volume->kept_fd, volume->source);
    if (!disk || !name)
        return error_set(error, ERROR_SYSTEM, "no memory to mount");
    settings.name = name;
    if (filesystem_mount(&settings, &filesystem, error))
        return error->code;
    volume_hide(volume);
    if (filesystem.partition.number)
        snprintf(where, sizeof(where), "partition %u of ", filesystem.partition.number);
    report_line(context, "%s is the %s file system, %s, in %s%s%s%s", folder, filesystem.partition.type,
                size_format(filesystem.partition.size, size), filesystem.volume, *filesystem.volume ? " on " : "",
                where, volume->source);
    fflush(stdout);
    return 0;
}

static int mount_volume(const struct context *context, struct volume *volume, const char *folder,
                        struct error *error)
{
    const struct mount_options *options = context->options;
    int result;

    if (!options->inside) {
        result = volume_mount(volume, folder, options->allow_other, error);
        if (!result)
            tell_mounted(context, volume, folder);
        return result;
    }
    private_folders_clean("fs");
    result = volume_mount_privately(volume, "fs", error);
    return result ? result : mount_inside(context, volume, folder, error);
}

/* The terminal is gone by now, unless in the foreground. */
static int record(const struct context *context, const struct volume *volume)
{
    const struct mount_options *options = context->options;
    struct error error = ERROR_INIT;

    if (!profile_file_write(context, options->record, volume->disk, &error))
        return EXIT_OK;
    if (options->foreground)
        return report_error(context, &error);
    log_error("%s", error.message);
    return EXIT_SYSTEM;
}

/* Serve until the file system is unmounted or a signal comes. */
static int serve(const struct context *context, struct volume *volume, const char *folder)
{
    const struct mount_options *options = context->options;
    struct error error = ERROR_INIT;
    int signals = signals_open(&error);
    bool wanted = true;

    if (signals < 0 || mount_volume(context, volume, folder, &error))
        return report_error(context, &error);
    if (!options->foreground)
        wanted = daemon_ready(context);
    if ((!wanted || signals_wait(signals, fuse_server_ended(volume->server))) && options->inside &&
        mountpoint_release(folder, true, &error))
        log_warning("%s", error.message);
    tell_end(context, volume);
    return record(context, volume);
}

static int check_options(const struct context *context)
{
    const struct mount_options *options = context->options;

    if (!options->inside && (options->partition || options->volume))
        return report_usage(context, "--partition and --volume are for --fs");
    if (options->inside && options->allow_other)
        return report_usage(context, "--allow-other is not for --fs: the file system's own permissions count");
    if (options->partition > PARTITIONS_MAX)
        return report_usage(context, "there is no partition %llu", (unsigned long long)options->partition);
    return EXIT_OK;
}

static int check_host(const struct context *context, struct error *error)
{
    const struct mount_options *options = context->options;
    int result;

    if (options->inside && geteuid() != 0)
        return error_set(error, ERROR_SYSTEM, "mounting the file system inside a disk is for root (sudo); without "
                                              "--fs the disk itself can be mounted by anybody");
    result = profile_file_check(options->record, error);
    return result ? result : mountpoint_check_host(error);
}

/* What is mounted at FOLDER already, if anything, is looked at: does it answer? */
static int check_answers(const char *folder, struct error *error)
{
    auto_free char *absolute = mountpoint_absolute(folder);
    struct mount_entry mounted = {0};
    int result = 0;

    if (absolute && !mount_find(absolute, &mounted, NULL))
        result = inquiry_check(absolute, folder, error);
    mount_entry_finish(&mounted);
    return result;
}

static int mount_at(const struct context *context, const char *text, const char *folder)
{
    const struct mount_options *options = context->options;
    struct volume volume = {.sha256 = options->sha256};
    auto_free char *absolute = NULL;
    struct error error = ERROR_INIT;
    int status = check_options(context);

    if (status != EXIT_OK)
        return status;
    volume_limit_memory();
    if (check_host(context, &error) || check_answers(folder, &error) || mountpoint_prepare(folder, &absolute, &error))
        return report_error(context, &error);
    if (!options->foreground && daemon_begin(&error))
        return report_error(context, &error);
    status = volume_open(context, text, !options->inside && !options->record, &volume);
    if (status == EXIT_OK && options->record && volume.plain)
        status = report_usage(context, "only published disks have profiles");
    if (status == EXIT_OK)
        status = serve(context, &volume, absolute);
    volume_close(&volume);
    return status;
}

static int run(const struct context *context, int count, char **arguments)
{
    (void)count;
    return mount_at(context, arguments[0], arguments[1]);
}

/* The original's order: httpstorged -f DIR URL. */
static int run_original(const struct context *context, int count, char **arguments)
{
    (void)count;
    return mount_at(context, arguments[1], arguments[0]);
}

const struct command command_mount = {
    .name = "mount",
    .usage = (const char *const[]){"URL/NAME[@VERSION] DIR", "URL DIR", "URL-OF-FILE DIR", NULL},
    .summary = "show a published disk, or a whole catalog of them, as files",
    .options = mount_table,
    .options_size = sizeof(struct mount_options),
    .client = true,
    .run = run,
};

const struct command command_httpstorged = {
    .name = "httpstorged",
    .usage = (const char *const[]){"DIR URL/NAME[@VERSION]", "DIR URL", "DIR URL-OF-FILE", NULL},
    .summary = "circular mount, with the name and the arguments of the original",
    .options = mount_table,
    .options_size = sizeof(struct mount_options),
    .client = true,
    .hidden = true,
    .run = run_original,
};
