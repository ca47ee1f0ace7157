/*
 * The way of one request from mirror to mirror, in rounds: choose, ask, judge,
 * and what an answer means for the mirror that gave it.
 */
#include "store/mirrors_fetch.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    ASIDE_MS = 10 * 60 * 1000, /* after wrong bytes */
    UNREACHABLE_MIN_MS = 1000,
    UNREACHABLE_MAX_MS = 60 * 1000,
    PAUSE_MIN_MS = 250, /* between rounds */
    PAUSE_MAX_MS = 8000,
    STALL_MIN_MS = 1000, /* however little patience is left */
};

/* ---- Ending ---- */

/* Append ": NAME: REASON; NAME: REASON" of the mirrors that were asked with CODE (0: all) to TEXT. */
static void describe(const struct fetch *fetch, int code, char *text, size_t size)
{
    size_t length = strlen(text);
    const char *separator = ": ";

    for (unsigned i = 0; fetch->outcomes && i < MIRRORS_MAX; i++) {
        const struct outcome *outcome = &fetch->outcomes[i];

        if (outcome->code == 0 || (code && outcome->code != code) || length >= size)
            continue;
        snprintf(text + length, size - length, "%s%s: %s", separator,
                 source_name(fetch->mirrors->all[i].source), outcome->reason);
        length += strlen(text + length);
        separator = "; ";
    }
}

static bool all_settled(const struct fetch *fetch)
{
    for (unsigned i = 0; i < MIRRORS_MAX; i++)
        if (fetch->outcomes[i].code && !(fetch->settled >> i & 1))
            return false;
    return true;
}

static void compose_error(const struct fetch *fetch, int code, struct error *error)
{
    unsigned patience_ms = fetch->request.patience_ms;

    switch (code) {
    case ERROR_NOT_FOUND:
        error_set(error, code, "%s: no mirror has it", fetch->path);
        break;
    case ERROR_CORRUPT:
        error_set(error, code, "%s: what the mirrors have is damaged", fetch->path);
        break;
    case ERROR_CANCELLED:
        error_set(error, code, "%s: cancelled", fetch->path);
        return;
    case ERROR_UNAVAILABLE:
        if (!fetch->outcomes)
            error_set(error, code, "%s: there is no mirror to ask", fetch->path);
        else if (patience_ms == PASS_ONLY || all_settled(fetch))
            error_set(error, code, "%s: no mirror gives it", fetch->path);
        else
            error_set(error, code, "%s: no mirror answered within %g s", fetch->path, patience_ms / 1000.0);
        break;
    default:
        error_set(error, code, "%s: no memory for the request", fetch->path);
        return;
    }
    describe(fetch, 0, error->message, sizeof(error->message));
}

static void release(struct fetch *fetch)
{
    struct mirrors *mirrors = fetch->mirrors;

    pthread_mutex_lock(&mirrors->lock);
    if (fetch->earlier)
        fetch->earlier->later = fetch->later;
    *(fetch->later ? &fetch->later->earlier : &mirrors->last_fetch) = fetch->earlier;
    pthread_mutex_unlock(&mirrors->lock);
    buffer_finish(&fetch->bytes);
    free(fetch->outcomes);
    free(fetch);
}

/* One thing less is under way. After this the mirrors may be gone. */
static void leave(struct mirrors *mirrors)
{
    pthread_mutex_lock(&mirrors->lock);
    if (--mirrors->under_way == 0)
        pthread_cond_broadcast(&mirrors->idle);
    pthread_mutex_unlock(&mirrors->lock);
}

/* Tell the caller. */
static void end(struct fetch *fetch, int code)
{
    struct mirrors *mirrors = fetch->mirrors;
    struct error error = ERROR_INIT;

    if (code)
        compose_error(fetch, code, &error);
    fetch->request.done(fetch->request.user, code, &error);
    release(fetch);
    leave(mirrors);
}

/* ---- Choosing ---- */

/* The lower the earlier; under the lock. */
static int rank(const struct mirror *mirror, uint64_t now_ms)
{
    if (mirror->aside_until_ms > now_ms)
        return 2;
    return mirror->unreachable_ms ? 1 : 0;
}

/* The next mirror of this round becomes the current one. False: the round is over. Under the lock. */
static bool choose(struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    int best = 3;

    for (unsigned i = 0; i < mirrors->count; i++) {
        const struct mirror *mirror = &mirrors->all[i];

        if ((fetch->asked | fetch->settled) >> i & 1)
            continue;
        if (mirror->not_before_ms > now_ms && !fetch->last_round)
            continue;
        if (rank(mirror, now_ms) < best) {
            best = rank(mirror, now_ms);
            fetch->current = i;
        }
    }
    if (best == 3)
        return false;
    fetch->asked |= UINT32_C(1) << fetch->current;
    return true;
}

/* If nothing more can be hoped from any mirror, what that means as one code; else 0. Under the lock. */
static int settle(const struct fetch *fetch)
{
    unsigned count = fetch->mirrors->count;
    int code = ERROR_NOT_FOUND;

    if (count == 0)
        return ERROR_UNAVAILABLE;
    for (unsigned i = 0; i < count; i++)
        if (!(fetch->settled >> i & 1))
            return 0;
    for (unsigned i = 0; i < count; i++) {
        if (fetch->outcomes[i].code == ERROR_CORRUPT)
            return ERROR_CORRUPT;
        /* A mirror that does not let us in is not one that we can reach. */
        if (fetch->outcomes[i].code != ERROR_NOT_FOUND)
            code = ERROR_UNAVAILABLE;
    }
    return code;
}

/* Begin a second try, past any cache, with those whose answer was corrupt. False if there are none. */
static bool try_fresh(struct fetch *fetch)
{
    bool any = false;

    for (unsigned i = 0; fetch->outcomes && i < fetch->mirrors->count; i++) {
        mirror_set bit = UINT32_C(1) << i;

        if (fetch->outcomes[i].code != ERROR_CORRUPT || fetch->settled & bit || fetch->fresh & bit)
            continue;
        fetch->fresh |= bit;
        fetch->asked &= ~bit;
        any = true;
    }
    return any;
}

/* LENGTH, give or take a quarter, so that clients do not come back all at once. Under the lock. */
static uint64_t jitter(struct mirrors *mirrors, unsigned length_ms)
{
    mirrors->dice = mirrors->dice * 1664525 + 1013904223;
    return length_ms * 3 / 4 + (mirrors->dice >> 16) % (length_ms / 2 + 1);
}

/* Put FETCH into the waiting list until the next round. Under the lock. */
static void wait_for_round(struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    uint64_t earliest = UINT64_MAX, pause_ms;

    for (unsigned i = 0; i < mirrors->count; i++)
        if (!(fetch->settled >> i & 1))
            earliest = min_u64(earliest, mirrors->all[i].not_before_ms);
    fetch->pause_ms = fetch->pause_ms ? fetch->pause_ms * 2 : PAUSE_MIN_MS;
    if (fetch->pause_ms > PAUSE_MAX_MS)
        fetch->pause_ms = PAUSE_MAX_MS;
    pause_ms = jitter(mirrors, fetch->pause_ms);
    fetch->wake_ms = min_u64(max_u64(now_ms + pause_ms, earliest), fetch->deadline_ms);
    fetch->next = mirrors->waiting;
    mirrors->waiting = fetch;
    pthread_cond_signal(&mirrors->timer_changed);
}

/* What a fetch does next. */
enum step { STEP_ASK, STEP_WAIT, STEP_END };

static enum step next_step(struct fetch *fetch, int *code_out)
{
    uint64_t now_ms = clock_ms();

    if (fetch->mirrors->stopping) {
        *code_out = ERROR_CANCELLED;
        return STEP_END;
    }
    if (choose(fetch, now_ms) || (try_fresh(fetch) && choose(fetch, now_ms)))
        return STEP_ASK;
    *code_out = settle(fetch);
    if (*code_out)
        return STEP_END;
    /* A round that outlasted the patience was the last one, unless it had to leave everyone out. */
    if (fetch->last_round || (now_ms >= fetch->deadline_ms && fetch->asked)) {
        *code_out = ERROR_UNAVAILABLE;
        return STEP_END;
    }
    wait_for_round(fetch, now_ms);
    return STEP_WAIT;
}

/* ---- Standing ---- */

/* MIRROR is asked last for a while. True if that is news. Under the lock. */
static bool mark_unreachable(struct mirror *mirror, uint64_t retry_after_ms, uint64_t now_ms)
{
    bool news = mirror->unreachable_ms == 0;

    if (now_ms >= mirror->unreachable_until_ms) {
        /* Once for all the fetches that fail together. */
        mirror->unreachable_ms = news ? UNREACHABLE_MIN_MS : mirror->unreachable_ms * 2;
        if (mirror->unreachable_ms > UNREACHABLE_MAX_MS)
            mirror->unreachable_ms = UNREACHABLE_MAX_MS;
        mirror->unreachable_until_ms = now_ms + mirror->unreachable_ms;
    }
    if (retry_after_ms)
        mirror->not_before_ms = max_u64(mirror->not_before_ms, now_ms + retry_after_ms);
    return news;
}

static bool mark_aside(struct mirror *mirror, uint64_t now_ms)
{
    bool news = mirror->aside_until_ms <= now_ms;

    mirror->aside_until_ms = now_ms + ASIDE_MS;
    return news;
}

/* MIRROR answered. True if that is news; then those who wait for it are let go on. Under the lock. */
static bool mark_reachable(struct mirrors *mirrors, unsigned index, uint64_t now_ms)
{
    struct mirror *mirror = &mirrors->all[index];

    if (mirror->unreachable_ms == 0)
        return false;
    mirror->unreachable_ms = 0;
    mirror->unreachable_until_ms = mirror->not_before_ms = 0;
    for (struct fetch *fetch = mirrors->waiting; fetch; fetch = fetch->next)
        if (!(fetch->settled >> index & 1))
            fetch->wake_ms = now_ms;
    pthread_cond_signal(&mirrors->timer_changed);
    return true;
}

/*
 * Does a mirror that could not be reached answer again? Asked in the background while another one serves, so that no
 * reader has to find out.
 */
struct probe {
    struct job job; /* first */
    struct mirrors *mirrors;
    unsigned index;
    char path[];
};

static void on_probe_answer(void *user, const struct source_result *result)
{
    struct probe *probe = user;
    struct mirrors *mirrors = probe->mirrors;
    struct mirror *mirror = &mirrors->all[probe->index];
    bool news = false;

    pthread_mutex_lock(&mirrors->lock);
    mirror->probing = false;
    if (result->code == 0 || result->code == ERROR_NOT_FOUND)
        news = mark_reachable(mirrors, probe->index, clock_ms());
    else if (result->code != ERROR_CANCELLED)
        mark_unreachable(mirror, result->retry_after_ms, clock_ms());
    pthread_mutex_unlock(&mirrors->lock);
    if (news)
        log_info("mirror %s answers again", source_name(mirror->source));
    free(probe);
    leave(mirrors);
}

static void run_probe(struct job *job)
{
    struct probe *probe = (struct probe *)job;

    source_fetch(probe->mirrors->all[probe->index].source, &(struct source_request){
        .path = probe->path,
        .length = 1,
        .size_limit = 1,
        .priority = PRIORITY_READAHEAD,
        .done = on_probe_answer,
        .user = probe,
    });
}

/* While the current mirror of FETCH serves, probe an earlier one whose time has come. Under the lock. */
static void probe_earlier(const struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;

    for (unsigned i = 0; i < fetch->current; i++) {
        struct mirror *mirror = &mirrors->all[i];
        size_t length = strlen(fetch->path);
        struct probe *probe;

        if (!mirror->unreachable_ms || mirror->unreachable_until_ms > now_ms || mirror->not_before_ms > now_ms ||
            mirror->probing)
            continue;
        probe = calloc(1, sizeof(*probe) + length + 1);
        if (!probe)
            return;
        memcpy(probe->path, fetch->path, length + 1);
        probe->job.run = run_probe;
        probe->mirrors = mirrors;
        probe->index = i;
        mirror->probing = true;
        mirrors->under_way++;
        workers_submit(mirrors->workers, &probe->job, PRIORITY_READAHEAD);
    }
}

/* ---- Asking ---- */

static void on_answer(void *user, const struct source_result *result);

/* Part of a stream. While it flows, nobody loses patience, and a break is answered at once. */
static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct fetch *fetch = user;
    struct mirrors *mirrors = fetch->mirrors;
    bool stopping;

    pthread_mutex_lock(&mirrors->lock);
    stopping = mirrors->stopping; /* nothing else ends the stream of a folder */
    pthread_mutex_unlock(&mirrors->lock);
    if (stopping)
        return false;
    fetch->delivered += size;
    fetch->deadline_ms = clock_ms() + fetch->request.patience_ms;
    fetch->pause_ms = 0;
    return fetch->request.data(fetch->request.user, bytes, size);
}

static void ask(struct fetch *fetch)
{
    struct mirror *mirror = &fetch->mirrors->all[fetch->current];
    uint64_t now_ms = clock_ms(), left_ms = 0;

    if (!fetch->last_round && fetch->deadline_ms > now_ms)
        left_ms = fetch->deadline_ms - now_ms;
    if (left_ms || fetch->request.patience_ms != PASS_ONLY)
        left_ms = max_u64(left_ms, STALL_MIN_MS);
    source_fetch(mirror->source, &(struct source_request){
        .path = fetch->path,
        .offset = fetch->request.offset + fetch->delivered,
        .length = fetch->request.length ? fetch->request.length - fetch->delivered : 0,
        .size_limit = fetch->request.size_limit,
        .priority = fetch->request.priority,
        .data = fetch->request.data ? on_data : NULL,
        .fresh = fetch->request.fresh || fetch->fresh >> fetch->current & 1,
        .stall_timeout_ms = (unsigned)left_ms,
        .done = on_answer,
        .user = fetch,
    });
}

static void ask_as_job(struct job *job)
{
    ask((struct fetch *)job);
}

void fetch_proceed(struct fetch *fetch, bool may_block)
{
    struct mirrors *mirrors = fetch->mirrors;
    enum step step;
    bool local;
    int code = 0;

    pthread_mutex_lock(&mirrors->lock);
    step = next_step(fetch, &code);
    if (step == STEP_ASK)
        probe_earlier(fetch, clock_ms());
    local = step == STEP_ASK && source_is_local(mirrors->all[fetch->current].source);
    pthread_mutex_unlock(&mirrors->lock);
    /* A fetch that waits may be in other hands by now. */
    if (step == STEP_END) {
        end(fetch, code);
    } else if (step == STEP_ASK && local && (!may_block || fetch->request.data)) { /* a stream may take long */
        fetch->job.run = ask_as_job;
        workers_submit(mirrors->workers, &fetch->job, fetch->request.priority);
    } else if (step == STEP_ASK) {
        ask(fetch);
    }
}

/* Keep CODE and REASON of the current mirror. False: no memory. */
static bool note_outcome(struct fetch *fetch, int code, const char *reason)
{
    struct outcome *outcome;

    if (!fetch->outcomes)
        fetch->outcomes = calloc(MIRRORS_MAX, sizeof(*fetch->outcomes));
    if (!fetch->outcomes)
        return false;
    outcome = &fetch->outcomes[fetch->current];
    outcome->code = code;
    snprintf(outcome->reason, sizeof(outcome->reason), "%s", reason);
    return true;
}

/* What a failure means for the mirror, and whether it is worth asking again. */
enum blame { BLAME_NOTHING, BLAME_UNREACHABLE, BLAME_LIE };

static enum blame blame(struct fetch *fetch, int code, bool refused)
{
    mirror_set bit = UINT32_C(1) << fetch->current;

    if (code == ERROR_CORRUPT ? fetch->fresh & bit : code != ERROR_UNAVAILABLE && code != ERROR_SYSTEM)
        fetch->settled |= bit;
    if (refused)
        return BLAME_LIE;
    return code == ERROR_NOT_FOUND ? BLAME_NOTHING : BLAME_UNREACHABLE;
}

/* The current mirror failed with CODE: the source's, or the caller's if REFUSED. */
static void failed(struct fetch *fetch, int code, const char *reason, uint64_t retry_after_ms, bool refused)
{
    struct mirrors *mirrors = fetch->mirrors;
    struct mirror *mirror = &mirrors->all[fetch->current];
    uint64_t now_ms = clock_ms();
    bool kept, news = false, local = source_is_local(mirror->source);
    enum blame what;

    pthread_mutex_lock(&mirrors->lock);
    kept = note_outcome(fetch, code, reason);
    snprintf(mirror->reason, sizeof(mirror->reason), "%s", reason);
    mirror->requests += !refused;
    mirror->bad_blocks += refused;
    mirror->missing += code == ERROR_NOT_FOUND;
    mirror->errors += !refused && code != ERROR_NOT_FOUND;
    what = blame(fetch, code, refused);
    if (what == BLAME_NOTHING)
        mark_reachable(mirrors, fetch->current, now_ms);
    else if (what == BLAME_UNREACHABLE)
        news = mark_unreachable(mirror, retry_after_ms, now_ms);
    else
        news = mark_aside(mirror, now_ms);
    pthread_mutex_unlock(&mirrors->lock);

    if (news && what == BLAME_UNREACHABLE)
        log_warning("mirror %s is asked last for now: %s: %s", source_name(mirror->source), fetch->path, reason);
    else if (news)
        log_warning("mirror %s gave wrong bytes and is set aside for ten minutes: %s: %s",
                    source_name(mirror->source), fetch->path, reason);
    if (kept)
        fetch_proceed(fetch, local || refused);
    else
        end(fetch, ERROR_SYSTEM);
}

/* Bytes have come: let the caller look. On a thread that may take its time. */
static void offer(struct fetch *fetch, const uint8_t *bytes, size_t size)
{
    struct mirrors *mirrors = fetch->mirrors;
    struct error error = ERROR_INIT;
    int code = fetch->request.accept ? fetch->request.accept(fetch->request.user, bytes, size, &error) : 0;
    bool news;

    pthread_mutex_lock(&mirrors->lock);
    mirrors->all[fetch->current].requests++;
    mirrors->all[fetch->current].bytes += fetch->request.data ? fetch->delivered : size;
    pthread_mutex_unlock(&mirrors->lock);
    if (code) {
        buffer_finish(&fetch->bytes);
        failed(fetch, ERROR_CORRUPT, error.message, 0, true);
        return;
    }
    pthread_mutex_lock(&mirrors->lock);
    news = mark_reachable(mirrors, fetch->current, clock_ms());
    pthread_mutex_unlock(&mirrors->lock);
    if (news)
        log_info("mirror %s answers again", source_name(mirrors->all[fetch->current].source));
    end(fetch, 0);
}

static void offer_as_job(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;

    offer(fetch, fetch->bytes.bytes, fetch->bytes.size);
}

static void on_answer(void *user, const struct source_result *result)
{
    struct fetch *fetch = user;
    struct mirrors *mirrors = fetch->mirrors;

    if (result->code == ERROR_CANCELLED) {
        end(fetch, ERROR_CANCELLED);
    } else if (result->code && fetch->delivered && fetch->delivered == fetch->request.length) {
        end(fetch, 0); /* the connection broke behind the last byte */
    } else if (result->code) {
        failed(fetch, result->code, result->reason, result->retry_after_ms, false);
    } else if (source_is_local(mirrors->all[fetch->current].source)) {
        offer(fetch, result->bytes, result->size);
    } else {
        if (result->body) { /* not of a stream */
            fetch->bytes = *result->body;
            *result->body = (struct buffer){0};
        }
        fetch->job.run = offer_as_job;
        workers_submit(mirrors->workers, &fetch->job, fetch->request.priority);
    }
}
