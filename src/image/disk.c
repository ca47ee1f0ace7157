/*
 * A disk: see disk.h. A read is cut into chunks of a bounded number of blocks;
 * the blocks of a chunk are looked up and then fetched all at once. Whoever
 * finishes the last part of a chunk goes on with the next, so that no thread
 * ever waits for another.
 */
#include "image/disk.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/latch.h"
#include "image/readahead.h"
#include "image/recorder.h"

/* The blocks that one read has under way: as many as these bytes hold, within limits. */
#define CHUNK_BYTES (2 * MIB)
#define CHUNK_BLOCKS_MIN 4
#define CHUNK_BLOCKS_MAX 128

/* A sequence that lacked so many blocks is read ahead of even while somebody else is to bring what readers want. */
#define MISSES_COVERED 4

#define MORE_NEAR 3

struct disk {
    struct store *store;
    struct tree *tree;
    const struct map *map;
    uint32_t chunk_blocks;
    atomic_bool covered;
    _Atomic(struct ranges *) ranges; /* NULL until it is known which packs there are */
    struct recorder *recorder;     /* NULL: no memory for one */

    pthread_mutex_t lock; /* everything below; a leaf */
    pthread_cond_t idle;
    size_t under_way;     /* reads and lookups for readahead */
    struct readahead readahead;
};

/* One block's share of a read. */
struct part {
    struct read *read;
    uint64_t block;
    uint8_t *bytes;  /* where it goes */
    uint32_t within; /* offset in the block */
    uint32_t size;
    bool coming; /* was on its way already */
    atomic_bool arrived;
};

struct read {
    struct disk *disk;
    uint8_t *bytes;
    uint64_t offset, end;
    void (*done)(void *user, ssize_t result, const struct error *error);
    void *user;

    uint64_t next;           /* offset of the first chunk that has not begun */
    atomic_uint pending;     /* what the chunk waits for, and 1 for the thread that begins it */
    atomic_bool failed;      /* ERROR is taken */
    struct error error;
    uint32_t part_count;
    struct digest *digests;  /* behind PARTS */
    struct part parts[];
};

int disk_open(struct store *store, const struct digest *image_id, struct disk **disk_out, struct error *error)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    int result;

    if (!disk)
        return error_set(error, ERROR_SYSTEM, "no memory for a disk");
    disk->store = store;
    result = tree_open(store, image_id, &disk->tree, error);
    if (result) {
        free(disk);
        return result;
    }
    disk->map = tree_map(disk->tree);
    disk->chunk_blocks = (uint32_t)min_u64(max_u64(CHUNK_BYTES / disk->map->block_size, CHUNK_BLOCKS_MIN),
                                           CHUNK_BLOCKS_MAX);
    readahead_init(&disk->readahead, disk->map->block_count, disk->map->block_size, store_memory(store));
    disk->recorder = recorder_create(disk->map->block_count);
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->idle, NULL);
    *disk_out = disk;
    return 0;
}

void disk_close(struct disk *disk)
{
    if (!disk)
        return;
    pthread_mutex_lock(&disk->lock);
    while (disk->under_way)
        pthread_cond_wait(&disk->idle, &disk->lock);
    pthread_mutex_unlock(&disk->lock);
    pthread_cond_destroy(&disk->idle);
    pthread_mutex_destroy(&disk->lock);
    ranges_close(disk->ranges);
    recorder_destroy(disk->recorder);
    tree_close(disk->tree);
    free(disk);
}

uint64_t disk_size(const struct disk *disk)
{
    return disk->map->disk_size;
}

uint32_t disk_block_size(const struct disk *disk)
{
    return disk->map->block_size;
}

struct tree *disk_tree(struct disk *disk)
{
    return disk->tree;
}

void disk_set_covered(struct disk *disk, bool covered)
{
    atomic_store_explicit(&disk->covered, covered, memory_order_relaxed);
}

void disk_set_ranges(struct disk *disk, struct ranges *ranges)
{
    atomic_store(&disk->ranges, ranges);
}

/*
 * Where answers come quickly, a reader's time goes into the number of his requests, and into the processors: with what
 * he lacks comes what lies behind it, but readahead begins small. Over longer links it goes into round trips, and into
 * the bytes before the last one he waits for.
 */
static bool is_near(struct disk *disk)
{
    struct mirrors *mirrors = store_mirrors(disk->store);
    uint64_t first_byte_us = mirrors ? mirrors_first_byte_us(mirrors) : 0;

    return first_byte_us && first_byte_us < DISK_NEAR_US;
}

void disk_gather(struct disk *disk, uint64_t first, uint32_t count, const struct digest *digests,
                 enum priority priority)
{
    struct ranges *ranges = atomic_load(&disk->ranges);

    if (ranges)
        ranges_fetch(ranges, &(struct ranges_wish){
            .map = disk->map, .first = first, .count = count, .digests = digests,
            .more = priority == PRIORITY_READER && is_near(disk) ? MORE_NEAR : 0, .priority = priority});
}

uint32_t disk_gathers(struct disk *disk)
{
    return atomic_load(&disk->ranges) ? RANGE_BLOCKS_MAX : 1;
}

size_t disk_positions(struct disk *disk, uint64_t positions_out[DISK_POSITIONS])
{
    size_t count;

    _Static_assert(DISK_POSITIONS == READAHEAD_STREAMS, "a position for each stream");
    pthread_mutex_lock(&disk->lock);
    count = readahead_positions(&disk->readahead, positions_out);
    pthread_mutex_unlock(&disk->lock);
    return count;
}

int disk_profile(struct disk *disk, struct profile *copy_out, struct error *error)
{
    int result = recorder_copy(disk->recorder, copy_out, error);

    if (result)
        return result;
    if (!copy_out->run_count) {
        profile_finish(copy_out);
        return error_set(error, ERROR_NOT_FOUND, "nothing was read, so there is no profile");
    }
    map_image_id(disk->map, &copy_out->image);
    copy_out->block_size = disk->map->block_size;
    return 0;
}

static void leave(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    if (!--disk->under_way)
        pthread_cond_broadcast(&disk->idle);
    pthread_mutex_unlock(&disk->lock);
}

/* Blocks to be fetched ahead, while their digests are looked up. */
struct lookahead {
    struct lookahead *next; /* to begin with */
    struct disk *disk;
    uint64_t reader; /* the first block that the read touches */
    uint64_t first;
    uint32_t count;
    struct digest digests[READAHEAD_WINDOW_MAX];
};

/*
 * Whether to fetch ahead of the sequence that read BLOCK: not while its readers find everything here or on its way, as
 * from a boot pack or a full cache.
 */
static bool is_lacking(struct disk *disk, uint64_t block)
{
    unsigned needed = atomic_load_explicit(&disk->covered, memory_order_relaxed) ? MISSES_COVERED : 1, misses;

    pthread_mutex_lock(&disk->lock);
    misses = readahead_misses(&disk->readahead, block * disk->map->block_size);
    pthread_mutex_unlock(&disk->lock);
    return misses >= needed;
}

static void ahead_looked_up(void *user, int code, const struct error *error)
{
    struct lookahead *ahead = user;
    struct disk *disk = ahead->disk;
    bool fetch = is_lacking(disk, ahead->reader);

    (void)error; /* Whoever reads there will be told. */
    if (!code && fetch)
        disk_gather(disk, ahead->first, ahead->count, ahead->digests, PRIORITY_READAHEAD);
    for (uint32_t i = 0; !code && i < ahead->count; i++)
        if (!digest_is_zero(&ahead->digests[i]) && (fetch || store_has(disk->store, &ahead->digests[i])))
            store_prefetch(disk->store, &ahead->digests[i], map_block_length(disk->map, ahead->first + i),
                           PRIORITY_READAHEAD);
    free(ahead);
    leave(disk);
}

/* Enter a read. Returns what to read ahead of it if it is part of a sequence, as a list. */
static struct lookahead *enter(struct disk *disk, uint64_t offset, uint64_t size)
{
    struct readahead_piece pieces[READAHEAD_PIECES_MAX];
    struct lookahead *list = NULL, *ahead;

    pthread_mutex_lock(&disk->lock);
    disk->under_way++;
    for (size_t i = readahead_note(&disk->readahead, offset, size, pieces); i > 0; i--) {
        ahead = malloc(sizeof(*ahead));
        if (!ahead)
            break;
        disk->under_way++;
        ahead->next = list;
        ahead->disk = disk;
        ahead->reader = offset / disk->map->block_size;
        ahead->first = pieces[i - 1].first;
        ahead->count = pieces[i - 1].count;
        list = ahead;
    }
    pthread_mutex_unlock(&disk->lock);
    return list;
}

/* The first error wins; BLOCK_TEXT says what could not be read. */
static void read_fail(struct read *read, const struct error *error, uint64_t block)
{
    if (atomic_exchange(&read->failed, true))
        return;
    read->error = *error;
    error_prefix(&read->error, "block %" PRIu64 " at offset %" PRIu64, block,
                 block * read->disk->map->block_size);
}

static void read_continue(struct read *read);

/* One thing that the chunk waited for is over. */
static void part_end(struct read *read)
{
    if (atomic_fetch_sub(&read->pending, 1) == 1)
        read_continue(read);
}

static void block_arrived(void *user, int code, struct block *block, const struct error *error)
{
    struct part *part = user;

    if (code)
        read_fail(part->read, error, part->block);
    else
        memcpy(part->bytes, block->bytes + part->within, part->size);
    block_release(block);
    atomic_store_explicit(&part->arrived, true, memory_order_relaxed);
    part_end(part->read);
}

/* Which blocks are coming for others? Those that are not, and not here, come together if they can. */
static void look_for_coming(struct read *read)
{
    struct disk *disk = read->disk;

    for (uint32_t i = 0; i < read->part_count; i++)
        read->parts[i].coming = !digest_is_zero(&read->digests[i]) &&
                                store_is_coming(disk->store, &read->digests[i],
                                                map_block_length(disk->map, read->parts[i].block));
    disk_gather(disk, read->parts[0].block, read->part_count, read->digests, PRIORITY_READER);
}

static void chunk_looked_up(void *user, int code, const struct error *error)
{
    struct read *read = user;
    struct disk *disk = read->disk;
    uint64_t missed = UINT64_MAX;

    if (code)
        read_fail(read, error, read->parts[0].block);
    else
        look_for_coming(read);
    for (uint32_t i = 0; !code && i < read->part_count; i++) {
        struct part *part = &read->parts[i];

        if (digest_is_zero(&read->digests[i])) {
            memset(part->bytes, 0, part->size);
            continue;
        }
        atomic_fetch_add(&read->pending, 1);
        store_get_async(disk->store, &read->digests[i], map_block_length(disk->map, part->block),
                        PRIORITY_READER, block_arrived, part);
        if (!part->coming && !atomic_load_explicit(&part->arrived, memory_order_relaxed))
            missed = part->block;
    }
    if (missed != UINT64_MAX) {
        bool near = is_near(disk);

        pthread_mutex_lock(&disk->lock);
        disk->readahead.near = near;
        readahead_note_miss(&disk->readahead, missed * disk->map->block_size);
        pthread_mutex_unlock(&disk->lock);
    }
    part_end(read);
}

/* Cut the next chunk into parts. */
static void chunk_plan(struct read *read)
{
    uint32_t block_size = read->disk->map->block_size;

    for (read->part_count = 0; read->part_count < read->disk->chunk_blocks && read->next < read->end;
         read->part_count++) {
        struct part *part = &read->parts[read->part_count];

        part->read = read;
        part->block = read->next / block_size;
        part->bytes = read->bytes + (read->next - read->offset);
        part->within = (uint32_t)(read->next % block_size);
        part->size = (uint32_t)min_u64(block_size - part->within, read->end - read->next);
        atomic_init(&part->arrived, false);
        read->next += part->size;
    }
}

static void read_end(struct read *read)
{
    struct disk *disk = read->disk;

    if (!read->failed)
        store_note_read(disk->store, read->end - read->offset);
    if (read->failed)
        read->done(read->user, read->error.code, &read->error);
    else
        read->done(read->user, (ssize_t)(read->end - read->offset), NULL);
    free(read);
    leave(disk);
}

/* Begin chunk after chunk, until one has to wait. */
static void read_continue(struct read *read)
{
    do {
        if (read->failed || read->next == read->end) {
            read_end(read);
            return;
        }
        chunk_plan(read);
        atomic_store(&read->pending, 2); /* the lookup, and this thread */
        tree_lookup_async(read->disk->tree, read->parts[0].block, read->part_count, PRIORITY_READER,
                          read->digests, chunk_looked_up, read);
    } while (atomic_fetch_sub(&read->pending, 1) == 1);
}

static struct read *read_create(struct disk *disk, void *bytes, size_t size, uint64_t offset)
{
    uint32_t block_size = disk->map->block_size;
    uint64_t blocks = (offset + size - 1) / block_size - offset / block_size + 1;
    size_t part_count = min_u64(blocks, disk->chunk_blocks);
    struct read *read = malloc(sizeof(*read) + part_count * (sizeof(struct part) + sizeof(struct digest)));

    if (!read)
        return NULL;
    *read = (struct read){.disk = disk, .bytes = bytes, .offset = offset, .next = offset, .end = offset + size};
    read->digests = (struct digest *)(void *)&read->parts[part_count];
    return read;
}

void disk_read_async(struct disk *disk, void *bytes, size_t size, uint64_t offset,
                     void (*done)(void *user, ssize_t result, const struct error *error), void *user)
{
    struct error error = ERROR_INIT;
    struct lookahead *ahead;
    struct read *read;

    size = offset < disk->map->disk_size ? min_u64(size, disk->map->disk_size - offset) : 0;
    if (!size) {
        done(user, 0, NULL);
        return;
    }
    read = read_create(disk, bytes, size, offset);
    if (!read) {
        error_set(&error, ERROR_SYSTEM, "no memory to read %zu bytes", size);
        done(user, error.code, &error);
        return;
    }
    read->done = done;
    read->user = user;
    recorder_note(disk->recorder, read->next / disk->map->block_size,
                  (read->end - 1) / disk->map->block_size - read->next / disk->map->block_size + 1);
    ahead = enter(disk, offset, size);
    read_continue(read);
    /* Behind what is wanted now, and when it is known whether that was here. */
    for (struct lookahead *next; ahead; ahead = next) {
        next = ahead->next;
        tree_lookup_async(disk->tree, ahead->first, ahead->count, PRIORITY_READAHEAD, ahead->digests,
                          ahead_looked_up, ahead);
    }
}

struct waiting {
    struct latch latch;
    ssize_t result;
};

static void waiting_done(void *user, ssize_t result, const struct error *error)
{
    struct waiting *waiting = user;

    waiting->result = result;
    latch_set(&waiting->latch, result < 0 ? (int)result : 0, error);
}

ssize_t disk_read(struct disk *disk, void *bytes, size_t size, uint64_t offset, struct error *error)
{
    struct waiting waiting;

    latch_init(&waiting.latch);
    disk_read_async(disk, bytes, size, offset, waiting_done, &waiting);
    latch_wait(&waiting.latch, error);
    latch_finish(&waiting.latch);
    return waiting.result;
}
