/* A store for tests: see fake_store.h. */
#include "fake_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"

#define BUCKETS 4096

struct fake_block {
    struct digest digest;
    const uint8_t *bytes;
    uint32_t length;
    uint64_t number;
    struct fake_block *next;
};

void fake_store_init(struct store *store)
{
    *store = (struct store){.memory = 16 * MIB};
    store->blocks = calloc(BUCKETS, sizeof(*store->blocks));
    pthread_mutex_init(&store->lock, NULL);
}

void fake_store_finish(struct store *store)
{
    for (size_t i = 0; i < BUCKETS; i++)
        while (store->blocks[i].next) {
            struct fake_block *block = store->blocks[i].next;

            store->blocks[i].next = block->next;
            free(block);
        }
    free(store->blocks);
}

void fake_cache_init(struct cache *cache)
{
    *cache = (struct cache){.fd = memfd_create("map", MFD_CLOEXEC)};
}

void fake_cache_finish(struct cache *cache)
{
    close(cache->fd);
}

void fake_mirror_add(struct store *store, struct mirrors *mirrors, const void *bytes, size_t size)
{
    if (!mirrors->count)
        pthread_mutex_init(&mirrors->lock, NULL);
    mirrors->list[mirrors->count++] = (struct fake_mirror){.bytes = bytes, .size = size};
    store->mirrors = mirrors;
}

static struct fake_block *bucket_of(struct store *store, const struct digest *digest)
{
    return &store->blocks[load_le32(digest->bytes) % BUCKETS];
}

static struct fake_block *find_block(struct store *store, const struct digest *digest)
{
    struct fake_block *block = bucket_of(store, digest)->next;

    while (block && !digest_equal(&block->digest, digest))
        block = block->next;
    return block;
}

struct digest fake_store_add(struct store *store, const void *bytes, uint32_t length, uint64_t number)
{
    struct digest digest = {0};
    struct fake_block *block;

    if (bytes_are_zero(bytes, length))
        return digest;
    digest_of(bytes, length, &digest);
    if (find_block(store, &digest))
        return digest;
    block = malloc(sizeof(*block));
    *block = (struct fake_block){digest, bytes, length, number, bucket_of(store, &digest)->next};
    bucket_of(store, &digest)->next = block;
    return digest;
}

struct cache *store_cache(struct store *store)
{
    return store->cache;
}

struct mirrors *store_mirrors(struct store *store)
{
    return store->mirrors;
}

size_t store_memory(const struct store *store)
{
    return store->memory;
}

int cache_read_map(struct cache *cache, const struct digest *image_id, uint64_t offset, void *bytes, size_t size,
                   struct error *error)
{
    ssize_t got = file_pread_full(cache->fd, bytes, size, offset, error);

    (void)image_id;
    cache->read_count++;
    return got == (ssize_t)size ? 0 : error_set(error, ERROR_NOT_FOUND, "not cached");
}

void cache_write_map(struct cache *cache, const struct digest *image_id, uint64_t offset, const void *bytes,
                     size_t size)
{
    (void)image_id;
    file_pwrite_full(cache->fd, bytes, size, offset, NULL);
}

static int ask(struct mirrors *mirrors, struct fake_mirror *mirror, const struct mirrors_request *request,
               struct error *error)
{
    uint64_t offset = min_u64(request->offset, mirror->size);
    size_t size = min_u64(mirror->size - offset, request->length ? request->length : UINT64_MAX);
    int result;

    pthread_mutex_lock(&mirrors->lock);
    mirror->asked++;
    mirrors->request_count++;
    mirrors->byte_count += size;
    pthread_mutex_unlock(&mirrors->lock);
    if (mirror->unreachable)
        return error_set(error, ERROR_UNAVAILABLE, "connection refused");
    if (!mirror->bytes)
        return error_set(error, ERROR_NOT_FOUND, "%s: 404", request->path);
    result = request->accept(request->user, mirror->bytes + offset, size, error);
    if (!result)
        return 0;
    pthread_mutex_lock(&mirrors->lock);
    mirror->refused++;
    pthread_mutex_unlock(&mirrors->lock);
    return error_set(error, ERROR_CORRUPT, "all refused: %s", request->path);
}

static void answer(struct mirrors *mirrors, const struct mirrors_request *request)
{
    struct error error = ERROR_INIT;
    int result = ERROR_UNAVAILABLE, worst = ERROR_NOT_FOUND;

    for (size_t i = 0; i < mirrors->count; i++) {
        result = ask(mirrors, &mirrors->list[i], request, &error);
        if (!result)
            break;
        if (result != ERROR_NOT_FOUND)
            worst = result;
    }
    if (result)
        error.code = worst;
    request->done(request->user, result ? worst : 0, result ? &error : NULL);
}

struct fetch_job {
    struct job job;
    struct mirrors *mirrors;
    struct mirrors_request request;
    char path[320];
};

static void fetch_run(struct job *job)
{
    struct fetch_job *fetch = (struct fetch_job *)job;

    fetch->request.path = fetch->path;
    answer(fetch->mirrors, &fetch->request);
    free(fetch);
}

void mirrors_fetch(struct mirrors *mirrors, const struct mirrors_request *request)
{
    struct fetch_job *fetch;

    pthread_mutex_lock(&mirrors->lock);
    snprintf(mirrors->last_path, sizeof(mirrors->last_path), "%s", request->path);
    pthread_mutex_unlock(&mirrors->lock);
    if (!mirrors->workers) {
        answer(mirrors, request);
        return;
    }
    fetch = malloc(sizeof(*fetch));
    *fetch = (struct fetch_job){.job.run = fetch_run, .mirrors = mirrors, .request = *request};
    snprintf(fetch->path, sizeof(fetch->path), "%s", request->path);
    workers_submit(mirrors->workers, &fetch->job, request->priority);
}

int mirrors_fetch_wait(struct mirrors *mirrors, const struct mirrors_request *request, struct error *error)
{
    struct error reason = ERROR_INIT;
    int result = ERROR_UNAVAILABLE;

    for (size_t i = 0; i < mirrors->count && result; i++)
        result = ask(mirrors, &mirrors->list[i], request, &reason);
    if (result)
        error_copy(error, &reason);
    return result;
}

struct get_job {
    struct job job;
    struct store *store;
    struct digest digest;
    uint32_t length;
    void (*done)(void *user, int code, struct block *block, const struct error *error);
    void *user;
};

static void deliver(struct get_job *get)
{
    struct fake_block *found = find_block(get->store, &get->digest);
    struct block *block = NULL;
    struct error error = ERROR_INIT;

    if (!found || found->length != get->length || digest_equal(&get->digest, &get->store->failing)) {
        error_set(&error, ERROR_UNAVAILABLE, "no such block");
    } else {
        block = malloc(sizeof(*block));
        *block = (struct block){get->digest, get->length, found->bytes};
    }
    get->done(get->user, error.code, block, error.code ? &error : NULL);
    free(get);
}

static void get_run(struct job *job)
{
    deliver((struct get_job *)job);
}

void store_get_async(struct store *store, const struct digest *digest, uint32_t length, enum priority priority,
                     void (*done)(void *user, int code, struct block *block, const struct error *error), void *user)
{
    struct get_job *get = malloc(sizeof(*get));

    *get = (struct get_job){{get_run, NULL}, store, *digest, length, done, user};
    pthread_mutex_lock(&store->lock);
    store->get_count++;
    pthread_mutex_unlock(&store->lock);
    if (store->workers)
        workers_submit(store->workers, &get->job, priority);
    else
        deliver(get);
}

void store_prefetch(struct store *store, const struct digest *digest, uint32_t length, enum priority priority)
{
    struct fake_block *block = find_block(store, digest);

    (void)priority;
    (void)length;
    pthread_mutex_lock(&store->lock);
    store->prefetch_count++;
    if (block)
        store->prefetched_end = max_u64(store->prefetched_end, block->number + 1);
    pthread_mutex_unlock(&store->lock);
}

/* What is delivered at once is here. */
bool store_has(struct store *store, const struct digest *digest)
{
    (void)digest;
    return !store->workers;
}

bool store_is_coming(struct store *store, const struct digest *digest, uint32_t length)
{
    (void)store;
    (void)digest;
    (void)length;
    return false;
}

void block_release(struct block *block)
{
    free(block);
}

void store_note_read(struct store *store, uint64_t bytes)
{
    (void)store;
    (void)bytes;
}

uint64_t mirrors_first_byte_us(struct mirrors *mirrors)
{
    (void)mirrors;
    return 0;
}

/* ---- There are no packs here: none of these is called ---- */

bool store_expect(struct store *store, const struct digest *digest, uint32_t length,
                  const struct store_stream *stream)
{
    (void)store;
    (void)digest;
    (void)length;
    (void)stream;
    abort();
}

void store_unexpect(struct store *store, const struct digest *digest, uint32_t length)
{
    (void)store;
    (void)digest;
    (void)length;
    abort();
}

void mirrors_hurry(struct mirrors *mirrors, const void *user)
{
    (void)mirrors;
    (void)user;
    abort();
}
