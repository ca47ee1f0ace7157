/* The standing of mirrors: what their answers mean for when they are asked again, probes, and statistics. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/mirrors_parts.h"

enum {
    ASIDE_MS = 10 * 60 * 1000, /* after wrong bytes that may be another moment's, as those of a catalog */
    DAMAGED_MAX = 64,          /* packs that are remembered; who has sent more than that damaged is to blame himself */
    UNREACHABLE_MIN_MS = 1000,
    UNREACHABLE_MAX_MS = 60 * 1000,
    MISSING_MOST = 512, /* of 1024: who lacks more than that is not where answers come from, however soon he says so */
};

int standing_of(const struct mirror *mirror, uint64_t now_ms)
{
    if (mirror->aside_until_ms > now_ms)
        return STANDING_ASIDE;
    return mirror->unreachable_ms ? STANDING_UNREACHABLE : STANDING_GOOD;
}

mirror_set standing_damaged(const struct mirrors *mirrors, const char *path)
{
    const struct damaged *damaged;

    SLIST_FOREACH (damaged, &mirrors->damaged, entry)
        if (!strcmp(damaged->path, path))
            return damaged->mirrors;
    return 0;
}

mirror_set standing_add_damaged(struct mirrors *mirrors, unsigned index, const char *path)
{
    size_t length = strlen(path);
    struct damaged *damaged;

    SLIST_FOREACH (damaged, &mirrors->damaged, entry)
        if (!strcmp(damaged->path, path))
            return damaged->mirrors |= mirror_bit(index);
    damaged = mirrors->damaged_count < DAMAGED_MAX ? malloc(sizeof(*damaged) + length + 1) : NULL;
    if (!damaged)
        return 0;
    damaged->mirrors = mirror_bit(index);
    memcpy(damaged->path, path, length + 1);
    SLIST_INSERT_HEAD(&mirrors->damaged, damaged, entry);
    mirrors->damaged_count++;
    return damaged->mirrors;
}

int standing_for(const struct fetch *fetch, unsigned index, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;

    return standing_damaged(mirrors, fetch->path) & mirror_bit(index) ? STANDING_ASIDE
                                                                      : standing_of(&mirrors->all[index], now_ms);
}

bool standing_unreachable(struct mirror *mirror, uint64_t retry_after_ms, uint64_t now_ms)
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

bool standing_aside(struct mirror *mirror, bool for_ever, uint64_t now_ms)
{
    bool news = mirror->aside_until_ms <= now_ms;

    mirror->aside_until_ms = for_ever ? UINT64_MAX : max_u64(mirror->aside_until_ms, now_ms + ASIDE_MS);
    return news;
}

bool standing_reachable(struct mirrors *mirrors, unsigned index, uint64_t now_ms)
{
    struct mirror *mirror = &mirrors->all[index];

    if (mirror->unreachable_ms == 0)
        return false;
    mirror->unreachable_ms = 0;
    mirror->unreachable_until_ms = mirror->not_before_ms = 0;
    for (struct fetch *fetch = mirrors->waiting; fetch; fetch = fetch->next)
        if (!(fetch->settled & mirror_bit(index)))
            fetch->wake_ms = now_ms;
    mirrors_wake_timer(mirrors, now_ms);
    return true;
}

/* ---- Probes ---- */

/*
 * Does a mirror that could not be reached answer again, and how fast is one that had nothing to do? Asked in the
 * background while another one serves, so that no reader has to find out.
 */
struct probe {
    struct job job; /* first */
    struct mirrors *mirrors;
    unsigned index;
    uint64_t sent_us;
    char path[];
};

static void on_probe_answer(void *user, const struct source_result *result)
{
    struct probe *probe = user;
    struct mirrors *mirrors = probe->mirrors;
    struct mirror *mirror = &mirrors->all[probe->index];
    bool news = false, answered = result->code == 0 || result->code == ERROR_NOT_FOUND;
    uint64_t now_us = clock_us();

    pthread_mutex_lock(&mirrors->lock);
    mirror->probing = false;
    mirror->requests += result->code != ERROR_CANCELLED;
    mirror->errors += !answered && result->code != ERROR_CANCELLED;
    mirror->bytes += result->size;
    measure_end(&mirror->measure, &(struct measured){
        .size = 1,
        .bytes = result->size,
        .first_byte_us = result->first_byte_us ? result->first_byte_us : now_us - probe->sent_us,
        .total_us = now_us - probe->sent_us,
        .answered = answered,
        .missing = result->code == ERROR_NOT_FOUND,
    }, now_us);
    if (answered)
        news = standing_reachable(mirrors, probe->index, now_us / 1000);
    else if (result->code != ERROR_CANCELLED)
        standing_unreachable(mirror, result->retry_after_ms, now_us / 1000);
    pthread_mutex_unlock(&mirrors->lock);
    if (news)
        log_info("mirror %s answers again", source_name(mirror->source));
    free(probe);
    mirrors_leave(mirrors);
}

static void run_probe(struct job *job)
{
    struct probe *probe = (struct probe *)job;

    probe->sent_us = clock_us();
    source_fetch(probe->mirrors->all[probe->index].source, &(struct source_request){
        .path = probe->path,
        .length = 1,
        .size_limit = 1,
        .priority = PRIORITY_READAHEAD,
        .done = on_probe_answer,
        .user = probe,
    });
}

static void probe_mirror(struct mirrors *mirrors, unsigned index, const char *path)
{
    size_t length = strlen(path);
    struct probe *probe = calloc(1, sizeof(*probe) + length + 1);

    if (!probe)
        return;
    memcpy(probe->path, path, length + 1);
    probe->job.run = run_probe;
    probe->mirrors = mirrors;
    probe->index = index;
    mirrors->all[index].probing = true;
    measure_begin(&mirrors->all[index].measure, 1, clock_us());
    mirrors->under_way++;
    workers_submit(mirrors->workers, &probe->job, PRIORITY_READAHEAD);
}

/* Is it time to ask an unreachable mirror again? */
static bool is_due(const struct mirror *mirror, uint64_t now_ms)
{
    return mirror->unreachable_ms && mirror->unreachable_until_ms <= now_ms && mirror->not_before_ms <= now_ms;
}

void standing_probe_others(const struct fetch *fetch, uint64_t now_ms)
{
    struct mirrors *mirrors = fetch->mirrors;
    const struct measure *measures[MIRRORS_MAX];
    mirror_set quiet = 0;
    int stale;

    for (unsigned i = 0; i < mirrors->count; i++) {
        struct mirror *mirror = &mirrors->all[i];

        measures[i] = &mirror->measure;
        if (i == fetch->current || mirror->probing || standing_of(mirror, now_ms) == STANDING_ASIDE)
            continue;
        if (is_due(mirror, now_ms))
            probe_mirror(mirrors, i, fetch->path);
        else if (!mirror->unreachable_ms)
            quiet |= mirror_bit(i);
    }
    stale = quiet && fetch->ranked ? rank_stale(measures, mirrors->count, quiet, now_ms) : -1;
    if (stale < 0)
        return;
    /* Before much is fetched, it is good to know from where. */
    if ((fetch_is_bulk(fetch) && !measures[stale]->measured_ms) || allowance_spend(&mirrors->exploring))
        probe_mirror(mirrors, (unsigned)stale, fetch->path);
}

/* ---- Statistics ---- */

const char *mirror_state_name(enum mirror_state state)
{
    static const char *const names[] = {
        [MIRROR_IN_USE] = "in use",
        [MIRROR_RESTING] = "resting",
        [MIRROR_UNREACHABLE] = "unreachable",
        [MIRROR_DROPPED] = "dropped",
    };

    return names[state];
}

/* Under the lock. */
static void describe_state(const struct mirror *mirror, uint64_t now_ms, struct mirror_statistics *statistics)
{
    uint64_t until_ms = 0;

    if (mirror->aside_until_ms > now_ms) {
        statistics->state = MIRROR_DROPPED;
        until_ms = mirror->aside_until_ms == UINT64_MAX ? 0 : mirror->aside_until_ms;
    } else if (mirror->not_before_ms > now_ms) {
        statistics->state = MIRROR_RESTING;
        until_ms = mirror->not_before_ms;
    } else if (mirror->unreachable_ms) {
        statistics->state = MIRROR_UNREACHABLE;
        until_ms = max_u64(mirror->unreachable_until_ms, now_ms + 1);
    }
    statistics->state_ms = until_ms ? until_ms - now_ms : 0;
    snprintf(statistics->reason, sizeof(statistics->reason), "%s", mirror->reason);
}

static void describe_mirror(const struct mirror *mirror, uint64_t now_ms, struct mirror_statistics *statistics)
{
    const struct measure *measure = &mirror->measure;

    *statistics = (struct mirror_statistics){
        .local = source_is_local(mirror->source),
        .requests = mirror->requests,
        .bytes = mirror->bytes,
        .errors = mirror->errors,
        .missing = mirror->missing,
        .bad_blocks = mirror->bad_blocks,
        .hedges = mirror->hedges,
        .hedges_won = mirror->hedges_won,
        .first_byte_us = measure->first_byte_us,
        .slow_us = measure_slow_us(measure),
        .rate = measure->rate ? measure->rate : measure->throughput,
    };
    snprintf(statistics->url, sizeof(statistics->url), "%s", source_name(mirror->source));
    describe_state(mirror, now_ms, statistics);
}

uint64_t mirrors_first_byte_us(struct mirrors *mirrors)
{
    uint64_t least_us = UINT64_MAX, now_ms = clock_ms();

    pthread_mutex_lock(&mirrors->lock);
    for (size_t i = 0; i < mirrors->count; i++) {
        const struct mirror *mirror = &mirrors->all[i];

        if (mirror->measure.first_byte_us && mirror->measure.missing <= MISSING_MOST &&
            standing_of(mirror, now_ms) == STANDING_GOOD)
            least_us = min_u64(least_us, mirror->measure.first_byte_us);
    }
    pthread_mutex_unlock(&mirrors->lock);
    return least_us == UINT64_MAX ? 0 : least_us;
}

size_t mirrors_statistics(struct mirrors *mirrors, struct mirror_statistics *statistics_out)
{
    uint64_t now_ms = clock_ms();
    size_t count;

    pthread_mutex_lock(&mirrors->lock);
    count = mirrors->count;
    for (size_t i = 0; i < count; i++)
        describe_mirror(&mirrors->all[i], now_ms, &statistics_out[i]);
    pthread_mutex_unlock(&mirrors->lock);
    return count;
}
