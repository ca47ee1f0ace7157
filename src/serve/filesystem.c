/* The file system inside a disk: see filesystem.h. */
#include "serve/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "serve/loop.h"
#include "serve/lvm.h"

#define LVM_TYPE "LVM2_member"

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

/* Better than another: can be mounted; may be a Linux root; larger. */
static bool is_better(const struct filesystem *a, const struct filesystem *b)
{
    const struct kind *kind_a = find_kind(a->partition.type), *kind_b = find_kind(b->partition.type);

    if (!kind_a || !kind_b)
        return kind_a != NULL;
    if (kind_a->linux_root != kind_b->linux_root)
        return kind_a->linux_root;
    return a->partition.size > b->partition.size;
}

static bool is_volume(const struct lvm_volume *volume, const char *wanted)
{
    char whole[2 * LVM_NAME_TEXT + 1];

    snprintf(whole, sizeof(whole), "%.128s/%.128s", volume->group, volume->name);
    return !strcmp(wanted, volume->name) || !strcmp(wanted, whole);
}

/* Put the best of a physical volume's logical volumes in BEST if it is better than what is there. */
static int consider_volumes(const struct filesystem_settings *settings, int fd, const struct partition *physical,
                            struct filesystem *best, struct error *error)
{
    struct lvm_volume volumes[LVM_VOLUMES_MAX];
    char device[LOOP_PATH_MAX];
    auto_close int loop = loop_attach(fd, physical->offset, physical->size, settings->name, device, error);
    size_t count, scattered = 0;
    int result = loop < 0 ? loop : lvm_list(device, volumes, &count, error);

    for (size_t i = 0; !result && i < count; i++) {
        struct filesystem found = {.partition = {.number = physical->number}};

        if (settings->volume && !is_volume(&volumes[i], settings->volume))
            continue;
        if (!volumes[i].contiguous || volumes[i].offset >= physical->size ||
            volumes[i].size > physical->size - volumes[i].offset) {
            scattered++;
            continue;
        }
        snprintf(found.volume, sizeof(found.volume), "%.128s/%.128s", volumes[i].group, volumes[i].name);
        result = partition_probe(fd, physical->offset + volumes[i].offset, volumes[i].size, &found.partition, error);
        if (!result && is_better(&found, best))
            *best = found;
    }
    if (!result && scattered && !find_kind(best->partition.type))
        result = error_set(error, ERROR_UNSUPPORTED,
                           "the logical volume does not lie in one piece, which would need device-mapper");
    return result;
}

static int consider(const struct filesystem_settings *settings, int fd, const struct partition *partition,
                    struct filesystem *best, struct error *error)
{
    struct filesystem found = {.partition = *partition};

    if (!strcmp(partition->type, LVM_TYPE))
        return consider_volumes(settings, fd, partition, best, error);
    if (!settings->volume && is_better(&found, best))
        *best = found;
    return 0;
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

static int choose(const struct filesystem_settings *settings, int fd, uint64_t size, struct filesystem *best,
                  struct error *error)
{
    struct partition list[PARTITIONS_MAX];
    size_t count;
    int result = partition_list(fd, size, list, &count, error);

    for (size_t i = 0; !result && i < count; i++)
        if (!settings->partition || list[i].number == settings->partition)
            result = consider(settings, fd, &list[i], best, error);
    if (!result && !find_kind(best->partition.type))
        result = nothing_found(settings, list, count, error);
    return result;
}

static int mount_device(const char *device, const struct filesystem *filesystem, const char *folder,
                        struct error *error)
{
    const struct kind *kind = find_kind(filesystem->partition.type);

    if (!mount(device, folder, kind->driver, MS_RDONLY | MS_NOSUID | MS_NODEV, kind->options))
        return 0;
    if (errno == ENODEV)
        return error_set(error, ERROR_UNSUPPORTED, "this kernel does not know the file system %s", kind->driver);
    return error_set_errno(error, errno, "cannot mount the %s file system of %s at %s", kind->type, device, folder);
}

int filesystem_mount(const struct filesystem_settings *settings, struct filesystem *filesystem_out,
                     struct error *error)
{
    auto_close int fd = open(settings->disk, O_RDONLY | O_CLOEXEC);
    struct filesystem best = {0};
    char device[LOOP_PATH_MAX];
    auto_close int loop = -1;
    struct stat stat;
    int result;

    if (fd < 0 || fstat(fd, &stat))
        return error_set_errno(error, errno, "cannot open %s", settings->disk);
    result = choose(settings, fd, (uint64_t)stat.st_size, &best, error);
    if (result)
        return result;
    loop = loop_attach(fd, best.partition.offset, best.partition.size, settings->name, device, error);
    if (loop < 0)
        return loop;
    result = mount_device(device, &best, settings->folder, error);
    if (!result)
        *filesystem_out = best;
    return result;
}
