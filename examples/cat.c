/*
 * Write a published disk, or a part of it, to standard output:
 *
 *     cc -o circular-cat cat.c $(pkg-config --cflags --libs libcircular)
 *     ./circular-cat http://host/os/debian12 publisher.pub > disk.img
 *     ./circular-cat http://host/os/debian12 publisher.pub 512 2 | xxd     bytes 512 and 513
 */
#include <circular.h>

#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void copy(struct circular_disk *disk, uint64_t offset, uint64_t length)
{
    static char bytes[1 << 20];
    struct circular_error error;

    while (length > 0) {
        size_t wanted = length < sizeof(bytes) ? (size_t)length : sizeof(bytes);
        ssize_t got = circular_pread(disk, bytes, wanted, offset, &error);

        if (got < 0)
            errx(1, "%s", error.message);
        if (got == 0) /* the end of the disk */
            return;
        if (fwrite(bytes, 1, (size_t)got, stdout) != (size_t)got)
            err(1, "standard output");
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
}

int main(int argc, char **argv)
{
    struct circular_options options = CIRCULAR_OPTIONS_INIT;
    struct circular_error error;
    struct circular_disk *disk;

    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: %s URL/NAME[@VERSION] KEY.pub [OFFSET LENGTH]\n", argv[0]);
        return 2;
    }
    options.keys = (const char *const[]){argv[2], NULL};
    if (circular_open(argv[1], &options, &disk, &error))
        errx(1, "%s", error.message);
    if (argc == 5)
        copy(disk, strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0));
    else
        copy(disk, 0, circular_size(disk));
    circular_close(disk);
    return fflush(stdout) ? 1 : 0;
}
