/* Verified blocks in memory: see memory.h. */
#include "store/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "format/map.h"

/* Buffers are of 4 KiB, 8 KiB, ... 1 MiB, */
#define CLASS_COUNT 9
/* and cut from slabs of a huge page each: one fault in place of 512, nothing to unmap for each block that goes. */
#define SLAB_SIZE (2 * MIB)
#define GENEROUS_FACTOR 3

struct entry {
    struct block block; /* first, so that a block is its entry */
    struct memory *memory;
    struct slab *slab;
    atomic_uint references; /* the list's own included */
    uint32_t capacity;
    uint8_t *bytes;
    struct entry *chain; /* of its bucket; of a slab's free buffers */
    struct list *list;
    struct entry *newer, *older;
};

struct slab {
    struct slab *next, *previous; /* of those of its class that have free buffers; what is first is filled up first, */
    struct entry *free;           /* so that others empty */
    unsigned class;
    unsigned free_count, count;
    uint8_t *bytes;
    struct entry entries[];
};

struct list {
    struct entry *newest, *oldest;
    size_t held; /* bytes */
};

struct memory {
    pthread_mutex_t lock; /* a leaf */
    size_t limit; /* of USED */
    size_t most;  /* of both lists */
    struct list used, ahead;
    struct slab *first[CLASS_COUNT], *last[CLASS_COUNT];
    struct slab *empty; /* one that is kept for the next block; else they are given back */
    size_t live;        /* entries that are not free */
    bool closed;
    size_t bucket_mask;
    struct entry **buckets;
};

static unsigned class_of(uint32_t length)
{
    unsigned class = 0;

    while ((UINT32_C(4096) << class) < length)
        class++;
    return class;
}

static struct entry **bucket_of(struct memory *memory, const struct digest *digest)
{
    return &memory->buckets[load_le64(digest->bytes) & memory->bucket_mask];
}

struct memory *memory_create(size_t limit)
{
    struct memory *memory = calloc(1, sizeof(*memory));
    size_t buckets = 64;

    if (!memory)
        return NULL;
    while (buckets < limit / 32768)
        buckets *= 2;
    memory->buckets = calloc(buckets, sizeof(memory->buckets[0]));
    if (!memory->buckets) {
        free(memory);
        return NULL;
    }
    memory->bucket_mask = buckets - 1;
    memory->limit = memory->most = limit;
    pthread_mutex_init(&memory->lock, NULL);
    return memory;
}

size_t memory_limit(const struct memory *memory)
{
    return memory->limit;
}

size_t memory_held(struct memory *memory)
{
    size_t held;

    pthread_mutex_lock(&memory->lock);
    held = memory->used.held + memory->ahead.held;
    pthread_mutex_unlock(&memory->lock);
    return held;
}

/* At the end of those that have free buffers. Under the lock, as all that follow. */
static void link_slab(struct memory *memory, struct slab *slab)
{
    struct slab *last = memory->last[slab->class];

    slab->next = NULL;
    slab->previous = last;
    *(last ? &last->next : &memory->first[slab->class]) = slab;
    memory->last[slab->class] = slab;
}

static void unlink_slab(struct memory *memory, struct slab *slab)
{
    *(slab->previous ? &slab->previous->next : &memory->first[slab->class]) = slab->next;
    *(slab->next ? &slab->next->previous : &memory->last[slab->class]) = slab->previous;
}

/* A huge page, or as many small ones where there are none. NULL: no memory. */
static uint8_t *map_slab(void)
{
    uint8_t *mapped = mmap(NULL, 2 * SLAB_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t before;

    if (mapped == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)mapped % SLAB_SIZE;
    if (before)
        munmap(mapped, before);
    munmap(mapped + before + SLAB_SIZE, SLAB_SIZE - before);
    (void)madvise(mapped + before, SLAB_SIZE, MADV_HUGEPAGE);
    return mapped + before;
}

/* Mapped, not from the heap: thousands of blocks that live for different times would riddle that with holes. */
static struct slab *make_slab(struct memory *memory, unsigned class)
{
    uint32_t capacity = UINT32_C(4096) << class;
    unsigned count = (unsigned)(SLAB_SIZE / capacity);
    struct slab *slab = calloc(1, sizeof(*slab) + count * sizeof(slab->entries[0]));

    if (!slab || !(slab->bytes = map_slab())) {
        free(slab);
        return NULL;
    }
    slab->class = class;
    slab->count = slab->free_count = count;
    for (unsigned i = count; i-- > 0;) {
        struct entry *entry = &slab->entries[i];

        *entry = (struct entry){.memory = memory, .slab = slab, .capacity = capacity, .chain = slab->free,
                                .bytes = slab->bytes + (size_t)i * capacity};
        slab->free = entry;
    }
    link_slab(memory, slab);
    return slab;
}

static void free_slab(struct memory *memory, struct slab *slab)
{
    unlink_slab(memory, slab);
    munmap(slab->bytes, SLAB_SIZE);
    free(slab);
}

/* Give the empty slab back that was kept. */
static void free_empty(struct memory *memory)
{
    if (memory->empty)
        free_slab(memory, memory->empty);
    memory->empty = NULL;
}

static void free_memory(struct memory *memory)
{
    pthread_mutex_destroy(&memory->lock);
    free(memory->buckets);
    free(memory);
}

static struct entry *take_buffer(struct memory *memory, unsigned class)
{
    struct slab *slab = memory->first[class] ? memory->first[class] : make_slab(memory, class);
    struct entry *entry;

    if (!slab)
        return NULL;
    if (slab == memory->empty)
        memory->empty = NULL;
    entry = slab->free;
    slab->free = entry->chain;
    if (--slab->free_count == 0)
        unlink_slab(memory, slab);
    memory->live++;
    return entry;
}

/* After the last reference. */
static void put_back(struct memory *memory, struct entry *entry)
{
    struct slab *slab = entry->slab;

    memory->live--;
    entry->chain = slab->free;
    slab->free = entry;
    if (slab->free_count++ == 0)
        link_slab(memory, slab);
    if (slab->free_count < slab->count)
        return;
    /* This one, not the one that was kept: that may be of a size that is hardly used. */
    free_empty(memory);
    if (memory->closed)
        free_slab(memory, slab);
    else
        memory->empty = slab;
}

struct block *memory_make(struct memory *memory, const struct digest *digest, uint32_t length, uint8_t **bytes_out)
{
    struct entry *entry;

    pthread_mutex_lock(&memory->lock);
    entry = take_buffer(memory, class_of(length));
    pthread_mutex_unlock(&memory->lock);
    if (!entry)
        return NULL;
    entry->block = (struct block){.digest = *digest, .length = length, .bytes = entry->bytes};
    entry->chain = NULL;
    atomic_init(&entry->references, 1);
    *bytes_out = entry->bytes;
    return &entry->block;
}

struct block *block_reference(struct block *block)
{
    atomic_fetch_add_explicit(&((struct entry *)block)->references, 1, memory_order_relaxed);
    return block;
}

void block_release(struct block *block)
{
    struct entry *entry = (struct entry *)block;
    struct memory *memory;
    bool last;

    if (!block || atomic_fetch_sub_explicit(&entry->references, 1, memory_order_acq_rel) > 1)
        return;
    memory = entry->memory;
    pthread_mutex_lock(&memory->lock);
    put_back(memory, entry);
    last = memory->closed && memory->live == 0;
    pthread_mutex_unlock(&memory->lock);
    if (last)
        free_memory(memory);
}

static void link_newest(struct list *list, struct entry *entry)
{
    entry->list = list;
    entry->newer = NULL;
    entry->older = list->newest;
    *(list->newest ? &list->newest->newer : &list->oldest) = entry;
    list->newest = entry;
    list->held += entry->capacity;
}

static void unlink_entry(struct entry *entry)
{
    struct list *list = entry->list;

    *(entry->newer ? &entry->newer->older : &list->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &list->oldest) = entry->newer;
    list->held -= entry->capacity;
}

static struct entry *lookup(struct memory *memory, const struct digest *digest)
{
    struct entry *entry = *bucket_of(memory, digest);

    while (entry && !digest_equal(&entry->block.digest, digest))
        entry = entry->chain;
    return entry;
}

/* Under the lock. */
static void evict_oldest(struct memory *memory, struct list *list)
{
    struct entry *entry = list->oldest;
    struct entry **at = bucket_of(memory, &entry->block.digest);

    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    unlink_entry(entry);
    if (atomic_fetch_sub_explicit(&entry->references, 1, memory_order_acq_rel) == 1)
        put_back(memory, entry);
}

static bool is_full(const struct memory *memory, size_t more)
{
    return memory->used.held + memory->ahead.held + more > memory->most;
}

/* Make room for MORE bytes of what is used: by what was, and then by what should have been by now. Under the lock. */
static void make_room(struct memory *memory, size_t more)
{
    while (memory->used.oldest && memory->used.held + more > memory->limit)
        evict_oldest(memory, &memory->used);
    while (memory->ahead.oldest && is_full(memory, more))
        evict_oldest(memory, &memory->ahead);
}

struct block *memory_find(struct memory *memory, const struct digest *digest)
{
    struct entry *entry;

    pthread_mutex_lock(&memory->lock);
    entry = lookup(memory, digest);
    if (entry) {
        block_reference(&entry->block);
        unlink_entry(entry);
        make_room(memory, entry->capacity);
        link_newest(&memory->used, entry);
    }
    pthread_mutex_unlock(&memory->lock);
    return entry ? &entry->block : NULL;
}

bool memory_has(struct memory *memory, const struct digest *digest)
{
    bool has;

    pthread_mutex_lock(&memory->lock);
    has = lookup(memory, digest);
    pthread_mutex_unlock(&memory->lock);
    return has;
}

void memory_keep(struct memory *memory, struct block *block, bool ahead)
{
    struct entry *entry = (struct entry *)block;
    struct entry **bucket;

    pthread_mutex_lock(&memory->lock);
    if (entry->capacity > memory->limit || lookup(memory, &block->digest)) {
        pthread_mutex_unlock(&memory->lock);
        return;
    }
    if (!ahead)
        make_room(memory, entry->capacity);
    if (!is_full(memory, entry->capacity)) {
        block_reference(block);
        bucket = bucket_of(memory, &block->digest);
        entry->chain = *bucket;
        *bucket = entry;
        link_newest(ahead ? &memory->ahead : &memory->used, entry);
    }
    pthread_mutex_unlock(&memory->lock);
}

/* The pages of free buffers, of slabs that other buffers keep. Under the lock. */
static void give_free_back(struct memory *memory)
{
    for (unsigned class = 0; class < CLASS_COUNT; class++)
        for (struct slab *slab = memory->first[class]; slab; slab = slab->next)
            for (struct entry *entry = slab->free; entry; entry = entry->chain)
                (void)madvise(entry->bytes, entry->capacity, MADV_DONTNEED);
}

void memory_set_generous(struct memory *memory, bool generous)
{
    pthread_mutex_lock(&memory->lock);
    memory->most = memory->limit * (generous ? GENEROUS_FACTOR : 1);
    while (memory->ahead.oldest && is_full(memory, 0))
        evict_oldest(memory, &memory->ahead);
    if (!generous)
        give_free_back(memory);
    pthread_mutex_unlock(&memory->lock);
}

void memory_destroy(struct memory *memory)
{
    bool last;

    if (!memory)
        return;
    pthread_mutex_lock(&memory->lock);
    memory->closed = true;
    while (memory->used.oldest)
        evict_oldest(memory, &memory->used);
    while (memory->ahead.oldest)
        evict_oldest(memory, &memory->ahead);
    free_empty(memory);
    last = memory->live == 0;
    pthread_mutex_unlock(&memory->lock);
    if (last)
        free_memory(memory);
}
