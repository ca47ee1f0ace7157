/* circular umount: end what circular mount began, also when its process has died. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "serve/filesystem.h"
#include "serve/loop.h"
#include "serve/mountpoint.h"

#define GONE_TIMEOUT_MS 5000

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

static int run(const struct context *context, int count, char **arguments)
{
    const struct umount_options *options = context->options;
    auto_free char *folder = mountpoint_absolute(arguments[0]);
    struct mount_entry entry = {0};
    struct error error = ERROR_INIT;
    int result;

    (void)count;
    if (!*arguments[0])
        return report_usage(context, "DIR is empty");
    result = mount_find(folder ? folder : arguments[0], &entry, &error);
    if (!result)
        result = check_ours(&entry, &error);
    if (!result)
        result = mountpoint_release(entry.folder, options->lazy, &error);
    /* The kernel lets go of the disk a moment later; whoever calls us may want it gone. */
    if (!result && entry.major == LOOP_MAJOR && !options->lazy && !loop_wait_gone(entry.minor, GONE_TIMEOUT_MS))
        log_warning("/dev/loop%u is still in use", entry.minor);
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
