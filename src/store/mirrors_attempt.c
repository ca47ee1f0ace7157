/*
 * One question to a mirror and its answer. A reader who waits longer than is
 * usual for that mirror gets a second question asked elsewhere (a hedge); the
 * first answer that is accepted wins, and the other question is given up.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "format/foreign.h"
#include "store/mirrors_parts.h"

enum {
    STALL_MIN_MS = 1000,       /* however little patience is left */
    HEDGE_MIN_MS = 25,         /* before that a second question is not worth it */
    HEDGE_UNMEASURED_MS = 1000, /* nothing is known of the mirror, or it is asked for what changes */
    HEDGE_AGAIN_MS = 250,      /* before it is looked again whether there may be one */
    RECONNECT_MS = 2000,       /* there is no other mirror: the connection may be dead, or its packets lost */
    SIZE_GUESS = 64 * 1024,
    BREAKS_MAX = 8,            /* of a stream */
    STEADY_BYTES = 1024 * 1024, /* an attempt that brought so much lets the next one come soon */
};

/* ---- Hedging; all under the lock ---- */

static void arm_hedge_at(struct fetch *fetch, uint64_t ms)
{
    struct mirrors *mirrors = fetch->mirrors;

    fetch->hedge_ms = ms;
    fetch->hedge_later = mirrors->hedgeable;
    fetch->hedge_link = &mirrors->hedgeable;
    if (mirrors->hedgeable)
        mirrors->hedgeable->hedge_link = &fetch->hedge_later;
    mirrors->hedgeable = fetch;
    mirrors_wake_timer(mirrors, fetch->hedge_ms);
}

static void arm_hedge(struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    const struct mirror *mirror = &mirrors->all[fetch->current];
    uint64_t slow_ms = divide_up(measure_slow_us(&mirror->measure), 1000), delay_ms = HEDGE_UNMEASURED_MS;
    bool bulk = fetch_is_bulk(fetch);

    if ((bulk && !fetch->hurried) || source_is_local(mirror->source))
        return;
    if (fetch->ranked && slow_ms)
        delay_ms = max_u64(slow_ms, HEDGE_MIN_MS);
    /* Bulk work is slower than a reader's anyway; but a stream may rest for good on a connection that lives. */
    if (mirrors->count == 1 || bulk)
        delay_ms = max_u64(4 * slow_ms, RECONNECT_MS);
    arm_hedge_at(fetch, now_ms + delay_ms);
}

void attempt_hurry(struct fetch *fetch, uint64_t now_ms)
{
    bool first_alone = fetch->under_way == 1 && fetch->attempts[0].under_way;

    fetch->hurried = true;
    if (first_alone && !fetch->hedge_link && !fetch->judging && !fetch->ended && !fetch->request.data)
        arm_hedge(fetch, now_ms);
}

static void disarm_hedge(struct fetch *fetch)
{
    if (!fetch->hedge_link)
        return;
    *fetch->hedge_link = fetch->hedge_later;
    if (fetch->hedge_later)
        fetch->hedge_later->hedge_link = fetch->hedge_link;
    fetch->hedge_link = NULL;
}

static struct attempt *set_up(struct fetch *fetch, unsigned slot, uint64_t now_us)
{
    struct mirrors *mirrors = fetch->mirrors;
    struct attempt *attempt = &fetch->attempts[slot];
    uint64_t size = fetch->request.length ? fetch->request.length - fetch->delivered : fetch->request.size_limit / 2;

    *attempt = (struct attempt){
        .fetch = fetch,
        .mirror = fetch->current,
        .under_way = true,
        .tag = ++mirrors->last_tag,
        .size = size ? size : SIZE_GUESS,
        .sent_us = now_us,
        .delivered = fetch->delivered,
        .last_resort = standing_for(fetch, fetch->current, now_us / 1000) == STANDING_ASIDE,
    };
    fetch->under_way++;
    measure_begin(&mirrors->all[attempt->mirror].measure, attempt->size, now_us);
    return attempt;
}

struct attempt *attempt_begin(struct fetch *fetch, uint64_t now_us)
{
    struct attempt *attempt = set_up(fetch, 0, now_us);

    allowance_earn(&fetch->mirrors->hedging);
    allowance_earn(&fetch->mirrors->exploring);
    arm_hedge(fetch, now_us / 1000);
    return attempt;
}

/* A second question for FETCH, to another mirror, or if there is none to the same. NULL: better not. */
static struct attempt *hedge(struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    unsigned first = fetch->current;
    mirror_set others = ~(fetch->asked | fetch->settled | mirror_bit(first));
    struct attempt *attempt;
    int chosen = -1;

    for (unsigned i = 0; i < mirrors->count; i++)
        if (standing_of(&mirrors->all[i], now_ms) != STANDING_GOOD || mirrors->all[i].not_before_ms > now_ms)
            others &= ~mirror_bit(i);
    if (mirrors->count > 1)
        chosen = fetch_choose(fetch, others, now_ms);
    if (mirrors->count == 1 || (chosen < 0 && now_ms >= fetch->attempts[0].sent_us / 1000 + RECONNECT_MS))
        chosen = (int)first;
    if (mirrors->stopping || chosen < 0 || !allowance_spend(&mirrors->hedging))
        return NULL;
    fetch->current = (unsigned)chosen;
    fetch->asked |= mirror_bit(fetch->current);
    attempt = set_up(fetch, 1, clock_us());
    attempt->hedge = true;
    attempt->reconnect = fetch->current == first;
    mirrors->all[fetch->current].hedges++;
    return attempt;
}

struct attempt *attempt_hedge_due(struct mirrors *mirrors, uint64_t now_ms, uint64_t *next_ms)
{
    struct attempt *list = NULL;
    struct fetch *later;

    for (struct fetch *fetch = mirrors->hedgeable; fetch; fetch = later) {
        struct attempt *attempt;

        later = fetch->hedge_later;
        if (fetch->hedge_ms > now_ms) {
            *next_ms = min_u64(*next_ms, fetch->hedge_ms);
            continue;
        }
        disarm_hedge(fetch);
        attempt = hedge(fetch, now_ms);
        if (attempt) {
            attempt->next = list;
            list = attempt;
        } else if (!mirrors->stopping) {
            arm_hedge_at(fetch, now_ms + HEDGE_AGAIN_MS);
            *next_ms = min_u64(*next_ms, fetch->hedge_ms);
        }
    }
    return list;
}

/* ---- Asking ---- */

static void on_answer(void *user, const struct source_result *result);

/* Has the mirror of a stream turned out to give wrong bytes, while there is another one? Under the lock. */
static bool must_desert(const struct attempt *attempt)
{
    const struct fetch *fetch = attempt->fetch;
    const struct mirrors *mirrors = fetch->mirrors;
    uint64_t now_ms = clock_ms();

    if (attempt->last_resort || standing_for(fetch, attempt->mirror, now_ms) != STANDING_ASIDE)
        return false;
    for (unsigned i = 0; i < mirrors->count; i++)
        if (!((fetch->asked | fetch->settled) & mirror_bit(i)) && standing_for(fetch, i, now_ms) == STANDING_GOOD)
            return true;
    return false;
}

/* Part of a stream. While it flows, nobody loses patience, and a break is answered at once. */
static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct attempt *attempt = user;
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    struct mirror *mirror = &mirrors->all[attempt->mirror];
    bool stopping;

    pthread_mutex_lock(&mirrors->lock);
    attempt->deserted = must_desert(attempt);
    stopping = mirrors->stopping || attempt->deserted; /* nothing else ends the stream of a folder */
    measure_bytes(&mirror->measure, size, clock_us());
    mirror->bytes += size;
    pthread_mutex_unlock(&mirrors->lock);
    if (stopping)
        return false;
    fetch->delivered += size;
    fetch->deadline_ms = clock_ms() + fetch->request.patience_ms;
    if (fetch->delivered - attempt->delivered >= STEADY_BYTES)
        fetch->pause_ms = 0;
    if (fetch->request.mirror_out)
        *fetch->request.mirror_out = attempt->mirror;
    return fetch->request.data(fetch->request.user, bytes, size);
}

static bool on_ready(void *user)
{
    struct fetch *fetch = ((struct attempt *)user)->fetch;

    if (fetch->request.ready(fetch->request.user))
        return true;
    fetch->deadline_ms = clock_ms() + fetch->request.patience_ms;
    return false;
}

static void ask(struct attempt *attempt)
{
    struct fetch *fetch = attempt->fetch;
    uint64_t now_ms = clock_ms(), left_ms = 0;

    if (!fetch->last_round && fetch->deadline_ms > now_ms)
        left_ms = fetch->deadline_ms - now_ms;
    if (left_ms || fetch->request.patience_ms != PASS_ONLY)
        left_ms = max_u64(left_ms, STALL_MIN_MS);
    source_fetch(fetch->mirrors->all[attempt->mirror].source, &(struct source_request){
        .path = fetch->path,
        .offset = fetch->request.offset + attempt->delivered,
        .length = fetch->request.length ? fetch->request.length - attempt->delivered : 0,
        .size_limit = fetch->request.size_limit,
        .range_only = fetch->request.range_only,
        .priority = attempt->hedge ? PRIORITY_READER : fetch->request.priority,
        .data = fetch->request.data ? on_data : NULL,
        .ready = fetch->request.ready ? on_ready : NULL,
        .fresh = fetch->request.fresh || fetch->fresh & mirror_bit(attempt->mirror),
        .reconnect = attempt->reconnect,
        .shared = fetch->request.shared,
        .more_soon = fetch->request.more_soon,
        .stall_timeout_ms = (unsigned)left_ms,
        .tag = attempt->tag,
        .done = on_answer,
        .user = attempt,
    });
}

static void ask_as_job(struct job *job)
{
    ask((struct attempt *)job);
}

void attempt_launch(struct attempt *attempt, bool may_block)
{
    struct fetch *fetch = attempt->fetch;
    bool local = source_is_local(fetch->mirrors->all[attempt->mirror].source);

    if (local && (!may_block || fetch->request.data)) { /* a stream may take long */
        attempt->job.run = ask_as_job;
        workers_submit(fetch->mirrors->workers, &attempt->job, fetch->request.priority);
    } else {
        ask(attempt);
    }
}

/* ---- The answer ---- */

static void judge(struct attempt *attempt);

static void judge_as_job(struct job *job)
{
    judge((struct attempt *)job);
}

/* Under the lock. */
static void submit_judging(struct attempt *attempt)
{
    struct fetch *fetch = attempt->fetch;

    attempt->job.run = judge_as_job;
    workers_submit(fetch->mirrors->workers, &attempt->job, fetch->hurried ? PRIORITY_READER : fetch->request.priority);
}

/* The other attempt, if it is under way. Under the lock. */
static struct attempt *other_of(const struct attempt *attempt)
{
    struct attempt *other = &attempt->fetch->attempts[attempt == &attempt->fetch->attempts[0]];

    return other->under_way ? other : NULL;
}

/* Under the lock. */
static void over(struct attempt *attempt)
{
    attempt->under_way = false;
    buffer_finish(&attempt->bytes);
    attempt->fetch->under_way--;
}

/*
 * ATTEMPT brought nothing. What is next for its fetch, if nothing else is on its way: MAY_BLOCK as in fetch_proceed.
 * The lock is held, and let go.
 */
static void go_on(struct attempt *attempt, bool may_block)
{
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    struct attempt *held = other_of(attempt);
    bool last, ended = fetch->ended;

    over(attempt);
    last = fetch->under_way == 0;
    if (last)
        disarm_hedge(fetch);
    if (held && held->held && !ended) {
        held->held = false;
        submit_judging(held);
    }
    pthread_mutex_unlock(&mirrors->lock);
    if (!last)
        return;
    if (ended) {
        fetch_release(fetch);
    } else if (fetch->broken) {
        fetch_end(fetch, fetch->broken);
        fetch_release(fetch);
    } else {
        fetch_proceed(fetch, may_block);
    }
}

/* Keep CODE and REASON of the mirror, whose fault it is not that it lacks a file. False: no memory. Under the lock. */
static bool note_outcome(struct attempt *attempt, int code, const char *reason)
{
    struct fetch *fetch = attempt->fetch;
    struct mirror *mirror = &fetch->mirrors->all[attempt->mirror];
    struct outcome *outcome;

    if (code != ERROR_NOT_FOUND)
        snprintf(mirror->reason, sizeof(mirror->reason), "%s", reason);
    if (!fetch->outcomes)
        fetch->outcomes = calloc(MIRRORS_MAX, sizeof(*fetch->outcomes));
    if (!fetch->outcomes)
        return false;
    outcome = &fetch->outcomes[attempt->mirror];
    outcome->code = code;
    snprintf(outcome->reason, sizeof(outcome->reason), "%s", reason);
    return true;
}

/* What a failure means for the mirror, and whether it is worth asking again. */
enum blame { BLAME_NOTHING, BLAME_UNREACHABLE, BLAME_LIE };

static enum blame blame(struct attempt *attempt, int code, bool refused)
{
    struct fetch *fetch = attempt->fetch;
    mirror_set bit = mirror_bit(attempt->mirror);

    if (attempt->deserted) {
        fetch->settled |= bit;
        return BLAME_NOTHING;
    }
    if (code == ERROR_CORRUPT ? fetch->fresh & bit : code != ERROR_UNAVAILABLE && code != ERROR_SYSTEM)
        fetch->settled |= bit;
    if (refused)
        return BLAME_LIE;
    return code == ERROR_NOT_FOUND || code == ERROR_UNSUPPORTED ? BLAME_NOTHING : BLAME_UNREACHABLE;
}

static void report_lie(const struct mirror *mirror, bool for_ever, const char *path, const char *reason)
{
    log_warning("mirror %s gave wrong bytes and is %s: %s: %s", source_name(mirror->source),
                for_ever ? "not used any more" : "set aside for ten minutes", path, reason);
}

static void report(const struct attempt *attempt, enum blame what, bool for_ever, const char *reason)
{
    const struct mirror *mirror = &attempt->fetch->mirrors->all[attempt->mirror];

    if (what == BLAME_UNREACHABLE)
        log_warning("mirror %s is asked last for now: %s: %s", source_name(mirror->source), attempt->fetch->path,
                    reason);
    else
        report_lie(mirror, for_ever, attempt->fetch->path, reason);
}

bool mirrors_accuse(struct mirrors *mirrors, unsigned index, const char *path, const char *reason)
{
    uint64_t now_ms = clock_ms();
    mirror_set before, damaged;
    bool dropped = false, others = false;
    struct mirror *mirror;

    if (index == MIRROR_SEVERAL)
        return false;
    pthread_mutex_lock(&mirrors->lock);
    mirror = &mirrors->all[index];
    mirror->bad_blocks++;
    before = standing_damaged(mirrors, path);
    damaged = standing_add_damaged(mirrors, index, path);
    if (!damaged)
        dropped = standing_aside(mirror, true, now_ms);
    for (unsigned i = 0; i < mirrors->count; i++)
        others |= !(damaged & mirror_bit(i)) && standing_of(&mirrors->all[i], now_ms) == STANDING_GOOD;
    pthread_mutex_unlock(&mirrors->lock);
    /* Mirrors are never taken out of the list. */
    if (dropped)
        report_lie(mirror, true, path, reason);
    else if (damaged && !before)
        log_warning("mirror %s: %s is damaged there: %s", source_name(mirror->source), path, reason);
    else if (damaged != before)
        log_info("mirror %s: %s is damaged there too: %s", source_name(mirror->source), path, reason);
    return others && !(damaged & ~mirror_bit(index));
}

/* The attempt failed with CODE: the source's, or the caller's if REFUSED. */
static void failed(struct attempt *attempt, int code, const char *reason, uint64_t retry_after_ms, bool refused)
{
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    struct mirror *mirror = &mirrors->all[attempt->mirror];
    bool news = false, local = source_is_local(mirror->source);
    bool for_ever = !strncmp(fetch->path, "blocks/", 7);
    uint64_t now_ms = clock_ms();
    enum blame what;

    pthread_mutex_lock(&mirrors->lock);
    if (!note_outcome(attempt, code, reason))
        fetch->broken = ERROR_SYSTEM; /* there is no memory to go on with */
    if (fetch->delivered > attempt->delivered && ++fetch->break_count == BREAKS_MAX)
        fetch->broken = ERROR_UNAVAILABLE;
    what = blame(attempt, code, refused);
    if (what == BLAME_NOTHING)
        standing_reachable(mirrors, attempt->mirror, now_ms);
    else if (what == BLAME_UNREACHABLE)
        news = standing_unreachable(mirror, retry_after_ms, now_ms);
    else
        news = standing_aside(mirror, for_ever, now_ms);
    mirror->bad_blocks += refused;
    pthread_mutex_unlock(&mirrors->lock);
    /* As long as the attempt is under way, the mirrors are there. */
    if (news)
        report(attempt, what, for_ever, reason);
    pthread_mutex_lock(&mirrors->lock);
    go_on(attempt, local || refused);
}

/* ATTEMPT's answer was accepted: tell, and give the other one up. */
static void win(struct attempt *attempt)
{
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    struct mirror *mirror = &mirrors->all[attempt->mirror];
    struct attempt *other;
    struct source *slow = NULL;
    uint64_t tag = 0;
    bool news, last;

    pthread_mutex_lock(&mirrors->lock);
    fetch->ended = true;
    news = standing_reachable(mirrors, attempt->mirror, clock_ms());
    mirror->hedges_won += attempt->hedge;
    if (fetch->fresh & mirror_bit(attempt->mirror))
        mirror->aside_until_ms = 0; /* it was a cache on the way that lied */
    disarm_hedge(fetch);
    other = other_of(attempt);
    if (other && other->held) {
        over(other);
    } else if (other) {
        slow = mirrors->all[other->mirror].source;
        tag = other->tag;
    }
    pthread_mutex_unlock(&mirrors->lock);
    if (news)
        log_info("mirror %s answers again", source_name(mirror->source));
    if (slow)
        source_abandon(slow, tag);
    fetch_end(fetch, 0);
    pthread_mutex_lock(&mirrors->lock);
    over(attempt);
    last = fetch->under_way == 0;
    pthread_mutex_unlock(&mirrors->lock);
    if (last)
        fetch_release(fetch);
}

/* Bytes have come: let the caller look, one answer at a time. On a thread that may take its time. */
static void judge(struct attempt *attempt)
{
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    struct error error = ERROR_INIT;
    const char *mistake;
    int code = 0;

    pthread_mutex_lock(&mirrors->lock);
    if (fetch->ended) {
        go_on(attempt, true);
        return;
    }
    attempt->held = fetch->judging;
    fetch->judging = true;
    if (attempt->held) {
        pthread_mutex_unlock(&mirrors->lock);
        return;
    }
    pthread_mutex_unlock(&mirrors->lock);
    if (fetch->request.mirror_out)
        *fetch->request.mirror_out = attempt->mirror;
    if (fetch->request.accept)
        code = fetch->request.accept(fetch->request.user, attempt->bytes.bytes, attempt->bytes.size, &error);
    pthread_mutex_lock(&mirrors->lock);
    fetch->judging = false;
    fetch->ended = code == 0;
    pthread_mutex_unlock(&mirrors->lock);
    mistake = code ? foreign_mistake(attempt->bytes.bytes, attempt->bytes.size) : NULL;
    if (!code)
        win(attempt);
    else if (mistake) /* somebody else's, who may soon be gone */
        failed(attempt, ERROR_UNAVAILABLE, mistake, 0, false);
    else if (code == ERROR_NOT_FOUND)
        failed(attempt, code, error.message, 0, false);
    else
        failed(attempt, ERROR_CORRUPT, error.message, 0, true);
}

/* What the answer tells of the mirror. */
static void note_answer(struct attempt *attempt, const struct source_result *result)
{
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    struct mirror *mirror = &mirrors->all[attempt->mirror];
    bool reader = !fetch_is_bulk(fetch) && fetch->ranked, missing = result->code == ERROR_NOT_FOUND;
    uint64_t now_us = clock_us(), total_us = now_us - attempt->sent_us;

    pthread_mutex_lock(&mirrors->lock);
    if (result->code == ERROR_CANCELLED && fetch->ended)
        measure_given_up(&mirror->measure, total_us, reader);
    else if (result->code != ERROR_CANCELLED)
        mirror->requests++;
    mirror->bytes += result->size;
    mirror->missing += missing;
    mirror->errors += result->code && !missing && result->code != ERROR_CANCELLED;
    measure_end(&mirror->measure, &(struct measured){
        .size = attempt->size,
        .bytes = result->size,
        .first_byte_us = result->first_byte_us ? result->first_byte_us : total_us,
        .total_us = total_us,
        .reader = reader,
        .answered = result->code == 0 || missing,
        .missing = missing,
    }, now_us);
    if (!other_of(attempt))
        disarm_hedge(fetch);
    if (result->code == ERROR_CANCELLED && !attempt->deserted)
        fetch->broken = ERROR_CANCELLED;
    pthread_mutex_unlock(&mirrors->lock);
}

static void on_answer(void *user, const struct source_result *result)
{
    struct attempt *attempt = user;
    struct fetch *fetch = attempt->fetch;
    struct mirrors *mirrors = fetch->mirrors;
    bool complete = fetch->delivered && fetch->delivered == fetch->request.length;
    bool short_stream = fetch->request.data && fetch->delivered < fetch->request.length;

    note_answer(attempt, result);
    if (result->code && attempt->deserted) {
        failed(attempt, ERROR_UNAVAILABLE, "it gave wrong bytes", 0, false);
    } else if (result->code == ERROR_CANCELLED) {
        pthread_mutex_lock(&mirrors->lock);
        go_on(attempt, false);
    } else if (result->code && complete) {
        win(attempt); /* the connection broke behind the last byte */
    } else if (result->code) {
        failed(attempt, result->code, result->reason, result->retry_after_ms, false);
    } else if (short_stream) {
        failed(attempt, ERROR_NOT_FOUND, "its file ends before that", 0, false);
    } else {
        if (result->body) { /* not of a stream */
            attempt->bytes = *result->body;
            *result->body = (struct buffer){0};
        }
        if (source_is_local(mirrors->all[attempt->mirror].source)) {
            judge(attempt);
            return;
        }
        pthread_mutex_lock(&mirrors->lock);
        submit_judging(attempt);
        pthread_mutex_unlock(&mirrors->lock);
    }
}
