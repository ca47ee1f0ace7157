/*
 * Mirrors: the list of them, and the thread that looks after requests which
 * wait for their next round. Nothing else waits. The way of a request is in
 * mirrors_fetch.c.
 */
#include "store/mirrors.h"

#include <stdlib.h>
#include <strings.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/latch.h"
#include "base/log.h"
#include "store/mirrors_parts.h"

enum { DEFAULT_PATIENCE_MS = 60 * 1000 };

/* ---- Waiting ---- */

/* Unlink the fetches that are due, or all of them when stopping; *NEXT_MS is when the others are. Under the lock. */
static struct fetch *take_due(struct mirrors *mirrors, uint64_t *next_ms)
{
    struct fetch **link = &mirrors->waiting, *due = NULL;
    uint64_t now_ms = clock_ms();

    *next_ms = UINT64_MAX;
    while (*link) {
        struct fetch *fetch = *link;

        if (fetch->wake_ms > now_ms && !mirrors->stopping) {
            *next_ms = min_u64(*next_ms, fetch->wake_ms);
            link = &fetch->next;
            continue;
        }
        *link = fetch->next;
        fetch->next = due;
        due = fetch;
        fetch->asked = 0;
        fetch->last_round = now_ms >= fetch->deadline_ms;
    }
    return due;
}

void mirrors_wake_timer(struct mirrors *mirrors, uint64_t ms)
{
    if (ms >= mirrors->timer_ms)
        return;
    mirrors->timer_ms = ms;
    pthread_cond_signal(&mirrors->timer_changed);
}

void mirrors_leave(struct mirrors *mirrors)
{
    pthread_mutex_lock(&mirrors->lock);
    if (--mirrors->under_way == 0)
        pthread_cond_broadcast(&mirrors->idle);
    pthread_mutex_unlock(&mirrors->lock);
}

/*
 * After mirrors_cancel: end transfers until none is under way. More than once, because one may have been started
 * between its look at STOPPING and the cancel. The lock is held but for the cancelling.
 */
static void cancel_until_idle(struct mirrors *mirrors)
{
    while (mirrors->under_way) {
        unsigned count = mirrors->count;

        pthread_mutex_unlock(&mirrors->lock);
        for (unsigned i = 0; i < count; i++)
            source_cancel(mirrors->all[i].source);
        pthread_mutex_lock(&mirrors->lock);
        if (mirrors->under_way)
            condition_wait_ms(&mirrors->idle, &mirrors->lock, clock_ms() + 50);
    }
}

/* What is due: fetches go on, hedges are launched. */
static void run_due(struct fetch *due, struct attempt *hedges)
{
    while (due) {
        struct fetch *next = due->next;

        fetch_proceed(due, false);
        due = next;
    }
    while (hedges) {
        struct attempt *next = hedges->next;

        attempt_launch(hedges, false);
        hedges = next;
    }
}

static void *timer_main(void *user)
{
    struct mirrors *mirrors = user;

    pthread_mutex_lock(&mirrors->lock);
    for (;;) {
        uint64_t next_ms;
        struct fetch *due = take_due(mirrors, &next_ms);
        struct attempt *hedges = attempt_hedge_due(mirrors, clock_ms(), &next_ms);

        if (!due && !hedges && mirrors->stopping)
            break;
        if (!due && !hedges) {
            mirrors->timer_ms = next_ms;
            condition_wait_ms(&mirrors->timer_changed, &mirrors->lock, next_ms);
            continue;
        }
        pthread_mutex_unlock(&mirrors->lock);
        run_due(due, hedges);
        pthread_mutex_lock(&mirrors->lock);
    }
    cancel_until_idle(mirrors);
    pthread_mutex_unlock(&mirrors->lock);
    return NULL;
}

/* ---- For all threads ---- */

static void fail_at_once(const struct mirrors_request *request, int code, const char *reason)
{
    struct error error;

    error_set(&error, code, "%s: %s", request->path, reason);
    request->done(request->user, error.code, &error);
}

/* Catalogs and hints are not under a name that says what they are. */
static bool is_changing(const char *path)
{
    static const char *const fixed[] = {"blocks/", "packs/", "maps/", "files/"};

    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        if (!strncmp(path, fixed[i], strlen(fixed[i])))
            return false;
    return true;
}

void mirrors_fetch(struct mirrors *mirrors, const struct mirrors_request *request)
{
    size_t length = strlen(request->path);
    struct fetch *fetch;

    if (!source_path_is_plain(request->path)) {
        fail_at_once(request, ERROR_INVALID, "not a path inside an archive");
        return;
    }
    fetch = calloc(1, sizeof(*fetch) + length + 1);
    if (!fetch) {
        fail_at_once(request, ERROR_SYSTEM, "no memory for the request");
        return;
    }
    memcpy(fetch->path, request->path, length + 1);
    fetch->mirrors = mirrors;
    fetch->request = *request;
    fetch->request.path = fetch->path;
    if (fetch->request.patience_ms == 0)
        fetch->request.patience_ms = mirrors->patience_ms;
    fetch->ranked = !is_changing(fetch->path);
    fetch->last_round = fetch->request.patience_ms == PASS_ONLY;
    fetch->started_ms = clock_ms();
    fetch->deadline_ms = fetch->started_ms + fetch->request.patience_ms;
    pthread_mutex_lock(&mirrors->lock);
    mirrors->under_way++;
    fetch->earlier = mirrors->last_fetch;
    if (fetch->earlier)
        fetch->earlier->later = fetch;
    mirrors->last_fetch = fetch;
    pthread_mutex_unlock(&mirrors->lock);
    fetch_proceed(fetch, true);
}

void mirrors_each_under_way(struct mirrors *mirrors, void (*visit)(void *user, const struct mirrors_wait *wait),
                            void *user)
{
    uint64_t now_ms = clock_ms();

    pthread_mutex_lock(&mirrors->lock);
    for (const struct fetch *fetch = mirrors->last_fetch; fetch; fetch = fetch->earlier)
        visit(user, &(struct mirrors_wait){
                        .path = fetch->path,
                        .priority = fetch->request.priority,
                        .age_ms = now_ms - fetch->started_ms,
                        .mirror = mirrors->count ? source_name(mirrors->all[fetch->current].source) : NULL,
                        .reason = fetch->outcomes ? fetch->outcomes[fetch->current].reason : "",
                    });
    pthread_mutex_unlock(&mirrors->lock);
}

void mirrors_hurry(struct mirrors *mirrors, const void *user)
{
    struct fetch *fetch;

    pthread_mutex_lock(&mirrors->lock);
    for (fetch = mirrors->last_fetch; fetch && fetch->request.user != user; fetch = fetch->earlier)
        ;
    if (fetch) {
        attempt_hurry(fetch, clock_ms());
        for (size_t i = 0; i < ATTEMPTS_MAX; i++)
            workers_hurry(mirrors->workers, &fetch->attempts[i].job);
    }
    pthread_mutex_unlock(&mirrors->lock);
}

/* A mirrors_fetch that somebody waits for: the caller's callbacks, and the latch. */
struct waiter {
    const struct mirrors_request *request;
    struct latch latch;
};

static bool data_for_waiter(void *user, const uint8_t *bytes, size_t size)
{
    const struct mirrors_request *request = ((struct waiter *)user)->request;

    return request->data(request->user, bytes, size);
}

static bool ready_for_waiter(void *user)
{
    const struct mirrors_request *request = ((struct waiter *)user)->request;

    return request->ready(request->user);
}

static int accept_for_waiter(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    const struct mirrors_request *request = ((struct waiter *)user)->request;

    return request->accept ? request->accept(request->user, bytes, size, error) : 0;
}

static void done_for_waiter(void *user, int code, const struct error *error)
{
    struct waiter *waiter = user;

    if (waiter->request->done)
        waiter->request->done(waiter->request->user, code, error);
    latch_set(&waiter->latch, code, error);
}

int mirrors_fetch_wait(struct mirrors *mirrors, const struct mirrors_request *request, struct error *error)
{
    struct waiter waiter = {.request = request};
    struct mirrors_request wrapped = *request;
    int code;

    latch_init(&waiter.latch);
    wrapped.data = request->data ? data_for_waiter : NULL;
    wrapped.ready = request->ready ? ready_for_waiter : NULL;
    wrapped.accept = accept_for_waiter;
    wrapped.done = done_for_waiter;
    wrapped.user = &waiter;
    mirrors_fetch(mirrors, &wrapped);
    code = latch_wait(&waiter.latch, error);
    latch_finish(&waiter.latch);
    return code;
}

bool mirrors_is_local(struct mirrors *mirrors, unsigned mirror)
{
    bool local;

    pthread_mutex_lock(&mirrors->lock);
    local = source_is_local(mirrors->all[mirror].source);
    pthread_mutex_unlock(&mirrors->lock);
    return local;
}

size_t mirrors_count(struct mirrors *mirrors)
{
    size_t count;

    pthread_mutex_lock(&mirrors->lock);
    count = mirrors->count;
    pthread_mutex_unlock(&mirrors->lock);
    return count;
}

/* Append SOURCE; returns 0, or ERROR_EXISTS or ERROR_NO_SPACE if it was not taken. */
static int append(struct mirrors *mirrors, struct source *source)
{
    int result = 0;

    pthread_mutex_lock(&mirrors->lock);
    for (unsigned i = 0; i < mirrors->count; i++)
        if (!strcmp(source_name(mirrors->all[i].source), source_name(source)))
            result = ERROR_EXISTS;
    if (!result && mirrors->count == MIRRORS_MAX)
        result = ERROR_NO_SPACE;
    if (!result) {
        mirrors->all[mirrors->count++].source = source;
        for (struct fetch *fetch = mirrors->waiting; fetch; fetch = fetch->next)
            fetch->wake_ms = 0;
        mirrors_wake_timer(mirrors, 0);
    }
    pthread_mutex_unlock(&mirrors->lock);
    return result;
}

int mirrors_add(struct mirrors *mirrors, const char *archive, struct error *error)
{
    struct source *source;
    int result = source_open(archive, mirrors->client, &source, error);

    if (result)
        return result;
    result = append(mirrors, source);
    if (result == ERROR_NO_SPACE)
        error_set(error, ERROR_INVALID, "%s: more than %d mirrors", source_name(source), MIRRORS_MAX);
    if (result)
        source_close(source);
    return result == ERROR_NO_SPACE ? ERROR_INVALID : 0;
}

void mirrors_add_hinted(struct mirrors *mirrors, const char *archive)
{
    struct error error = ERROR_INIT;
    bool secure = !strncasecmp(archive, "https://", 8), allowed;

    pthread_mutex_lock(&mirrors->lock);
    allowed = mirrors->count && !source_is_local(mirrors->all[0].source) &&
              (secure || (!strncasecmp(archive, "http://", 7) &&
                          strncasecmp(source_name(mirrors->all[0].source), "https://", 8)));
    pthread_mutex_unlock(&mirrors->lock);
    if (!allowed)
        error_set(&error, ERROR_INVALID, "unsigned hints may not lead there");
    if (!allowed || mirrors_add(mirrors, archive, &error))
        log_info("a mirror of the hints is not used: %s", error.message);
}

/* ---- Making one ---- */

static void finish(struct mirrors *mirrors)
{
    struct damaged *damaged;

    while ((damaged = SLIST_FIRST(&mirrors->damaged))) {
        SLIST_REMOVE_HEAD(&mirrors->damaged, entry);
        free(damaged);
    }
    for (unsigned i = 0; i < mirrors->count; i++)
        source_close(mirrors->all[i].source);
    pthread_cond_destroy(&mirrors->idle);
    pthread_cond_destroy(&mirrors->timer_changed);
    pthread_mutex_destroy(&mirrors->lock);
    free(mirrors);
}

int mirrors_create(struct http_client *client, struct workers *workers, unsigned patience_ms,
                   struct mirrors **mirrors_out, struct error *error)
{
    struct mirrors *mirrors = calloc(1, sizeof(*mirrors));
    int failure;

    if (!mirrors)
        return error_set(error, ERROR_SYSTEM, "no memory for the mirrors");
    mirrors->client = client;
    mirrors->workers = workers;
    mirrors->patience_ms = patience_ms ? patience_ms : DEFAULT_PATIENCE_MS;
    mirrors->dice = (uint32_t)clock_us();
    pthread_mutex_init(&mirrors->lock, NULL);
    condition_init(&mirrors->timer_changed);
    condition_init(&mirrors->idle);
    failure = pthread_create(&mirrors->timer, NULL, timer_main, mirrors);
    if (failure) {
        finish(mirrors);
        return error_set_errno(error, failure, "cannot start the mirrors' thread");
    }
    *mirrors_out = mirrors;
    return 0;
}

void mirrors_cancel(struct mirrors *mirrors)
{
    pthread_mutex_lock(&mirrors->lock);
    mirrors->stopping = true;
    pthread_cond_signal(&mirrors->timer_changed);
    pthread_mutex_unlock(&mirrors->lock);
}

void mirrors_destroy(struct mirrors *mirrors)
{
    if (!mirrors)
        return;
    mirrors_cancel(mirrors);
    pthread_join(mirrors->timer, NULL);
    pthread_mutex_lock(&mirrors->lock);
    while (mirrors->under_way)
        pthread_cond_wait(&mirrors->idle, &mirrors->lock);
    pthread_mutex_unlock(&mirrors->lock);
    finish(mirrors);
}
