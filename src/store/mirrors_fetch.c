/* The way of one request from mirror to mirror, in rounds: choose, ask, wait, end. */

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/mirrors_parts.h"

enum {
    PAUSE_MIN_MS = 250, /* between rounds */
    PAUSE_MAX_MS = 8000,
    PAUSE_READER_MS = 1000, /* who waits wants to know soon that the network is back */
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
            error_set(error, code, "%s: %s", fetch->path, fetch->mirrors->count ? "every mirror has asked for rest"
                                                                               : "there is no mirror to ask");
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

void fetch_release(struct fetch *fetch)
{
    struct mirrors *mirrors = fetch->mirrors;

    pthread_mutex_lock(&mirrors->lock);
    if (fetch->earlier)
        fetch->earlier->later = fetch->later;
    *(fetch->later ? &fetch->later->earlier : &mirrors->last_fetch) = fetch->earlier;
    pthread_mutex_unlock(&mirrors->lock);
    free(fetch->outcomes);
    free(fetch);
    mirrors_leave(mirrors);
}

void fetch_end(struct fetch *fetch, int code)
{
    struct error error = ERROR_INIT;

    if (code)
        compose_error(fetch, code, &error);
    fetch->request.done(fetch->request.user, code, &error);
}

/* ---- Choosing ---- */

/* Of AMONG, those of the best standing for FETCH. Under the lock. */
static mirror_set best_standing(const struct fetch *fetch, mirror_set among, uint64_t now_ms)
{
    mirror_set sets[STANDING_WORST + 1] = {0};

    for (unsigned i = 0; i < fetch->mirrors->count; i++)
        if (among & mirror_bit(i))
            sets[standing_for(fetch, i, now_ms)] |= mirror_bit(i);
    for (int standing = 0; standing < STANDING_WORST; standing++)
        if (sets[standing])
            return sets[standing];
    return sets[STANDING_WORST];
}

int fetch_choose(const struct fetch *fetch, mirror_set among, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    const struct measure *measures[MIRRORS_MAX];
    mirror_set eligible = best_standing(fetch, among, now_ms);
    uint64_t size = fetch->request.length ? fetch->request.length - fetch->delivered : fetch->request.size_limit / 2;

    if (!eligible)
        return -1;
    /* The origin has the newest of what changes. */
    if (!fetch->ranked)
        return __builtin_ctz(eligible);
    for (unsigned i = 0; i < mirrors->count; i++)
        measures[i] = &mirrors->all[i].measure;
    return (int)rank_choose(measures, mirrors->count, eligible, fetch_is_bulk(fetch) ? RANK_BULK : RANK_DEMAND, size);
}

/*
 * A mirror that has had nothing to do for long, for some bulk work, to see how fast it is by now; or -1. Under the
 * lock.
 */
static int explore(const struct fetch *fetch, mirror_set among, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    const struct measure *measures[MIRRORS_MAX];
    int stale;

    if (!fetch->ranked || fetch->request.priority == PRIORITY_READER || fetch->request.data || fetch->asked)
        return -1;
    for (unsigned i = 0; i < mirrors->count; i++) {
        measures[i] = &mirrors->all[i].measure;
        if (standing_of(&mirrors->all[i], now_ms) != STANDING_GOOD)
            among &= ~mirror_bit(i);
    }
    stale = rank_stale(measures, mirrors->count, among, now_ms);
    return stale >= 0 && allowance_spend(&mirrors->exploring) ? stale : -1;
}

/* The next mirror of this round becomes the current one. False: the round is over. Under the lock. */
static bool choose(struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    bool last_resort = fetch->last_round && fetch->request.patience_ms != PASS_ONLY;
    mirror_set among = 0;
    int chosen;

    for (unsigned i = 0; i < mirrors->count; i++)
        if (!((fetch->asked | fetch->settled) & mirror_bit(i)) &&
            (last_resort || mirrors->all[i].not_before_ms <= now_ms))
            among |= mirror_bit(i);
    chosen = explore(fetch, among, now_ms);
    if (chosen < 0)
        chosen = fetch_choose(fetch, among, now_ms);
    if (chosen < 0)
        return false;
    fetch->current = (unsigned)chosen;
    fetch->asked |= mirror_bit(fetch->current);
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
        mirror_set bit = mirror_bit(i);

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
    unsigned most_ms = fetch->request.priority == PRIORITY_READER ? PAUSE_READER_MS : PAUSE_MAX_MS;
    uint64_t earliest = UINT64_MAX, pause_ms;

    for (unsigned i = 0; i < mirrors->count; i++)
        if (!(fetch->settled >> i & 1))
            earliest = min_u64(earliest, mirrors->all[i].not_before_ms);
    fetch->pause_ms = fetch->pause_ms ? fetch->pause_ms * 2 : PAUSE_MIN_MS;
    if (fetch->pause_ms > most_ms)
        fetch->pause_ms = most_ms;
    pause_ms = jitter(mirrors, fetch->pause_ms);
    fetch->wake_ms = min_u64(max_u64(now_ms + pause_ms, earliest), fetch->deadline_ms);
    fetch->next = mirrors->waiting;
    mirrors->waiting = fetch;
    mirrors_wake_timer(mirrors, fetch->wake_ms);
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

void fetch_proceed(struct fetch *fetch, bool may_block)
{
    struct mirrors *mirrors = fetch->mirrors;
    struct attempt *attempt = NULL;
    enum step step;
    int code = 0;

    pthread_mutex_lock(&mirrors->lock);
    step = next_step(fetch, &code);
    if (step == STEP_ASK) {
        attempt = attempt_begin(fetch, clock_us());
        standing_probe_others(fetch, clock_ms());
    }
    pthread_mutex_unlock(&mirrors->lock);
    /* A fetch that waits may be in other hands by now. */
    if (step == STEP_END) {
        fetch_end(fetch, code);
        fetch_release(fetch);
    } else if (step == STEP_ASK) {
        attempt_launch(attempt, may_block);
    }
}
