/* What lies on a disk: libblkid's probing, on a file. */
#include "serve/partition.h"

#include <blkid/blkid.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SECTOR 512

static void cleanup_probe(blkid_probe *probe)
{
    if (*probe)
        blkid_free_probe(*probe);
}

static void copy_value(blkid_probe probe, const char *name, char *text, size_t size)
{
    const char *value;

    if (!blkid_probe_lookup_value(probe, name, &value, NULL))
        snprintf(text, size, "%s", value);
}

int partition_probe(int fd, uint64_t offset, uint64_t size, struct partition *partition, struct error *error)
{
    __attribute__((cleanup(cleanup_probe))) blkid_probe probe = blkid_new_probe();
    int result;

    *partition = (struct partition){.number = partition->number, .offset = offset, .size = size};
    if (!probe || blkid_probe_set_device(probe, fd, (blkid_loff_t)offset, (blkid_loff_t)size))
        return error_set(error, ERROR_SYSTEM, "cannot look for a file system at %llu", (unsigned long long)offset);
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL);
    errno = 0;
    result = blkid_do_safeprobe(probe); /* 0: found; 1: nothing; -2: several; -1: cannot be read */
    if (result == -1)
        return error_set_errno(error, errno ? errno : EIO, "cannot read the disk at %llu",
                               (unsigned long long)offset);
    if (result == 0) {
        copy_value(probe, "TYPE", partition->type, sizeof(partition->type));
        copy_value(probe, "LABEL", partition->label, sizeof(partition->label));
    }
    return 0;
}

/* False if the partition is none that could hold something inside SIZE bytes. */
static bool fill_extent(blkid_partition entry, uint64_t size, struct partition *partition)
{
    blkid_loff_t start = blkid_partition_get_start(entry), sectors = blkid_partition_get_size(entry);

    if (start < 0 || sectors <= 0 || (uint64_t)start >= size / SECTOR ||
        (uint64_t)sectors > size / SECTOR - (uint64_t)start || blkid_partition_is_extended(entry))
        return false;
    *partition = (struct partition){
        .number = (unsigned)blkid_partition_get_partno(entry),
        .offset = (uint64_t)start * SECTOR,
        .size = (uint64_t)sectors * SECTOR,
    };
    return true;
}

static int list_whole(int fd, uint64_t size, struct partition *list, size_t *count_out, struct error *error)
{
    list[0].number = 0;
    *count_out = 1;
    return partition_probe(fd, 0, size, &list[0], error);
}

int partition_list(int fd, uint64_t size, struct partition *list, size_t *count_out, struct error *error)
{
    __attribute__((cleanup(cleanup_probe))) blkid_probe probe = blkid_new_probe();
    blkid_partlist partitions;
    int count, result;

    *count_out = 0;
    if (!probe || blkid_probe_set_device(probe, fd, 0, (blkid_loff_t)size))
        return error_set(error, ERROR_SYSTEM, "cannot look for partitions");
    blkid_probe_enable_partitions(probe, 1);
    partitions = blkid_probe_get_partitions(probe);
    count = partitions ? blkid_partlist_numof_partitions(partitions) : 0;
    for (int i = 0; i < count && *count_out < PARTITIONS_MAX; i++) {
        struct partition *partition = &list[*count_out];

        if (!fill_extent(blkid_partlist_get_partition(partitions, i), size, partition))
            continue;
        result = partition_probe(fd, partition->offset, partition->size, partition, error);
        if (result)
            return result;
        ++*count_out;
    }
    return *count_out ? 0 : list_whole(fd, size, list, count_out, error);
}
