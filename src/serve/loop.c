/* Loop devices: see loop.h. */
#include "serve/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define ATTEMPTS 100 /* others may take the free device first */

/*
 * Without LO_FLAGS_DIRECT_IO: through the page cache of the file below, a sequential reader of a disk that comes over
 * the network is some three times as fast, as there is readahead on both levels; scattered readers are 15 % slower.
 */
static int configure(int device, int fd, uint64_t offset, uint64_t size, const char *name)
{
    struct loop_config config = {
        .fd = (uint32_t)fd,
        .info = {
            .lo_offset = offset,
            .lo_sizelimit = size,
            .lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        },
    };

    snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", name);
    return ioctl(device, LOOP_CONFIGURE, &config) ? errno : 0;
}

int loop_attach(int fd, uint64_t offset, uint64_t size, const char *name, char *path_out, struct error *error)
{
    auto_close int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int cause = 0;

    if (control < 0)
        return error_set(error, ERROR_UNSUPPORTED, "there are no loop devices here: cannot open /dev/loop-control: %s",
                         strerror(errno));
    for (int i = 0; i < ATTEMPTS; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        auto_close int device = -1;

        if (number < 0)
            return error_set_errno(error, errno, "no loop device is free");
        snprintf(path_out, LOOP_PATH_MAX, "/dev/loop%d", number);
        device = open(path_out, O_RDONLY | O_CLOEXEC);
        cause = device < 0 ? errno : configure(device, fd, offset, size, name);
        if (!cause)
            return steal_fd(&device);
        if (cause != EBUSY && cause != EAGAIN && cause != ENOENT && cause != ENXIO)
            break;
        clock_sleep_ms(5); /* ENOENT: udev has not made the node of a new device yet */
    }
    return error_set_errno(error, cause, "cannot set up %s", path_out);
}

bool loop_find(unsigned minor, char name_out[LOOP_NAME_MAX], uint64_t *device_out)
{
    struct loop_info64 info = {0};
    char path[LOOP_PATH_MAX];
    auto_close int device = -1;

    snprintf(path, sizeof(path), "/dev/loop%u", minor);
    device = open(path, O_RDONLY | O_CLOEXEC);
    if (device < 0 || ioctl(device, LOOP_GET_STATUS64, &info))
        return false;
    snprintf(name_out, LOOP_NAME_MAX, "%.*s", LO_NAME_SIZE - 1, (const char *)info.lo_file_name);
    /* As the kernel writes it: minor's low 8 bits, major, minor's other bits. */
    *device_out = makedev(info.lo_device >> 8 & 0xfff, (info.lo_device & 0xff) | (info.lo_device >> 12 & 0xfff00));
    return true;
}

bool loop_has_name(unsigned minor, const char *prefix)
{
    char name[LOOP_NAME_MAX];
    uint64_t device;

    return loop_find(minor, name, &device) && !strncmp(name, prefix, strlen(prefix));
}

bool loop_wait_gone(unsigned minor, uint64_t timeout_ms)
{
    uint64_t until = clock_ms() + timeout_ms;
    char path[64];

    snprintf(path, sizeof(path), "/sys/block/loop%u/loop/backing_file", minor);
    while (!access(path, F_OK)) {
        if (clock_ms() >= until)
            return false;
        clock_sleep_ms(5);
    }
    return true;
}
