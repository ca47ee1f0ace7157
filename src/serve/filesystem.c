/* The file system inside a disk: see filesystem.h. */
#include "serve/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/process.h"
#include "serve/loop.h"
#include "serve/lvm.h"

/* Options that keep a read-only mount from replaying a journal; the first kinds are those that a root may be. */
static const struct kind {
    const char *type;   /* libblkid's */
    const char *driver; /* the kernel's */
    const char *options;
    bool linux_root;
} kinds[] = {
    {"ext4", "ext4", "noload", true},
    {"ext3", "ext4", "noload", true},
    {"ext2", "ext4", "", true},
    {"xfs", "xfs", "norecovery,nouuid", true},
    {"btrfs", "btrfs", "rescue=nologreplay", true},
    {"f2fs", "f2fs", "norecovery", true},
    {"erofs", "erofs", "", true},
    {"squashfs", "squashfs", "", true},
    {"iso9660", "iso9660", "", false},
    {"udf", "udf", "", false},
    {"vfat", "vfat", "", false},
    {"exfat", "exfat", "", false},
    {"ntfs", "ntfs3", "", false},
};

static const struct kind *find_kind(const char *type)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(kinds[i].type, type))
            return &kinds[i];
    return NULL;
}

/* The best so far. */
struct choice {
    struct filesystem filesystem;
    char path[PATH_MAX];               /* of the file that has it, at its partition's offset */
    const struct lvm_volume *obstacle; /* a volume that would have been considered */
    struct error skipped;              /* why the first one that was skipped cannot be shown or read */
};

/* Better than another: can be mounted; may be a Linux root; larger. */
static bool is_better(const struct partition *a, const struct partition *b)
{
    const struct kind *kind_a = find_kind(a->type), *kind_b = find_kind(b->type);

    if (!kind_a || !kind_b)
        return kind_a != NULL;
    if (kind_a->linux_root != kind_b->linux_root)
        return kind_a->linux_root;
    return a->size > b->size;
}

/* Take what is in the file PATH as PARTITION says, if it is better than what was chosen before. */
static void offer(struct choice *choice, const struct partition *partition, const char *volume, const char *path)
{
    if (!is_better(partition, &choice->filesystem.partition))
        return;
    choice->filesystem.partition = *partition;
    snprintf(choice->filesystem.volume, sizeof(choice->filesystem.volume), "%s", volume);
    snprintf(choice->path, sizeof(choice->path), "%s", path);
}

/*
 * Show a volume that lies in several pieces as a file beside the disk, PATH, where loop devices find it in one piece.
 * No image's name has a colon.
 */
static int show_volume(const struct filesystem_settings *settings, struct lvm_volume *volume, char *path,
                       struct error *error)
{
    const char *slash = strrchr(settings->disk, '/');
    int folder = slash ? (int)(slash - settings->disk) : 0;
    char name[2 * LVM_NAME_TEXT];
    int length;

    snprintf(name, sizeof(name), "%.128s:%.127s", volume->group, volume->name);
    length = snprintf(path, PATH_MAX, "%.*s/%s", folder, settings->disk, name);
    if (!slash || length >= PATH_MAX)
        return error_set(error, ERROR_SYSTEM, "cannot show %s beside %s", name, settings->disk);
    return fuse_server_add(settings->server, name, &volume->extents, error);
}

static int consider_volume(const struct filesystem_settings *settings, unsigned number, struct lvm_volume *volume,
                           struct choice *choice, struct error *error)
{
    struct partition found = {.number = number};
    char path[PATH_MAX], name[2 * LVM_NAME_TEXT];
    uint64_t offset = 0;
    bool one = extents_are_one(&volume->extents, &offset);
    auto_close int fd = -1;
    int result = one ? 0 : show_volume(settings, volume, path, error);

    if (result)
        return result;
    if (one)
        snprintf(path, sizeof(path), "%s", settings->disk);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(error, errno, "cannot open %s", path);
    result = partition_probe(fd, offset, volume->size, &found, error);
    snprintf(name, sizeof(name), "%.128s/%.127s", volume->group, volume->name);
    if (!result)
        offer(choice, &found, name, path);
    return result;
}

/* The partition that a volume begins on. */
static const struct partition *partition_of(const struct lvm_volume *volume, const struct partition *list, size_t count)
{
    uint64_t length, offset = extents_find(&volume->extents, 0, &length);

    for (size_t i = 0; i < count; i++)
        if (offset >= list[i].offset && offset - list[i].offset < list[i].size)
            return &list[i];
    return &list[0];
}

static bool is_wanted(const struct filesystem_settings *settings, const struct lvm_volume *volume)
{
    char whole[2 * LVM_NAME_TEXT];

    snprintf(whole, sizeof(whole), "%.128s/%.127s", volume->group, volume->name);
    return !settings->volume || !strcmp(settings->volume, volume->name) || !strcmp(settings->volume, whole);
}

/*
 * One volume that cannot be shown is no reason not to mount another, unless it is the one that is asked for. But one
 * that cannot be read just now might be the better one.
 */
static int skip_volume(const struct filesystem_settings *settings, const struct lvm_volume *volume,
                       const struct error *reason, struct choice *choice, struct error *error)
{
    if (settings->volume || (reason->code != ERROR_UNSUPPORTED && reason->code != ERROR_INVALID))
        return error_copy(error, reason);
    log_warning("the logical volume %s/%s is left out: %s", volume->group, volume->name, reason->message);
    if (!choice->skipped.code)
        choice->skipped = *reason;
    return 0;
}

static int consider_volumes(const struct filesystem_settings *settings, const struct partition *list, size_t count,
                            struct lvm_volumes *volumes, struct choice *choice, struct error *error)
{
    int result = 0;

    for (size_t i = 0; !result && i < volumes->count; i++) {
        struct lvm_volume *volume = &volumes->list[i];
        struct error reason = ERROR_INIT;
        unsigned number;

        if (!is_wanted(settings, volume))
            continue;
        if (*volume->obstacle) {
            choice->obstacle = choice->obstacle ? choice->obstacle : volume;
            continue;
        }
        number = partition_of(volume, list, count)->number;
        if (!settings->partition || number == settings->partition)
            result = consider_volume(settings, number, volume, choice, &reason);
        if (result)
            result = skip_volume(settings, volume, &reason, choice, error);
    }
    return result;
}

/* Those that were asked for; volumes also need the physical volumes that were not. */
static bool needs_volumes(const struct filesystem_settings *settings, const struct partition *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if ((!settings->partition || list[i].number == settings->partition) &&
            !strcmp(list[i].type, LVM_PARTITION_TYPE))
            return true;
    return false;
}

static int nothing_found(const struct filesystem_settings *settings, const struct partition *list, size_t count,
                         struct error *error)
{
    char what[400] = "";

    for (size_t i = 0; i < count; i++)
        snprintf(what + strlen(what), sizeof(what) - strlen(what), "%s%u: %s", i ? ", " : "", list[i].number,
                 *list[i].type ? list[i].type : "unknown");
    if (settings->volume)
        return error_set(error, ERROR_NOT_FOUND, "the disk has no logical volume %s with a file system",
                         settings->volume);
    if (settings->partition)
        return error_set(error, ERROR_NOT_FOUND, "the disk has no partition %u with a file system (it has %s)",
                         settings->partition, what);
    return error_set(error, ERROR_NOT_FOUND, "there is no file system on the disk (partitions: %s)", what);
}

/* There are volumes, and what is in the way of them is known. */
static int obstructed(const struct lvm_volume *volume, struct error *error)
{
    return error_set(error, ERROR_UNSUPPORTED,
                     "the logical volume %s/%s %s: --fs mounts linear and striped volumes that the disk holds whole. "
                     "Mount the disk without --fs, and let LVM and device-mapper activate the volume "
                     "(losetup --read-only --partscan, vgchange)",
                     volume->group, volume->name, volume->obstacle);
}

static int choose(const struct filesystem_settings *settings, int fd, uint64_t size, struct filesystem *found,
                  char *path, struct error *error)
{
    cleanup(lvm_volumes_finish) struct lvm_volumes volumes = {0};
    struct choice choice = {.skipped = ERROR_INIT};
    struct partition list[PARTITIONS_MAX];
    size_t count;
    int result = partition_list(fd, size, list, &count, error);

    for (size_t i = 0; !result && i < count; i++)
        if (!settings->volume && (!settings->partition || list[i].number == settings->partition))
            offer(&choice, &list[i], "", settings->disk);
    if (!result && needs_volumes(settings, list, count))
        result = lvm_list(fd, settings->name, list, count, &volumes, error);
    if (!result)
        result = consider_volumes(settings, list, count, &volumes, &choice, error);
    if (!result && !find_kind(choice.filesystem.partition.type))
        result = choice.skipped.code ? error_set(error, choice.skipped.code, "%s", choice.skipped.message)
                 : choice.obstacle   ? obstructed(choice.obstacle, error)
                                     : nothing_found(settings, list, count, error);
    *found = choice.filesystem;
    snprintf(path, PATH_MAX, "%s", choice.path);
    return result;
}

struct mounting {
    const char *device, *folder;
    const struct kind *kind;
};

static int call_mount(const void *user)
{
    const struct mounting *m = user;

    return mount(m->device, m->folder, m->kind->driver, MS_RDONLY | MS_NOSUID | MS_NODEV, m->kind->options) ? errno : 0;
}

static int mount_device(const char *device, const struct filesystem *filesystem, const char *folder,
                        struct error *error)
{
    const struct kind *kind = find_kind(filesystem->partition.type);
    struct mounting mounting = {device, folder, kind};
    /*
     * Who is in mount(2) waits for the disk where no signal arrives. A server that was killed there would keep hold of
     * /dev/fuse, and so its own requests from ever being failed.
     */
    int cause = process_apart(call_mount, &mounting);

    if (cause == ENODEV)
        return error_set(error, ERROR_UNSUPPORTED, "this kernel does not know the file system %s", kind->driver);
    if (cause)
        return error_set_errno(error, cause < 0 ? EIO : cause, "cannot mount the %s file system of %s at %s",
                               kind->type, device, folder);
    return 0;
}

int filesystem_mount(const struct filesystem_settings *settings, struct filesystem *filesystem_out,
                     struct error *error)
{
    auto_close int disk = open(settings->disk, O_RDONLY | O_CLOEXEC);
    auto_close int file = -1, loop = -1;
    struct filesystem best = {0};
    char path[PATH_MAX], device[LOOP_PATH_MAX];
    struct stat stat;
    int result;

    if (disk < 0 || fstat(disk, &stat))
        return error_set_errno(error, errno, "cannot open %s", settings->disk);
    result = choose(settings, disk, (uint64_t)stat.st_size, &best, path, error);
    if (result)
        return result;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_set_errno(error, errno, "cannot open %s", path);
    loop = loop_attach(file, best.partition.offset, best.partition.size, settings->name, device, error);
    if (loop < 0)
        return loop;
    result = mount_device(device, &best, settings->folder, error);
    if (!result)
        *filesystem_out = best;
    return result;
}
