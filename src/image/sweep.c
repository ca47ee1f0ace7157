/*
 * One thread walks the map and keeps a window of requests under way; answers
 * are dealt with where they arrive. A sweep that ends early does not wait for
 * what is still under way: its memory lives until the last answer.
 */
#include "image/sweep.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/condition.h"
#include "image/sweep_parts.h"

#define WINDOW_BLOCKS 256
#define WINDOW_BYTES (64 * MIB)
#define WISHES_MAX (256 * 1024) /* that are divided among packs at a time */
#define PROGRESS_INTERVAL_MS 200

struct request {
    struct sweep *sweep;
    uint64_t block;
    struct digest digest;
    uint32_t length;
    bool streamed;
};

static struct sweep *sweep_create(const struct sweep_settings *settings)
{
    struct sweep *sweep = calloc(1, sizeof(*sweep));
    uint32_t block_size = disk_block_size(settings->disk);

    if (!sweep)
        return NULL;
    sweep->settings = *settings;
    sweep->window = (unsigned)min_u64(WINDOW_BLOCKS, WINDOW_BYTES / block_size);
    sweep->faults = calloc(settings->pack_count + 1, sizeof(*sweep->faults));
    if (!sweep->faults) {
        free(sweep);
        return NULL;
    }
    pthread_mutex_init(&sweep->fault_lock, NULL);
    pthread_mutex_init(&sweep->lock, NULL);
    condition_init(&sweep->changed);
    return sweep;
}

void sweep_destroy(struct sweep *sweep)
{
    free(sweep->faults);
    pthread_cond_destroy(&sweep->changed);
    pthread_mutex_destroy(&sweep->lock);
    pthread_mutex_destroy(&sweep->fault_lock);
    free(sweep);
}

/* What came for REQUEST, handed on. */
static int deal_with(const struct request *request, int code, const struct block *block, const struct error *reason,
                     struct error *error)
{
    struct sweep *sweep = request->sweep;
    const struct sweep_settings *settings = &sweep->settings;
    int result = 0;

    if (!code)
        return settings->arrived ? settings->arrived(settings->user, request->block, block, error) : 0;
    if (!settings->failed)
        return error_copy(error, reason);
    pthread_mutex_lock(&sweep->fault_lock);
    result = settings->failed(settings->user, request->block, &request->digest, reason);
    pthread_mutex_unlock(&sweep->fault_lock);
    return result ? error_copy(error, reason) : 0;
}

/* An answer from the store, on any thread. */
static void answer(void *user, int code, struct block *block, const struct error *reason)
{
    struct request *request = user;
    struct sweep *sweep = request->sweep;
    struct error error = ERROR_INIT;
    bool abandoned, last;
    int result = 0;

    pthread_mutex_lock(&sweep->lock);
    abandoned = sweep->abandoned;
    sweep->inside++;
    pthread_mutex_unlock(&sweep->lock);
    if (!abandoned)
        result = deal_with(request, code, block, reason, &error);
    block_release(block);
    pthread_mutex_lock(&sweep->lock);
    if (result && !sweep->error.code)
        sweep->error = error;
    sweep->done_bytes += request->length;
    sweep->inside--;
    sweep->under_way--;
    sweep->streamed -= request->streamed;
    last = sweep->returned && sweep->under_way == 0 && sweep->runs == 0;
    if (sweep->under_way - sweep->streamed <= sweep->wake_at || sweep->error.code || sweep->abandoned)
        pthread_cond_signal(&sweep->changed);
    pthread_mutex_unlock(&sweep->lock);
    free(request);
    if (last)
        sweep_destroy(sweep);
}

/* With the lock held: wait for a change, at most until progress is due; say how far we are. */
static int wait_for_change(struct sweep *sweep, bool wait)
{
    uint64_t done, now = clock_ms();
    bool go_on = true;

    if (wait) {
        condition_wait_ms(&sweep->changed, &sweep->lock, now + PROGRESS_INTERVAL_MS);
        now = clock_ms();
    }
    if (now - sweep->progress_at_ms >= PROGRESS_INTERVAL_MS) {
        sweep->progress_at_ms = now;
        done = sweep->done_bytes;
        pthread_mutex_unlock(&sweep->lock);
        go_on = progress_update(sweep->settings.progress, done, 0);
        pthread_mutex_lock(&sweep->lock);
    }
    if (!go_on && !sweep->error.code)
        error_set(&sweep->error, ERROR_CANCELLED, "broken off; what is there already is kept, and used the next time");
    return sweep->error.code;
}

int sweep_wait(struct sweep *sweep, bool room, unsigned streams)
{
    unsigned most = sweep->window - 1;
    int result;

    pthread_mutex_lock(&sweep->lock);
    result = wait_for_change(sweep, false);
    /* If it is full, until a quarter is free: a wake for each answer costs as much as its write. */
    if (sweep->under_way - sweep->streamed > most)
        most = sweep->window / 4 * 3;
    sweep->wake_at = most;
    while (!result && !(room && sweep->under_way - sweep->streamed <= most) && sweep->streams >= streams)
        result = wait_for_change(sweep, true);
    pthread_mutex_unlock(&sweep->lock);
    return result;
}

/* Wait for every answer. */
static int wait_for_all(struct sweep *sweep)
{
    int result;

    pthread_mutex_lock(&sweep->lock);
    result = wait_for_change(sweep, false);
    sweep->wake_at = 0;
    while (!result && (sweep->under_way || sweep->batch_bytes))
        result = wait_for_change(sweep, true);
    pthread_mutex_unlock(&sweep->lock);
    return result;
}

void sweep_fail(struct sweep *sweep, const struct error *error)
{
    pthread_mutex_lock(&sweep->lock);
    if (!sweep->error.code)
        sweep->error = *error;
    pthread_mutex_unlock(&sweep->lock);
}

int sweep_fail_for_memory(struct sweep *sweep)
{
    struct error error;
    int result = error_set(&error, ERROR_SYSTEM, "no memory for a request");

    sweep_fail(sweep, &error);
    return result;
}

int sweep_ask(struct sweep *sweep, const struct wish *wish, bool streamed)
{
    struct request *request = malloc(sizeof(*request));

    if (!request)
        return sweep_fail_for_memory(sweep);
    *request = (struct request){sweep, wish->block, wish->digest, wish->length, streamed};
    pthread_mutex_lock(&sweep->lock);
    sweep->under_way++;
    sweep->streamed += streamed;
    pthread_mutex_unlock(&sweep->lock);
    store_get_async(sweep->settings.store, &request->digest, wish->length, PRIORITY_FILL, answer, request);
    return 0;
}

/* Keep the wish for packs. */
static int collect(struct sweep *sweep, const struct wish *wish)
{
    struct wish *wishes = array_grow(sweep->wishes, sweep->wish_count, &sweep->wish_capacity, sizeof(*wishes));

    if (!wishes)
        return sweep_fail_for_memory(sweep);
    sweep->wishes = wishes;
    wishes[sweep->wish_count++] = *wish;
    return sweep->wish_count < WISHES_MAX ? 0 : sweep_gather(sweep);
}

/* One block that is not zero. */
static int visit(struct sweep *sweep, uint64_t block, const struct digest *digest)
{
    const struct sweep_settings *settings = &sweep->settings;
    struct wish wish = {*digest, block, map_block_length(tree_map(disk_tree(settings->disk)), block), false};
    struct error error = ERROR_INIT;
    int wanted = settings->wanted ? settings->wanted(settings->user, block, digest, wish.length, &error) : 1;

    if (wanted < 0) {
        sweep_fail(sweep, &error);
        return wanted;
    }
    if (!wanted) {
        pthread_mutex_lock(&sweep->lock);
        sweep->done_bytes += wish.length;
        wanted = wait_for_change(sweep, false);
        pthread_mutex_unlock(&sweep->lock);
        return wanted;
    }
    if (settings->pack_count)
        return collect(sweep, &wish);
    wanted = sweep_wait(sweep, true, 0);
    return wanted ? wanted : sweep_ask(sweep, &wish, false);
}

static int walk(struct sweep *sweep)
{
    struct tree *tree = disk_tree(sweep->settings.disk);
    uint64_t block_count = tree_map(tree)->block_count;
    struct error error = ERROR_INIT;
    int result = 0;

    for (uint64_t first = 0; !result && first < block_count;) {
        uint32_t count = 0;

        result = tree_next_data(tree, first, block_count, &first, &error);
        if (!result && first < block_count) {
            count = (uint32_t)min_u64(LOOKUP_BLOCKS, block_count - first);
            result = tree_lookup(tree, first, count, PRIORITY_FILL, sweep->digests, &error);
        }
        if (result)
            sweep_fail(sweep, &error);
        for (uint32_t i = 0; !result && i < count; i++)
            if (!digest_is_zero(&sweep->digests[i]))
                result = visit(sweep, first + i, &sweep->digests[i]);
        first += count;
    }
    if (!result && sweep->wish_count)
        result = sweep_gather(sweep);
    free(sweep->wishes);
    sweep->wishes = NULL;
    return result ? result : wait_for_all(sweep);
}

int sweep_run(const struct sweep_settings *settings, struct error *error)
{
    struct sweep *sweep = sweep_create(settings);
    bool last;
    int result;

    if (!sweep)
        return error_set(error, ERROR_SYSTEM, "no memory for requests");
    walk(sweep);
    pthread_mutex_lock(&sweep->lock);
    sweep->abandoned = true;
    while (sweep->inside || sweep->batch_bytes)
        pthread_cond_wait(&sweep->changed, &sweep->lock);
    pthread_mutex_unlock(&sweep->lock);
    sweep_call_off(sweep);
    pthread_mutex_lock(&sweep->lock);
    result = sweep->error.code;
    if (result)
        error_copy(error, &sweep->error);
    else
        progress_update(settings->progress, sweep->done_bytes, 0);
    sweep->returned = true;
    last = sweep->under_way == 0 && sweep->runs == 0;
    pthread_mutex_unlock(&sweep->lock);
    if (last)
        sweep_destroy(sweep);
    return result;
}
