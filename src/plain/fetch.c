/*
 * Asking the server for slices: bound to one file, again after failures, and
 * kept when they come. An answer that redirects led to is asked for there
 * directly, until that fails.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/latch.h"
#include "base/log.h"
#include "plain/plain_parts.h"

enum {
    PAUSE_MIN_MS = 250, /* between attempts */
    PAUSE_MAX_MS = 8000,
    OPEN_PATIENCE_MS = 5000,
};

/* ---- One file ---- */

static int tell_change(const struct plain *plain, const char *what, const char *from, const char *to,
                       struct error *error)
{
    return error_set(error, ERROR_CHANGED,
                     "%s has changed on the server since it was opened: its %s was %.100s and is %.100s", plain->shown,
                     what, *from ? from : "not said", *to ? to : "not said");
}

int fetch_compare(const struct plain *plain, const struct http_facts *facts, struct error *error)
{
    const struct http_facts *bound = &plain->bound;
    char from[24], to[24];

    if (facts->object_size != HTTP_SIZE_UNKNOWN && facts->object_size != bound->object_size) {
        snprintf(from, sizeof(from), "%llu", (unsigned long long)bound->object_size);
        snprintf(to, sizeof(to), "%llu", (unsigned long long)facts->object_size);
        return tell_change(plain, "size", from, to, error);
    }
    if (strcmp(facts->etag, bound->etag))
        return tell_change(plain, "ETag", bound->etag, facts->etag, error);
    if (strcmp(facts->last_modified, bound->last_modified))
        return tell_change(plain, "date", bound->last_modified, facts->last_modified, error);
    return 0;
}

/* From now on nothing is fetched any more: what is kept is of the old file, what would come is of the new one. */
static void note_gone(struct plain *plain, const struct error *error)
{
    bool first;

    pthread_mutex_lock(&plain->lock);
    first = !plain->gone.code;
    if (first)
        plain->gone = *error;
    pthread_mutex_unlock(&plain->lock);
    if (first)
        log_error("%s; what was fetched before can still be read, nothing else", error->message);
}

/* ---- When it has come ---- */

/* Keep SLICE if that is possible; warns once if not. */
static void keep(const struct slice *slice, const struct digest *digest)
{
    struct plain *plain = slice->plain;
    struct error error = ERROR_INIT;

    if (plain->keep && keep_write(plain->keep, slice->index, slice->bytes.bytes, slice->bytes.size, digest, &error))
        log_warning_once(&plain->warned, "%s: what is read is not kept: %s", plain->shown, error.message);
}

/* On a worker: what the server sent for a slice. */
static void accept(struct job *job)
{
    struct slice *slice = (struct slice *)job;
    struct plain *plain = slice->plain;
    struct error error = ERROR_INIT;
    struct digest digest;

    digest_of(slice->bytes.bytes, slice->bytes.size, &digest);
    if (plain->checked && !digest_equal(&digest, &plain->checked[slice->index])) {
        error_set(&error, ERROR_CHANGED, "%s has changed on the server since it was checked", plain->shown);
        note_gone(plain, &error);
        slice_failed(slice, &error);
        return;
    }
    keep(slice, &digest);
    atomic_fetch_add(&plain->fetched, 1);
    slice_ready(slice);
}

/* ---- When it has not ---- */

static uint64_t pause_ms(const struct slice *slice, uint64_t wanted_ms)
{
    uint64_t pause = (uint64_t)PAUSE_MIN_MS << (slice->attempts < 6 ? slice->attempts : 6);

    return max_u64(min_u64(pause, PAUSE_MAX_MS), min_u64(wanted_ms, PAUSE_MAX_MS));
}

/* Ask again later, if anybody waits and has the patience. If not, nobody joins a lost cause. */
static bool rest(struct slice *slice, uint64_t wanted_ms)
{
    struct plain *plain = slice->plain;
    uint64_t now = clock_ms(), pause = pause_ms(slice, wanted_ms);
    bool again;

    pthread_mutex_lock(&plain->lock);
    again = slice->pieces && !plain->cancelled && now + pause < slice->waited_ms + plain->settings.patience_ms;
    if (again) {
        slice->attempts++;
        slice->retry_ms = now + pause;
        slice->resting = plain->resting;
        plain->resting = slice;
        pthread_cond_broadcast(&plain->changed);
    } else {
        slice_hide(slice);
    }
    pthread_mutex_unlock(&plain->lock);
    return again;
}

static void leave_redirect(struct plain *plain)
{
    pthread_mutex_lock(&plain->lock);
    plain->near[0] = '\0';
    pthread_mutex_unlock(&plain->lock);
}

static void fetch_failed(struct slice *slice, const struct error *reason, uint64_t wait_ms)
{
    struct plain *plain = slice->plain;
    struct error error = *reason;

    if (error.code != ERROR_CANCELLED)
        count_answer(plain, &error);
    if (error.code == ERROR_CHANGED) {
        note_gone(plain, &error);
    } else if (slice->redirected && error.code != ERROR_CANCELLED) {
        /* Such places may be good for a while only: ask the URL itself where it is now. */
        leave_redirect(plain);
        slice_fetch(slice);
        return;
    } else if ((error.code == ERROR_UNAVAILABLE || error.code == ERROR_CORRUPT) && rest(slice, wait_ms)) {
        log_info("%s; asked again later", error.message);
        return;
    }
    slice_failed(slice, &error);
}

/* A reader who joins meanwhile makes it more urgent. */
static enum priority priority_of(struct slice *slice)
{
    enum priority priority;

    pthread_mutex_lock(&slice->plain->lock);
    priority = slice->priority;
    pthread_mutex_unlock(&slice->plain->lock);
    return priority;
}

static void on_fetched(void *user, const struct http_response *response)
{
    struct slice *slice = user;
    struct plain *plain = slice->plain;
    struct error error = response->error;
    size_t length = slice_length(plain, slice->index);

    if (!response->code && !fetch_compare(plain, &slice->facts, &error) && response->size != length)
        error_set(&error, ERROR_UNAVAILABLE, "%s: %zu bytes in place of %zu", plain->shown, response->size, length);
    if (error.code) {
        fetch_failed(slice, &error, response->retry_after_ms);
        return;
    }
    count_answer(plain, NULL);
    slice->bytes = *response->body;
    *response->body = (struct buffer){0};
    atomic_fetch_add(&plain->fetched_bytes, length);
    if (!slice->redirected && slice->facts.url[0]) {
        pthread_mutex_lock(&plain->lock);
        memcpy(plain->near, slice->facts.url, sizeof(plain->near));
        pthread_mutex_unlock(&plain->lock);
    }
    slice->job.run = accept;
    workers_submit(plain->settings.workers, &slice->job, priority_of(slice));
}

/* ---- Asking ---- */

static bool may_fetch(struct plain *plain, char *url, size_t size, struct error *error)
{
    pthread_mutex_lock(&plain->lock);
    if (plain->cancelled)
        error_set(error, ERROR_CANCELLED, "%s: cancelled", plain->shown);
    else if (plain->gone.code)
        *error = plain->gone;
    else if (!plain->settings.http)
        error_set(error, ERROR_UNAVAILABLE, "%s: not in the cache, and with --offline nothing is fetched",
                  plain->shown);
    snprintf(url, size, "%s", plain->near);
    pthread_mutex_unlock(&plain->lock);
    return !error->code;
}

void slice_fetch(struct slice *slice)
{
    struct plain *plain = slice->plain;
    struct error error = ERROR_INIT;
    char near[sizeof(plain->near)];
    struct http_request request = {
        .offset = slice->index * SLICE_SIZE,
        .length = slice_length(plain, slice->index),
        .size_limit = SLICE_SIZE,
        .priority = priority_of(slice),
        .range_only = plain->slice_count > 1,
        .owner = plain,
        .facts = &slice->facts,
        .done = on_fetched,
        .user = slice,
    };

    if (!may_fetch(plain, near, sizeof(near), &error)) {
        slice_failed(slice, &error);
        return;
    }
    buffer_finish(&slice->bytes);
    slice->asked = true;
    slice->redirected = *near;
    request.url = *near ? near : plain->url;
    http_fetch(plain->settings.http, &request);
}

/* The slices that are due (all when cancelled), as a list; *NEXT_OUT: when another one is. With the lock held. */
static struct slice *take_due(struct plain *plain, uint64_t now, uint64_t *next_out)
{
    struct slice *due = NULL, **at = &plain->resting;

    *next_out = UINT64_MAX;
    while (*at) {
        struct slice *slice = *at;

        if (plain->cancelled || slice->retry_ms <= now) {
            *at = slice->resting;
            slice->resting = due;
            due = slice;
        } else {
            *next_out = min_u64(*next_out, slice->retry_ms);
            at = &slice->resting;
        }
    }
    return due;
}

void *fetch_main(void *user)
{
    struct plain *plain = user;
    uint64_t next;

    pthread_mutex_lock(&plain->lock);
    while (!plain->stopping) {
        struct slice *due = take_due(plain, clock_ms(), &next);

        if (!due) {
            condition_wait_ms(&plain->changed, &plain->lock, next);
            continue;
        }
        pthread_mutex_unlock(&plain->lock);
        while (due) {
            struct slice *slice = due;

            due = slice->resting;
            slice_fetch(slice);
        }
        pthread_mutex_lock(&plain->lock);
    }
    pthread_mutex_unlock(&plain->lock);
    return NULL;
}

/* ---- The first question ---- */

struct first {
    struct latch latch;
    uint64_t retry_after_ms;
};

static void on_first(void *user, const struct http_response *response)
{
    struct first *first = user;

    first->retry_after_ms = response->retry_after_ms;
    latch_set(&first->latch, response->code, &response->error);
}

static int ask_first(struct plain *plain, struct http_facts *facts, uint64_t *retry_after_ms_out, struct error *error)
{
    struct first first;
    int result;

    *facts = (struct http_facts){0};
    latch_init(&first.latch);
    http_fetch(plain->settings.http, &(struct http_request){
                                         .url = plain->url,
                                         .length = 1,
                                         .fresh = true,
                                         .owner = plain,
                                         .facts = facts,
                                         .done = on_first,
                                         .user = &first,
                                     });
    result = latch_wait(&first.latch, error);
    *retry_after_ms_out = first.retry_after_ms;
    latch_finish(&first.latch);
    return result;
}

int fetch_first(struct plain *plain, struct http_facts *facts, struct error *error)
{
    uint64_t until = clock_ms() + min_u64(plain->settings.patience_ms, OPEN_PATIENCE_MS), pause = PAUSE_MIN_MS;
    uint64_t wanted;
    int result;

    while ((result = ask_first(plain, facts, &wanted, error)) == ERROR_UNAVAILABLE) {
        pause = max_u64(pause, wanted);
        if (clock_ms() + pause > until)
            break;
        clock_sleep_ms(pause);
        pause *= 2;
    }
    return result;
}
