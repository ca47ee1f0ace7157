/*
 * Threads take runs of blocks from one cursor, which skips holes; each reads
 * its run, and digests, compares, compresses and writes block by block.
 *
 * A block file appears by rename, so a killed writer leaves no part of one. A
 * power cut may, where the file system renames before it writes: therefore a
 * file that is found under a block's name is not believed but compared with the
 * block, which costs a fraction of compressing it, and is replaced if it is bad.
 */
#include "image/blocks_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/digest_set.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "format/frame.h"
#include "format/name.h"

#define RUN_SIZE MIB /* what a thread takes at a time; at least a block */
#define READ_AHEAD (8 * MIB)
#define PROGRESS_INTERVAL_MS 200
#define FLUSH_BYTES (48 * MIB) /* of new files: time to begin bringing them to the disk */

struct writer {
    const struct blocks_settings *settings;
    struct digest_set *seen; /* blocks of this image that somebody has taken care of */
    atomic_uint_fast64_t fresh_bytes; /* of blocks that had to be compressed */

    pthread_mutex_t lock; /* before digest_set's; guards the rest */
    struct map_builder *builder;
    uint64_t next;       /* the first byte that no thread has taken; a multiple of the block size */
    uint64_t extent_end; /* of the data that NEXT is in; NEXT if it has to be looked for */
    uint64_t advised;    /* the kernel reads ahead up to here */
    uint64_t data_done, data_total;
    uint64_t progress_at_ms;
    struct blocks_count count;
    struct error error; /* the first one; all threads then end */
    pthread_cond_t flush; /* UNFLUSHED_BYTES or ENDED changed */
    uint64_t unflushed_bytes;
    bool ended;
};

/* A thread's own memory. */
struct scratch {
    uint8_t *run;      /* RUN_SIZE */
    uint8_t *frame;    /* frame_bound(block_size) */
    uint8_t *existing; /* a block */
    struct digest *digests; /* of the run */
    struct buffer file;
    struct blocks_count count;
    uint64_t written_bytes; /* since it was last told to the flusher */
};

static void fail(struct writer *writer, const struct error *error)
{
    pthread_mutex_lock(&writer->lock);
    if (!writer->error.code)
        writer->error = *error;
    pthread_mutex_unlock(&writer->lock);
}

/* The next data at or after *START: false if only a hole is left. What cannot tell holes is data throughout. */
static bool find_data(const struct blocks_settings *settings, uint64_t *start, uint64_t *end_out)
{
    off_t data = lseek(settings->input, (off_t)*start, SEEK_DATA);
    off_t hole;

    *end_out = settings->disk_size;
    if (data < 0)
        return errno != ENXIO;
    if ((uint64_t)data >= settings->disk_size)
        return false;
    hole = lseek(settings->input, data, SEEK_HOLE);
    *start = (uint64_t)data;
    if (hole > data)
        *end_out = min_u64((uint64_t)hole, settings->disk_size);
    return true;
}

/* Bytes of data, rounded out to blocks, for progress. */
static uint64_t measure_data(const struct blocks_settings *settings)
{
    uint64_t mask = settings->block_size - 1;
    uint64_t total = 0, end;

    for (uint64_t at = 0; at < settings->disk_size && find_data(settings, &at, &end); at = (end + mask) & ~mask)
        total += min_u64((end + mask) & ~mask, settings->disk_size) - (at & ~mask);
    return total;
}

/* Have the kernel read what comes after END, each byte once: asking again costs a look at every page. */
static void read_ahead(struct writer *writer, uint64_t end)
{
    uint64_t from;

    pthread_mutex_lock(&writer->lock);
    from = max_u64(writer->advised, end);
    writer->advised = max_u64(writer->advised, end + READ_AHEAD);
    pthread_mutex_unlock(&writer->lock);
    if (from < end + READ_AHEAD)
        posix_fadvise(writer->settings->input, (off_t)from, (off_t)(end + READ_AHEAD - from), POSIX_FADV_WILLNEED);
}

/* Take the next run of data. False: nothing is left, or somebody failed. */
static bool take_run(struct writer *writer, uint64_t *offset_out, size_t *size_out)
{
    const struct blocks_settings *settings = writer->settings;
    uint64_t mask = settings->block_size - 1;
    bool taken = false;

    pthread_mutex_lock(&writer->lock);
    if (!writer->error.code && writer->next < settings->disk_size && writer->next >= writer->extent_end) {
        uint64_t start = writer->next, end;

        if (find_data(settings, &start, &end)) {
            writer->next = start & ~mask;
            writer->extent_end = min_u64((end + mask) & ~mask, settings->disk_size);
        } else {
            writer->next = settings->disk_size;
        }
    }
    if (!writer->error.code && writer->next < settings->disk_size) {
        *offset_out = writer->next;
        *size_out = min_u64(max_u64(RUN_SIZE, settings->block_size), writer->extent_end - writer->next);
        writer->next = (*offset_out + *size_out + mask) & ~mask;
        taken = true;
    }
    pthread_mutex_unlock(&writer->lock);
    return taken;
}

/* The size of a good file for this block at PATH; 0 if there is none. */
static size_t existing_frame(const struct blocks_settings *settings, const char *path, const uint8_t *block,
                             uint32_t length, struct scratch *scratch)
{
    struct error error = ERROR_INIT;
    int result = file_read(settings->folder, path, frame_bound(length), &scratch->file, &error);

    if (result == ERROR_NOT_FOUND)
        return 0;
    if (!result)
        result = frame_decompress(scratch->file.bytes, scratch->file.size, scratch->existing, length, &error);
    if (!result && !memcmp(scratch->existing, block, length))
        return scratch->file.size;
    log_warning("%s was damaged and is written again%s%s", path, result ? ": " : "", result ? error.message : "");
    return 0;
}

static int choose_level(struct writer *writer, uint32_t length)
{
    const struct blocks_settings *settings = writer->settings;
    bool dense = atomic_fetch_add_explicit(&writer->fresh_bytes, length, memory_order_relaxed) < settings->dense_bytes;

    return dense ? settings->dense_level : settings->level;
}

static int store_block(struct writer *writer, struct scratch *scratch, const struct digest *digest,
                       const uint8_t *block, uint32_t length, struct error *error)
{
    const struct blocks_settings *settings = writer->settings;
    char path[ARCHIVE_PATH_MAX];
    size_t size;
    int result, fresh = digest_set_add(writer->seen, digest);

    if (fresh < 0)
        return error_set(error, ERROR_SYSTEM, "no memory for the list of blocks");
    if (!fresh)
        return 0;
    archive_path_block(digest, path);
    size = existing_frame(settings, path, block, length, scratch);
    if (!size) {
        size = frame_compress(block, length, choose_level(writer, length), scratch->frame, frame_bound(length));
        if (!size)
            return error_set(error, ERROR_SYSTEM, "no memory to compress a block");
        result = file_write_atomic(settings->folder, path, scratch->frame, size, FILE_MAKE_FOLDERS, error);
        if (result)
            return error_prefix(error, "%s", settings->folder_name);
        scratch->count.new_blocks++;
        scratch->count.new_bytes += size;
        scratch->written_bytes += size;
    }
    scratch->count.stored_size += size;
    return 0;
}

/* Digest and store the blocks of a run that is in memory. */
static int store_run(struct writer *writer, struct scratch *scratch, size_t size, struct error *error)
{
    const struct blocks_settings *settings = writer->settings;
    size_t block = 0;

    for (size_t at = 0; at < size; at += settings->block_size, block++) {
        uint32_t length = (uint32_t)min_u64(settings->block_size, size - at);
        struct digest *digest = &scratch->digests[block];
        int result;

        *digest = (struct digest){0};
        if (bytes_are_zero(scratch->run + at, length))
            continue;
        digest_of(scratch->run + at, length, digest);
        scratch->count.data_size += length;
        if (settings->only_digests)
            continue;
        result = store_block(writer, scratch, digest, scratch->run + at, length, error);
        if (result)
            return result;
    }
    return 0;
}

/* Enter the digests of a finished run, and say how far we are. */
static int enter_run(struct writer *writer, struct scratch *scratch, uint64_t offset, size_t size,
                     struct error *error)
{
    uint32_t block_size = writer->settings->block_size;
    int result = 0;

    pthread_mutex_lock(&writer->lock);
    for (size_t i = 0; !result && i * block_size < size; i++)
        if (!digest_is_zero(&scratch->digests[i]))
            result = map_builder_set(writer->builder, offset / block_size + i, &scratch->digests[i], error);
    writer->data_done += size;
    writer->unflushed_bytes += scratch->written_bytes;
    scratch->written_bytes = 0;
    if (writer->unflushed_bytes >= FLUSH_BYTES)
        pthread_cond_signal(&writer->flush);
    if (!result && clock_ms() - writer->progress_at_ms >= PROGRESS_INTERVAL_MS) {
        writer->progress_at_ms = clock_ms();
        if (!progress_update(writer->settings->progress, min_u64(writer->data_done, writer->data_total),
                             writer->data_total))
            result = error_set(error, ERROR_CANCELLED, "publishing was broken off; nothing was published");
    }
    pthread_mutex_unlock(&writer->lock);
    return result;
}

static int write_run(struct writer *writer, struct scratch *scratch, uint64_t offset, size_t size,
                     struct error *error)
{
    const struct blocks_settings *settings = writer->settings;
    ssize_t got = file_pread_full(settings->input, scratch->run, size, offset, error);
    int result;

    if (got < 0)
        return error_prefix(error, "%s", settings->input_name);
    if ((size_t)got < size)
        return error_set(error, ERROR_CHANGED, "%s became shorter than %llu bytes while it was read",
                         settings->input_name, (unsigned long long)settings->disk_size);
    read_ahead(writer, offset + size);
    result = store_run(writer, scratch, size, error);
    return result ? result : enter_run(writer, scratch, offset, size, error);
}

static void scratch_finish(struct scratch *scratch)
{
    free(scratch->run);
    free(scratch->frame);
    free(scratch->existing);
    free(scratch->digests);
    buffer_finish(&scratch->file);
}

static int scratch_init(struct scratch *scratch, uint32_t block_size, struct error *error)
{
    size_t run_size = max_u64(RUN_SIZE, block_size);

    *scratch = (struct scratch){0};
    scratch->run = malloc(run_size);
    scratch->frame = malloc(frame_bound(block_size));
    scratch->existing = malloc(block_size);
    scratch->digests = calloc(run_size / block_size, sizeof(*scratch->digests));
    if (scratch->run && scratch->frame && scratch->existing && scratch->digests)
        return 0;
    return error_set(error, ERROR_SYSTEM, "no memory to read the image");
}

static void writer_main(void *user)
{
    struct writer *writer = user;
    cleanup(scratch_finish) struct scratch scratch;
    struct error error = ERROR_INIT;
    int result = scratch_init(&scratch, writer->settings->block_size, &error);
    uint64_t offset;
    size_t size;

    while (!result && take_run(writer, &offset, &size))
        result = write_run(writer, &scratch, offset, size, &error);
    if (result)
        fail(writer, &error);
    pthread_mutex_lock(&writer->lock);
    writer->count.data_size += scratch.count.data_size;
    writer->count.stored_size += scratch.count.stored_size;
    writer->count.new_blocks += scratch.count.new_blocks;
    writer->count.new_bytes += scratch.count.new_bytes;
    pthread_mutex_unlock(&writer->lock);
}

/*
 * Keep the disk busy while the others compute, so that the flush at the end, which the caller does and which alone
 * counts, has little left to wait for.
 */
static void *flusher_main(void *user)
{
    struct writer *writer = user;
    struct error error = ERROR_INIT;

    pthread_mutex_lock(&writer->lock);
    while (!writer->ended) {
        if (writer->unflushed_bytes < FLUSH_BYTES) {
            pthread_cond_wait(&writer->flush, &writer->lock);
            continue;
        }
        writer->unflushed_bytes = 0;
        pthread_mutex_unlock(&writer->lock);
        /* An error of a file system is reported once to each descriptor: here it must not get lost. */
        if (syncfs(writer->settings->folder)) {
            error_set_errno(&error, errno, "cannot flush %s to the disk", writer->settings->folder_name);
            fail(writer, &error);
        }
        pthread_mutex_lock(&writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

static void run_threads(struct writer *writer)
{
    pthread_t flusher;
    bool flushing = !writer->settings->only_digests && !pthread_create(&flusher, NULL, flusher_main, writer);

    parallel_run(parallel_count(writer->settings->job_count), writer_main, writer);
    if (!flushing)
        return;
    pthread_mutex_lock(&writer->lock);
    writer->ended = true;
    pthread_cond_signal(&writer->flush);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(flusher, NULL);
}

int blocks_write(const struct blocks_settings *settings, struct map_builder *builder,
                 struct blocks_count *count_out, struct error *error)
{
    struct writer writer = {
        .settings = settings, .builder = builder, .lock = PTHREAD_MUTEX_INITIALIZER, .flush = PTHREAD_COND_INITIALIZER,
    };

    writer.seen = digest_set_create();
    if (!writer.seen)
        return error_set(error, ERROR_SYSTEM, "no memory for the list of blocks");
    writer.data_total = measure_data(settings);
    run_threads(&writer);
    digest_set_destroy(writer.seen);
    pthread_cond_destroy(&writer.flush);
    pthread_mutex_destroy(&writer.lock);
    if (writer.error.code)
        return error_copy(error, &writer.error);
    progress_update(settings->progress, writer.data_total, writer.data_total);
    *count_out = writer.count;
    return 0;
}
