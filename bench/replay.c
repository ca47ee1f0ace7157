/*
 * Replays a recorded boot: one reader, one read after the other, as fast as the
 * disk answers. For benches.
 *
 *     replay TRACE DISK      DISK: a file, or an NBD URI (nbd+unix:///?socket=..., nbd://...)
 *
 * TRACE has a line "OFFSET COUNT" (bytes) for each read. Prints the seconds from
 * the start to the last read, the reads, and a checksum of all bytes, which must
 * be the same for every road to one disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int file = -1;
static struct nbd_handle *nbd;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "replay: %s: %s\n", what, why);
    exit(1);
}

static void open_disk(const char *disk)
{
    if (strncmp(disk, "nbd", 3)) {
        file = open(disk, O_RDONLY | O_CLOEXEC);
        if (file < 0)
            fail(disk, strerror(errno));
        /* The trace has the reader's own readahead in it already. */
        posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
        return;
    }
    nbd = nbd_create();
    if (!nbd || nbd_connect_uri(nbd, disk))
        fail(disk, nbd_get_error());
}

static void read_disk(void *bytes, size_t count, uint64_t offset)
{
    if (nbd) {
        if (nbd_pread(nbd, bytes, count, offset, 0))
            fail("read", nbd_get_error());
        return;
    }
    for (size_t done = 0; done < count;) {
        ssize_t got = pread(file, (char *)bytes + done, count - done, (off_t)(offset + done));

        if (got <= 0)
            fail("read", got ? strerror(errno) : "end of file");
        done += (size_t)got;
    }
}

/* FNV-1a over 64-bit words: cheap, and enough to notice a difference. */
static uint64_t checksum(uint64_t sum, const uint8_t *bytes, size_t count)
{
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;

        memcpy(&word, bytes, 8);
        sum = (sum ^ word) * 0x100000001b3u;
    }
    return sum;
}

int main(int argc, char **argv)
{
    static uint8_t bytes[32 << 20];
    uint64_t sum = 0xcbf29ce484222325u, total = 0;
    unsigned long long offset, count, reads = 0;
    double start = now();
    FILE *trace;

    if (argc != 3)
        fail("usage", "replay TRACE DISK");
    trace = fopen(argv[1], "re");
    if (!trace)
        fail(argv[1], strerror(errno));
    open_disk(argv[2]);
    while (fscanf(trace, "%llu %llu", &offset, &count) == 2) {
        if (count > sizeof(bytes))
            fail(argv[1], "a read over 32 MiB");
        read_disk(bytes, count, offset);
        sum = checksum(sum, bytes, count);
        total += count;
        reads++;
    }
    printf("%.3f s %llu reads %llu bytes %016llx\n", now() - start, reads, (unsigned long long)total,
           (unsigned long long)sum);
    fclose(trace);
    return 0;
}
