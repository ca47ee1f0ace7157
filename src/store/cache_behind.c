/*
 * Writing behind: making a file costs as much processor time as the block's digest, and readers wait for processors.
 * Frames that a reader has already wait in memory until a thread of the lowest priority has written them; meanwhile
 * whoever looks into the cache finds them here.
 */
#include <sys/mman.h>

#include "base/cleanup.h"
#include "store/cache_parts.h"

/* As much as a boot's blocks take compressed; each counted as its file will be, so that tiny ones are not millions. */
#define BEHIND_BYTES (16 * MIB)

struct pending {
    STAILQ_ENTRY(pending) entry; /* of those that nobody writes yet */
    struct pending *chain; /* of its bucket, until it is written */
    struct digest digest;
    size_t size;
    uint8_t frame[];
};

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
    if (--behind->writing == 0)
        pthread_cond_broadcast(&behind->written);
}

static void free_pending(struct pending *pending)
{
    if (pending)
        munmap(pending, sizeof(*pending) + pending->size);
}

/* Write until nobody waits. Under the lock, which is let go meanwhile. */
static void write_all(struct cache *cache)
{
    struct behind *behind = &cache->behind;
    struct pending *pending, *written = NULL;

    while ((pending = take_first(behind))) {
        pthread_mutex_unlock(&behind->lock);
        free_pending(written);
        cache_write_block(cache, &pending->digest, pending->frame, pending->size);
        pthread_mutex_lock(&behind->lock);
        forget(behind, pending);
        written = pending;
    }
    free_pending(written);
}

static void run_job(struct job *job)
{
    struct behind *behind = (struct behind *)job;

    pthread_mutex_lock(&behind->lock);
    write_all(behind->cache);
    behind->submitted = false;
    pthread_cond_broadcast(&behind->written);
    pthread_mutex_unlock(&behind->lock);
}

void cache_settle(struct cache *cache)
{
    struct behind *behind = &cache->behind;

    pthread_mutex_lock(&behind->lock);
    write_all(cache);
    while (behind->writing || behind->submitted)
        pthread_cond_wait(&behind->written, &behind->lock);
    pthread_mutex_unlock(&behind->lock);
}

static bool has_room(const struct behind *behind, size_t frame_size)
{
    return atomic_load(&behind->bytes) + cache_charge(frame_size) <= BEHIND_BYTES;
}

/* Mapped, not from the heap: what lives so long between what does not would keep the heap from shrinking again. */
static struct pending *make_pending(const struct digest *digest, const void *frame, size_t frame_size)
{
    struct pending *pending = mmap(NULL, sizeof(*pending) + frame_size, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pending == MAP_FAILED)
        return NULL;
    pending->digest = *digest;
    pending->size = frame_size;
    memcpy(pending->frame, frame, frame_size);
    return pending;
}

/* True: the frame waits, and its *PENDING (NULL: there is none) is taken over unless another one did already. */
static bool append(struct behind *behind, const struct digest *digest, struct pending **pending, bool *submit_out)
{
    struct pending **at;
    bool waits;

    pthread_mutex_lock(&behind->lock);
    at = find(behind, digest);
    waits = *at;
    if (!waits && *pending && has_room(behind, (*pending)->size)) {
        atomic_fetch_add(&behind->bytes, cache_charge((*pending)->size));
        STAILQ_INSERT_TAIL(&behind->waiting, *pending, entry);
        *at = steal_pointer(pending);
        waits = true;
    }
    *submit_out = !STAILQ_EMPTY(&behind->waiting) && !behind->submitted;
    behind->submitted |= *submit_out;
    pthread_mutex_unlock(&behind->lock);
    return waits;
}

void cache_write_block_behind(struct cache *cache, struct workers *workers, const struct digest *digest,
                              const void *frame, size_t frame_size)
{
    struct behind *behind = &cache->behind;
    struct pending *pending = has_room(behind, frame_size) ? make_pending(digest, frame, frame_size) : NULL;
    bool submit, waits = append(behind, digest, &pending, &submit);

    free_pending(pending);
    if (submit) {
        workers_set_background(workers);
        workers_submit(workers, &behind->job, PRIORITY_FILL);
    }
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
    pthread_cond_init(&behind->written, NULL);
    behind->job.run = run_job;
    behind->cache = cache;
    STAILQ_INIT(&behind->waiting);
}

void behind_close(struct behind *behind)
{
    pthread_cond_destroy(&behind->written);
    pthread_mutex_destroy(&behind->lock);
}
