/*
 * Writing behind: making a file costs as much processor time as the block's digest, and readers wait for processors.
 * Frames that a reader has already wait in memory until no more come, or too many do, and a thread of the lowest
 * priority writes them; meanwhile whoever looks into the cache finds them here.
 */
#include <sys/mman.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/workers.h"
#include "store/cache_parts.h"

/* What may wait: as much as a boot's blocks take compressed; each counted as its file will be. */
#define BEHIND_BYTES (20 * MIB)
#define ENOUGH_BYTES (14 * MIB) /* then writing begins, */
#define LULL_MS 50              /* or when none has come for so long, */
#define AGE_MS 1000             /* or the first one has waited for so long */
#define CHUNK_SIZE MIB

struct pending {
    STAILQ_ENTRY(pending) entry; /* of those that nobody writes yet */
    struct pending *chain; /* of its bucket, until it is written */
    struct chunk *chunk;
    struct digest digest;
    size_t size;
    uint8_t frame[];
};

/*
 * Frames are laid one behind the other into mappings of their own: in the heap, what lives so long between what does
 * not would keep it from shrinking, and a mapping for each costs more than copying it.
 */
struct chunk {
    size_t capacity, used;
    unsigned live; /* frames */
    _Alignas(16) uint8_t bytes[];
};

/* ---- Where frames lie ---- */

static void chunk_free(struct chunk *chunk)
{
    if (chunk)
        munmap(chunk, sizeof(*chunk) + chunk->capacity);
}

static struct chunk *chunk_make(size_t size)
{
    size_t capacity = max_u64(CHUNK_SIZE - sizeof(struct chunk), size);
    struct chunk *chunk = mmap(NULL, sizeof(*chunk) + capacity, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (chunk == MAP_FAILED)
        return NULL;
    chunk->capacity = capacity;
    return chunk;
}

/* Room for a frame; NULL: no memory. Under the lock, as all that do not take it. */
static struct pending *pending_make(struct behind *behind, size_t frame_size)
{
    size_t size = divide_up(sizeof(struct pending) + frame_size, 16) * 16;
    struct chunk *chunk = behind->chunk;
    struct pending *pending;

    if (!chunk || chunk->used + size > chunk->capacity) {
        chunk = chunk_make(size);
        if (!chunk)
            return NULL;
        if (behind->chunk && !behind->chunk->live)
            chunk_free(behind->chunk);
        behind->chunk = chunk;
    }
    pending = (struct pending *)(void *)(chunk->bytes + chunk->used);
    pending->chunk = chunk;
    pending->size = frame_size;
    chunk->used += size;
    chunk->live++;
    return pending;
}

static void pending_free(struct behind *behind, struct pending *pending)
{
    struct chunk *chunk = pending->chunk;

    if (--chunk->live)
        return;
    chunk->used = 0;
    if (chunk != behind->chunk)
        chunk_free(chunk);
}

/* ---- Which wait ---- */

static struct pending **bucket_of(struct behind *behind, const struct digest *digest)
{
    return &behind->buckets[digest->bytes[0] & (BEHIND_BUCKETS - 1)];
}

/* Where the pending frame is linked, or the end of its bucket. Under the lock, as all that do not take it. */
static struct pending **find(struct behind *behind, const struct digest *digest)
{
    struct pending **at = bucket_of(behind, digest);

    while (*at && !digest_equal(&(*at)->digest, digest))
        at = &(*at)->chain;
    return at;
}

static struct pending *take_first(struct behind *behind)
{
    struct pending *pending = STAILQ_FIRST(&behind->waiting);

    if (!pending)
        return NULL;
    STAILQ_REMOVE_HEAD(&behind->waiting, entry);
    behind->writing++;
    return pending;
}

static void forget(struct behind *behind, struct pending *pending)
{
    *find(behind, &pending->digest) = pending->chain;
    atomic_fetch_sub(&behind->bytes, cache_charge(pending->size));
    pending_free(behind, pending);
    if (--behind->writing == 0)
        pthread_cond_broadcast(&behind->written);
}

/* Write until nobody waits. Under the lock, which is let go meanwhile. */
static void write_all(struct cache *cache)
{
    struct behind *behind = &cache->behind;
    struct pending *pending;

    while ((pending = take_first(behind))) {
        pthread_mutex_unlock(&behind->lock);
        cache_write_block(cache, &pending->digest, pending->frame, pending->size);
        pthread_mutex_lock(&behind->lock);
        forget(behind, pending);
    }
}

void cache_settle(struct cache *cache)
{
    struct behind *behind = &cache->behind;

    pthread_mutex_lock(&behind->lock);
    write_all(cache);
    while (behind->writing)
        pthread_cond_wait(&behind->written, &behind->lock);
    pthread_mutex_unlock(&behind->lock);
}

/* ---- The thread ---- */

/* When what waits is to be written, in the time of clock_ms. */
static uint64_t due_ms(const struct behind *behind)
{
    if (atomic_load(&behind->bytes) >= ENOUGH_BYTES)
        return 0;
    return min_u64(behind->last_ms + LULL_MS, behind->first_ms + AGE_MS);
}

static void *writer_main(void *user)
{
    struct behind *behind = user;

    workers_give_way();
    pthread_mutex_lock(&behind->lock);
    while (!behind->closing) {
        if (STAILQ_EMPTY(&behind->waiting))
            pthread_cond_wait(&behind->changed, &behind->lock);
        else if (clock_ms() < due_ms(behind))
            condition_wait_ms(&behind->changed, &behind->lock, due_ms(behind));
        else
            write_all(behind->cache);
    }
    pthread_mutex_unlock(&behind->lock);
    return NULL;
}

/* Of whoever never fetches there is none. */
static bool has_thread(struct behind *behind)
{
    if (!behind->has_thread)
        behind->has_thread = !pthread_create(&behind->thread, NULL, writer_main, behind);
    return behind->has_thread;
}

/* ---- For the store ---- */

/* True: the frame waits. */
static bool append(struct behind *behind, const struct digest *digest, const void *frame, size_t frame_size)
{
    size_t before = atomic_load(&behind->bytes), after = before + cache_charge(frame_size);
    struct pending **at = find(behind, digest), *pending;

    if (*at)
        return true;
    if (after > BEHIND_BYTES || !has_thread(behind) || !(pending = pending_make(behind, frame_size)))
        return false;
    pending->digest = *digest;
    memcpy(pending->frame, frame, frame_size);
    pending->chain = NULL;
    *at = pending;
    behind->last_ms = clock_ms();
    if (STAILQ_EMPTY(&behind->waiting))
        behind->first_ms = behind->last_ms;
    /* The thread knows when it would be due; it is not woken for each frame. */
    if (STAILQ_EMPTY(&behind->waiting) || (before < ENOUGH_BYTES && after >= ENOUGH_BYTES))
        pthread_cond_signal(&behind->changed);
    STAILQ_INSERT_TAIL(&behind->waiting, pending, entry);
    atomic_store(&behind->bytes, after);
    return true;
}

void cache_write_block_behind(struct cache *cache, const struct digest *digest, const void *frame, size_t frame_size)
{
    struct behind *behind = &cache->behind;
    bool waits;

    pthread_mutex_lock(&behind->lock);
    waits = append(behind, digest, frame, frame_size);
    pthread_mutex_unlock(&behind->lock);
    if (!waits)
        cache_write_block(cache, digest, frame, frame_size);
}

/* Most of the time nothing waits, and nobody should wait for a lock that a thread of the lowest priority may hold. */
static bool is_empty(const struct behind *behind)
{
    return !atomic_load(&behind->bytes);
}

bool behind_has(struct behind *behind, const struct digest *digest)
{
    bool has;

    if (is_empty(behind))
        return false;
    pthread_mutex_lock(&behind->lock);
    has = *find(behind, digest);
    pthread_mutex_unlock(&behind->lock);
    return has;
}

bool behind_read(struct behind *behind, const struct digest *digest, struct buffer *frame)
{
    const struct pending *pending;
    bool found;

    if (is_empty(behind))
        return false;
    pthread_mutex_lock(&behind->lock);
    pending = *find(behind, digest);
    found = pending && buffer_reserve(frame, pending->size);
    if (found) {
        memcpy(frame->bytes, pending->frame, pending->size);
        frame->size = pending->size;
    }
    pthread_mutex_unlock(&behind->lock);
    return found;
}

void behind_open(struct behind *behind, struct cache *cache)
{
    pthread_mutex_init(&behind->lock, NULL);
    condition_init(&behind->changed);
    pthread_cond_init(&behind->written, NULL);
    behind->cache = cache;
    STAILQ_INIT(&behind->waiting);
}

void behind_close(struct behind *behind)
{
    pthread_mutex_lock(&behind->lock);
    behind->closing = true;
    pthread_cond_signal(&behind->changed);
    pthread_mutex_unlock(&behind->lock);
    if (behind->has_thread)
        pthread_join(behind->thread, NULL);
    cache_settle(behind->cache);
    chunk_free(behind->chunk);
    pthread_cond_destroy(&behind->changed);
    pthread_cond_destroy(&behind->written);
    pthread_mutex_destroy(&behind->lock);
}
