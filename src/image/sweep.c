/*
 * One thread walks the map and keeps a window of requests under way; answers
 * are dealt with where they arrive. A sweep that ends early does not wait for
 * what is still under way: its memory lives until the last answer.
 */
#include "image/sweep.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

#define WINDOW_BLOCKS 256
#define WINDOW_BYTES (64 * MIB)
#define LOOKUP_BLOCKS 4096 /* digests asked for at a time: 32 pages of a map, in one request */
#define PROGRESS_INTERVAL_MS 200

struct sweep {
    struct sweep_settings settings; /* its pointers are not used any more once ABANDONED */
    struct digest digests[LOOKUP_BLOCKS];
    unsigned window;
    uint64_t progress_at_ms;

    pthread_mutex_t fault_lock; /* around settings.failed; before lock */
    pthread_mutex_t lock;       /* a leaf; guards the rest */
    pthread_cond_t changed;
    unsigned under_way; /* requests without an answer */
    unsigned wake_at;   /* the thread that walks is woken when so few are */
    unsigned inside;    /* answers that are being dealt with */
    uint64_t done_bytes;
    bool abandoned; /* answers are dropped */
    bool returned;  /* the caller is gone: the last answer frees the memory */
    struct error error; /* the first one */
};

struct request {
    struct sweep *sweep;
    uint64_t block;
    struct digest digest;
    uint32_t length;
};

static struct sweep *sweep_create(const struct sweep_settings *settings)
{
    struct sweep *sweep = calloc(1, sizeof(*sweep));
    uint32_t block_size = disk_block_size(settings->disk);
    pthread_condattr_t attributes;

    if (!sweep)
        return NULL;
    sweep->settings = *settings;
    sweep->window = (unsigned)min_u64(WINDOW_BLOCKS, WINDOW_BYTES / block_size);
    pthread_mutex_init(&sweep->fault_lock, NULL);
    pthread_mutex_init(&sweep->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&sweep->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return sweep;
}

static void sweep_destroy(struct sweep *sweep)
{
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
    last = sweep->returned && sweep->under_way == 0;
    if (sweep->under_way <= sweep->wake_at || sweep->error.code || sweep->abandoned)
        pthread_cond_signal(&sweep->changed);
    pthread_mutex_unlock(&sweep->lock);
    free(request);
    if (last)
        sweep_destroy(sweep);
}

/* With the lock held: wait for a change, at most until progress is due; say how far we are. */
static int wait_for_change(struct sweep *sweep, bool wait)
{
    struct timespec until;
    uint64_t done, now = clock_ms();
    bool go_on = true;

    if (wait) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += PROGRESS_INTERVAL_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&sweep->changed, &sweep->lock, &until);
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

/* If more than MOST requests are under way, wait until only FEW are: a wake for each answer costs as much as its write. */
static int wait_for_room(struct sweep *sweep, unsigned most, unsigned few)
{
    bool full;
    int result;

    pthread_mutex_lock(&sweep->lock);
    result = wait_for_change(sweep, false);
    full = sweep->under_way > most;
    sweep->wake_at = few;
    while (!result && full && sweep->under_way > few)
        result = wait_for_change(sweep, true);
    pthread_mutex_unlock(&sweep->lock);
    return result;
}

static void fail(struct sweep *sweep, const struct error *error)
{
    pthread_mutex_lock(&sweep->lock);
    if (!sweep->error.code)
        sweep->error = *error;
    pthread_mutex_unlock(&sweep->lock);
}

static int ask(struct sweep *sweep, uint64_t block, const struct digest *digest, uint32_t length)
{
    struct request *request = malloc(sizeof(*request));

    if (!request) {
        struct error error;
        int result = error_set(&error, ERROR_SYSTEM, "no memory for a request");

        fail(sweep, &error);
        return result;
    }
    *request = (struct request){sweep, block, *digest, length};
    pthread_mutex_lock(&sweep->lock);
    sweep->under_way++;
    pthread_mutex_unlock(&sweep->lock);
    store_get_async(sweep->settings.store, &request->digest, length, PRIORITY_FILL, answer, request);
    return 0;
}

/* One block that is not zero. */
static int visit(struct sweep *sweep, uint64_t block, const struct digest *digest)
{
    const struct sweep_settings *settings = &sweep->settings;
    uint32_t length = map_block_length(tree_map(disk_tree(settings->disk)), block);
    struct error error = ERROR_INIT;
    int wanted = settings->wanted ? settings->wanted(settings->user, block, digest, length, &error) : 1;

    if (wanted < 0) {
        fail(sweep, &error);
        return wanted;
    }
    if (!wanted) {
        pthread_mutex_lock(&sweep->lock);
        sweep->done_bytes += length;
        wanted = wait_for_change(sweep, false);
        pthread_mutex_unlock(&sweep->lock);
        return wanted;
    }
    wanted = wait_for_room(sweep, sweep->window - 1, sweep->window / 4 * 3);
    return wanted ? wanted : ask(sweep, block, digest, length);
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
            fail(sweep, &error);
        for (uint32_t i = 0; !result && i < count; i++)
            if (!digest_is_zero(&sweep->digests[i]))
                result = visit(sweep, first + i, &sweep->digests[i]);
        first += count;
    }
    return result ? result : wait_for_room(sweep, 0, 0);
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
    while (sweep->inside)
        pthread_cond_wait(&sweep->changed, &sweep->lock);
    result = sweep->error.code;
    if (result)
        error_copy(error, &sweep->error);
    else
        progress_update(settings->progress, sweep->done_bytes, 0);
    sweep->returned = true;
    last = sweep->under_way == 0;
    pthread_mutex_unlock(&sweep->lock);
    if (last)
        sweep_destroy(sweep);
    return result;
}
