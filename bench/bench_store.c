/*
 * How fast the store is by itself: blocks from memory, from the cache folder (warm, and after their pages were
 * dropped), read ahead by workers, and how fast the cache is written. Blocks are those of a FILE, 64 KiB each.
 *
 *   bench-store FILE FOLDER [COUNT]      FOLDER is made, filled and left; as root, all caches of the kernel are dropped
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "format/frame.h"
#include "store/store.h"

#define LENGTH 65536
#define AHEAD 32

struct sample {
    struct digest digest;
    uint8_t *frame;
    size_t size;
};

static struct sample *samples;
static size_t sample_count;
static uint64_t frame_bytes;

static void die(const char *what, const struct error *error)
{
    fprintf(stderr, "%s: %s\n", what, error ? error->message : "failed");
    exit(1);
}

static void load_samples(const char *path, size_t most)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t block[LENGTH], frame[2 * LENGTH];

    samples = calloc(most, sizeof(*samples));
    if (fd < 0 || !samples)
        die(path, NULL);
    while (sample_count < most && read(fd, block, LENGTH) == LENGTH) {
        struct sample *sample = &samples[sample_count];

        if (bytes_are_zero(block, LENGTH))
            continue;
        sample_count++;
        digest_of(block, LENGTH, &sample->digest);
        sample->size = frame_compress(block, LENGTH, 3, frame, sizeof(frame));
        sample->frame = malloc(sample->size);
        if (!sample->frame)
            die("memory", NULL);
        memcpy(sample->frame, frame, sample->size);
        frame_bytes += sample->size;
    }
    close(fd);
    printf("%zu blocks, %llu bytes each as a frame\n", sample_count,
           (unsigned long long)(frame_bytes / (sample_count ? sample_count : 1)));
}

static double cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void report(const char *what, uint64_t start_us, double start_cpu, size_t count)
{
    double wall = (double)(clock_us() - start_us);
    double cpu = cpu_us() - start_cpu;

    printf("%-34s %8.2f us a block (%.2f us CPU), %9.0f blocks/s, %6.0f MB/s\n", what, wall / (double)count,
           cpu / (double)count, (double)count * 1e6 / wall, (double)count * LENGTH / wall);
}

static void drop_pages(const char *folder)
{
    int fd;

    sync();
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1)
        printf("(not root: the pages of %s stay)\n", folder);
    if (fd >= 0)
        close(fd);
}

static struct store *open_store(struct cache *cache, struct workers *workers, size_t memory)
{
    struct store_settings settings = {.cache = cache, .workers = workers, .memory_bytes = memory};
    struct store *store;
    struct error error;

    if (store_open(&settings, &store, &error))
        die("store", &error);
    return store;
}

static void get(struct store *store, size_t i)
{
    struct block *block;
    struct error error;

    if (store_get(store, &samples[i].digest, LENGTH, PRIORITY_READER, &block, &error))
        die("get", &error);
    block_release(block);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *first = a, *second = b;

    return *first < *second ? -1 : *first > *second;
}

/* In a scattered order, one after the other: what a random reader waits for. */
static void measure_random(const char *what, struct store *store)
{
    uint64_t *times = calloc(sample_count, sizeof(*times));
    uint64_t start = clock_us();
    double cpu = cpu_us();

    if (!times)
        die("memory", NULL);
    for (size_t i = 0; i < sample_count; i++) {
        uint64_t before = clock_us();

        get(store, i * 7919 % sample_count);
        times[i] = clock_us() - before;
    }
    report(what, start, cpu, sample_count);
    qsort(times, sample_count, sizeof(*times), compare);
    printf("%-34s %8llu us median, %llu us 90 %%, %llu us 99 %%\n", "",
           (unsigned long long)times[sample_count / 2], (unsigned long long)times[sample_count * 9 / 10],
           (unsigned long long)times[sample_count * 99 / 100]);
    free(times);
}

static void measure_sequential(const char *what, struct store *store)
{
    uint64_t start = clock_us();
    double cpu = cpu_us();

    for (size_t i = 0; i < sample_count; i++) {
        if (i + AHEAD < sample_count)
            store_prefetch(store, &samples[i + AHEAD].digest, LENGTH, PRIORITY_READAHEAD);
        get(store, i);
    }
    report(what, start, cpu, sample_count);
}

static void measure_memory(struct store *store)
{
    size_t rounds = 200000;
    uint64_t start;
    double cpu;

    for (size_t i = 0; i < 64 && i < sample_count; i++)
        get(store, i);
    start = clock_us();
    cpu = cpu_us();
    for (size_t i = 0; i < rounds; i++)
        get(store, i % (sample_count < 64 ? sample_count : 64));
    report("memory hit", start, cpu, rounds);
}

static void measure_write(struct cache *cache)
{
    uint64_t start = clock_us();
    double cpu = cpu_us();

    for (size_t i = 0; i < sample_count; i++)
        cache_write_block(cache, &samples[i].digest, samples[i].frame, samples[i].size);
    report("write to the cache", start, cpu, sample_count);
}

int main(int count, char **arguments)
{
    struct cache *cache;
    struct workers *workers;
    struct store *store;
    struct error error;
    struct rusage usage;

    if (count < 3) {
        fprintf(stderr, "usage: bench-store FILE FOLDER [COUNT]\n");
        return 2;
    }
    load_samples(arguments[1], count > 3 ? strtoul(arguments[3], NULL, 10) : 4000);
    if (sample_count == 0 || cache_open(arguments[2], 0, &cache, &error) || workers_create(0, &workers, &error))
        die(arguments[2], sample_count ? &error : NULL);
    measure_write(cache);

    store = open_store(cache, workers, 1);
    measure_random("cached, warm, one by one", store);
    drop_pages(arguments[2]);
    measure_random("cached, cold, one by one", store);
    store_close(store);
    store = open_store(cache, workers, 0);
    measure_sequential("cached, warm, read ahead", store);
    drop_pages(arguments[2]);
    store_close(store);
    store = open_store(cache, workers, 0);
    measure_sequential("cached, cold, read ahead", store);
    measure_memory(store);
    store_close(store);
    workers_destroy(workers);
    cache_close(cache);
    getrusage(RUSAGE_SELF, &usage);
    printf("most resident: %ld MiB, of which %llu MiB are the samples\n", usage.ru_maxrss / 1024,
           (unsigned long long)(frame_bytes >> 20));
    return 0;
}
