/* Which partition holds the root: see root_partition.h. */
#include "cmd/root_partition.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "serve/partition.h"

static bool can_be_root(const struct partition *partition)
{
    static const char *const types[] = {"ext2", "ext3", "ext4", "xfs", "btrfs"};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (!strcmp(partition->type, types[i]))
            return true;
    return false;
}

static const struct partition *choose(const struct partition *list, size_t count)
{
    const struct partition *best = NULL;

    for (size_t i = 0; i < count; i++) {
        if (!can_be_root(&list[i]))
            continue;
        if (!strcmp(list[i].label, "root"))
            return &list[i];
        if (!best || list[i].size > best->size)
            best = &list[i];
    }
    return best;
}

int root_partition_find(const char *disk, unsigned *number_out, struct error *error)
{
    auto_free struct partition *list = calloc(PARTITIONS_MAX, sizeof(*list));
    auto_close int fd = open(disk, O_RDONLY | O_CLOEXEC);
    const struct partition *root;
    struct stat status;
    size_t count;
    int result;

    if (!list)
        return error_set(error, ERROR_SYSTEM, "no memory to look at partitions");
    if (fd < 0 || fstat(fd, &status))
        return error_set_errno(error, errno, "cannot read %s", disk);
    result = partition_list(fd, (uint64_t)status.st_size, list, &count, error);
    if (result)
        return result;
    root = choose(list, count);
    if (!root)
        return error_set(error, ERROR_UNSUPPORTED,
                         "no partition of the disk holds a root file system (ext4, xfs, btrfs)");
    *number_out = root->number;
    return 0;
}
