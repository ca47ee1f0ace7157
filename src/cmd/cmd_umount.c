/* circular umount: end what circular mount began, also when its process has died. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/process.h"
#include "cmd/cmd.h"
#include "cmd/inquiry.h"
#include "cmd/volume.h"
#include "serve/filesystem.h"
#include "serve/fuse.h"
#include "serve/loop.h"
#include "serve/mountpoint.h"

#define GONE_TIMEOUT_MS 5000
#define SERVER_MS 1000 /* that it is given to say which process it is */

struct umount_options {
    bool lazy;
};

static const struct option umount_table[] = {
    {"lazy", 'l', OPTION_FLAG, NULL, "also when files are open there: the disk goes away when the last is closed",
     offsetof(struct umount_options, lazy)},
    {0},
};

/* Ours are FUSE mounts, and file systems on a loop device that we have named. */
static int check_ours(const struct mount_entry *entry, struct error *error)
{
    if (!strcmp(entry->type, MOUNT_TYPE))
        return 0;
    if (entry->major == LOOP_MAJOR && loop_has_name(entry->minor, FILESYSTEM_LOOP_NAME))
        return 0;
    return error_set(error, ERROR_INVALID, "%s is a mount of type %s, not one of circular", entry->folder, entry->type);
}

/* A descriptor of the process that serves ENTRY; -1: it does not say which that is. *SILENT_OUT: it says nothing at all. */
static int open_server(const struct mount_entry *entry, bool *silent_out)
{
    char text[LOOP_NAME_MAX] = "";
    uint64_t device;
    int process = 0;

    if (!strcmp(entry->type, MOUNT_TYPE)) {
        int code = inquire(entry->folder, FUSE_ATTRIBUTE_PREFIX VOLUME_PROCESS, SERVER_MS, text, sizeof(text));

        *silent_out = code == ERROR_UNAVAILABLE;
        if (!code)
            sscanf(text, "%d", &process);
    } else if (loop_find(entry->minor, text, &device)) {
        sscanf(text, FILESYSTEM_LOOP_NAME "%d.", &process);
    }
    return process > 0 ? process_open(process) : -1;
}

/*
 * It writes what has been read to the cache, where the next mount, perhaps one that is offline, looks for it; whoever calls
 * us may also want to remove that.
 */
static void wait_for_server(int process)
{
    struct pollfd polled = {.fd = process, .events = POLLIN};

    if (process >= 0 && poll(&polled, 1, GONE_TIMEOUT_MS) == 0)
        log_info("the process that served it is still ending");
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct umount_options *options = context->options;
    auto_free char *folder = mountpoint_absolute(arguments[0]);
    struct mount_entry entry = {0};
    struct error error = ERROR_INIT;
    auto_close int server = -1;
    bool silent = false;
    int result;

    (void)count;
    if (!*arguments[0])
        return report_usage(context, "DIR is empty");
    result = mount_find(folder ? folder : arguments[0], &entry, &error);
    if (!result)
        result = check_ours(&entry, &error);
    if (!result && !options->lazy)
        server = open_server(&entry, &silent);
    if (!result)
        result = mountpoint_release(entry.folder, options->lazy, &error);
    if (result == ERROR_BUSY && silent) { /* with whoever has just asked */
        error = ERROR_INIT;
        result = mountpoint_release(entry.folder, true, &error);
    }
    /* The kernel lets go of the disk a moment later; whoever calls us may want it gone. */
    if (!result && entry.major == LOOP_MAJOR && !options->lazy && !loop_wait_gone(entry.minor, GONE_TIMEOUT_MS))
        log_warning("/dev/loop%u is still in use", entry.minor);
    if (!result)
        wait_for_server(server);
    mount_entry_finish(&entry);
    return result ? report_error(context, &error) : EXIT_OK;
}

const struct command command_umount = {
    .name = "umount",
    .usage = (const char *const[]){"DIR", NULL},
    .summary = "undo circular mount",
    .options = umount_table,
    .options_size = sizeof(struct umount_options),
    .run = run,
};
