/* circular mount: a published disk, a whole catalog, or the file system inside a disk, at a mount point. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cmd/daemon.h"
#include "cmd/signals.h"
#include "cmd/volume.h"
#include "serve/mountpoint.h"

struct mount_options {
    bool foreground;
    bool allow_other;
};

static const struct option mount_table[] = {
    {"foreground", 'f', OPTION_FLAG, NULL, "stay in the foreground", offsetof(struct mount_options, foreground)},
    {"allow-other", 0, OPTION_FLAG, NULL, "let other users read it too",
     offsetof(struct mount_options, allow_other)},
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
        report_line(context, "%s holds the %zu versions of %s", folder, circular_archive_count(volume->archive),
                    volume->source);
    }
    fflush(stdout);
}

static void tell_end(const struct context *context, const struct volume *volume)
{
    struct circular_statistics statistics = {.size = sizeof(statistics)};
    char size[SIZE_TEXT];

    circular_archive_statistics(volume->archive, &statistics);
    report_line(context, "fetched %s in %llu requests", size_format(statistics.fetched_bytes, size),
                (unsigned long long)statistics.requests);
}

/* Serve until the file system is unmounted or a signal comes. */
static int serve(const struct context *context, struct volume *volume, const char *folder)
{
    const struct mount_options *options = context->options;
    struct error error = ERROR_INIT;
    int signals = signals_open(&error);
    bool wanted = true;

    if (signals < 0 || volume_mount(volume, folder, options->allow_other, &error))
        return report_error(context, &error);
    tell_mounted(context, volume, folder);
    if (!options->foreground)
        wanted = daemon_ready(context);
    if (wanted)
        signals_wait(signals, fuse_server_ended(volume->server));
    tell_end(context, volume);
    return EXIT_OK;
}

static int mount_at(const struct context *context, const char *text, const char *folder)
{
    const struct mount_options *options = context->options;
    struct volume volume = {0};
    auto_free char *absolute = NULL;
    struct error error = ERROR_INIT;
    int status;

    volume_limit_memory();
    if (mountpoint_check_host(&error) || mountpoint_prepare(folder, &absolute, &error))
        return report_error(context, &error);
    if (!options->foreground && daemon_begin(&error))
        return report_error(context, &error);
    status = volume_open(context, text, true, &volume);
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
    .usage = (const char *const[]){"URL/NAME[@VERSION] DIR", "URL DIR", NULL},
    .summary = "show a published disk, or a whole catalog of them, as files",
    .options = mount_table,
    .options_size = sizeof(struct mount_options),
    .client = true,
    .run = run,
};

const struct command command_httpstorged = {
    .name = "httpstorged",
    .usage = (const char *const[]){"DIR URL/NAME[@VERSION]", "DIR URL", NULL},
    .summary = "circular mount, with the name and the arguments of the original",
    .options = mount_table,
    .options_size = sizeof(struct mount_options),
    .client = true,
    .hidden = true,
    .run = run_original,
};
