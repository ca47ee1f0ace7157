/* Verified blocks in memory: see memory.h. */
#include "store/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "format/map.h"

/* Buffers are of 4 KiB, 8 KiB, ... 1 MiB. */
#define CLASS_COUNT 9
/* Unused buffers that are kept for the next block. */
#define SPARE_BYTES (2 * MIB)
#define GENEROUS_FACTOR 3

struct entry {
    struct block block; /* first, so that a block is its entry */
    struct memory *memory;
    atomic_uint references; /* the list's own included */
    uint32_t capacity;
    uint8_t *bytes;
    struct entry *chain; /* of its bucket; of spare buffers */
    struct list *list;
    struct entry *newer, *older;
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
    struct entry *spare[CLASS_COUNT];
    size_t spare_bytes;
    size_t live; /* entries that are not spare */
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

static void free_entry(struct entry *entry)
{
    munmap(entry->bytes, entry->capacity);
    free(entry);
}

static void free_spare(struct memory *memory)
{
    for (unsigned class = 0; class < CLASS_COUNT; class++) {
        while (memory->spare[class]) {
            struct entry *entry = memory->spare[class];

            memory->spare[class] = entry->chain;
            free_entry(entry);
        }
    }
    memory->spare_bytes = 0;
}

static void free_memory(struct memory *memory)
{
    free_spare(memory);
    pthread_mutex_destroy(&memory->lock);
    free(memory->buckets);
    free(memory);
}

/* Under the lock, after the last reference: keep the buffer for the next block, or give it back. */
static void put_back(struct memory *memory, struct entry *entry)
{
    unsigned class = class_of(entry->capacity);

    memory->live--;
    if (memory->closed || memory->spare_bytes + entry->capacity > SPARE_BYTES) {
        free_entry(entry);
        return;
    }
    entry->chain = memory->spare[class];
    memory->spare[class] = entry;
    memory->spare_bytes += entry->capacity;
}

/* Mapped, not from the heap: thousands of blocks that live for different times would riddle that with holes. */
static struct entry *make_entry(uint32_t capacity)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    void *bytes;

    if (!entry)
        return NULL;
    bytes = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) {
        free(entry);
        return NULL;
    }
    entry->bytes = bytes;
    entry->capacity = capacity;
    return entry;
}

struct block *memory_make(struct memory *memory, const struct digest *digest, uint32_t length, uint8_t **bytes_out)
{
    unsigned class = class_of(length);
    struct entry *entry;

    pthread_mutex_lock(&memory->lock);
    entry = memory->spare[class];
    if (entry) {
        memory->spare[class] = entry->chain;
        memory->spare_bytes -= entry->capacity;
    }
    memory->live++;
    pthread_mutex_unlock(&memory->lock);
    if (!entry)
        entry = make_entry(UINT32_C(4096) << class);
    if (!entry) {
        pthread_mutex_lock(&memory->lock);
        memory->live--;
        pthread_mutex_unlock(&memory->lock);
        return NULL;
    }
    entry->block = (struct block){.digest = *digest, .length = length, .bytes = entry->bytes};
    entry->memory = memory;
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

void memory_set_generous(struct memory *memory, bool generous)
{
    pthread_mutex_lock(&memory->lock);
    memory->most = memory->limit * (generous ? GENEROUS_FACTOR : 1);
    while (memory->ahead.oldest && is_full(memory, 0))
        evict_oldest(memory, &memory->ahead);
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
    free_spare(memory);
    last = memory->live == 0;
    pthread_mutex_unlock(&memory->lock);
    if (last)
        free_memory(memory);
}
