/* Checking a mirror: see mirror_check.h. */
#include "image/mirror_check.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "image/disk.h"

enum {
    ALONE = 8,      /* blocks that are fetched one after the other */
    FAILED_MAX = 2, /* then it is out of reach */
};

struct mirror_check {
    const struct mirror_check_settings *settings;
    struct mirrors *mirrors; /* this one alone */
    struct store *store;     /* without a cache */
    struct archive *archive; /* NULL: no catalog */
    struct mirror_report report;
};

/* The worst verdict stays. */
static void find(struct mirror_check *check, enum mirror_verdict verdict, const struct error *reason)
{
    if (verdict <= check->report.verdict)
        return;
    check->report.verdict = verdict;
    check->report.reason = ERROR_INIT;
    if (reason)
        error_copy(&check->report.reason, reason);
}

/* ---- The catalog ---- */

static enum mirror_verdict verdict_of(int code)
{
    switch (code) {
    case ERROR_UNTRUSTED:
        return MIRROR_UNSIGNED;
    case ERROR_EXPIRED:
        return MIRROR_EXPIRED;
    case ERROR_CORRUPT:
        return MIRROR_WRONG;
    default:
        return MIRROR_UNREACHABLE_NOW;
    }
}

static int open_catalog(struct mirror_check *check, const char *location, bool insecure, struct error *error)
{
    const struct mirror_check_settings *settings = check->settings;

    return archive_open(&(struct archive_settings){
        .location = location,
        .store = check->store,
        .trusted = settings->trusted,
        .state_fd = -1, /* an old catalog is what we want to see */
        .insecure = insecure,
        .patience_ms = settings->patience_ms,
    }, &check->archive, error);
}

static void look_at_catalog(struct mirror_check *check, const char *location)
{
    struct mirror_report *report = &check->report;
    const struct catalog *catalog;
    struct error error = ERROR_INIT;
    int result = open_catalog(check, location, check->settings->insecure, &error);

    if (result) {
        find(check, verdict_of(result), &error);
        /* Who signed nothing still has a serial. */
        if (result != ERROR_UNTRUSTED || open_catalog(check, location, true, NULL))
            return;
    }
    catalog = archive_catalog(check->archive);
    report->has_catalog = true;
    report->is_signed = archive_signer(check->archive) != NULL;
    report->serial = catalog->serial;
    report->published = catalog->published;
    report->expires = catalog->expires;
}

int mirror_check_open(const struct mirror_check_settings *settings, const char *location,
                      struct mirror_check **check_out, struct error *error)
{
    struct mirror_check *check = calloc(1, sizeof(*check));
    struct mirror_statistics *statistics = calloc(MIRRORS_MAX, sizeof(*statistics));
    int result = check && statistics ? 0 : error_set(error, ERROR_SYSTEM, "no memory to check a mirror");

    if (!result) {
        check->settings = settings;
        result = mirrors_create(settings->client, settings->workers, settings->patience_ms, &check->mirrors, error);
    }
    if (!result)
        result = mirrors_add(check->mirrors, location, error);
    if (!result)
        result = store_open(&(struct store_settings){.mirrors = check->mirrors, .workers = settings->workers},
                            &check->store, error);
    if (result) {
        mirror_check_close(check);
    } else {
        mirrors_statistics(check->mirrors, statistics);
        memcpy(check->report.url, statistics[0].url, sizeof(check->report.url));
        look_at_catalog(check, location);
        *check_out = check;
    }
    free(statistics);
    return result;
}

void mirror_check_close(struct mirror_check *check)
{
    if (!check)
        return;
    if (check->mirrors)
        mirrors_cancel(check->mirrors);
    archive_close(check->archive);
    store_close(check->store);
    mirrors_destroy(check->mirrors);
    free(check);
}

const struct catalog *mirror_check_catalog(const struct mirror_check *check)
{
    return check->archive ? archive_catalog(check->archive) : NULL;
}

void mirror_check_freshness(struct mirror_check *check, uint64_t newest)
{
    struct mirror_report *report = &check->report;
    struct error error = ERROR_INIT;

    if (!report->has_catalog || report->serial >= newest)
        return;
    error_set(&error, ERROR_ROLLED_BACK, "its catalog has serial %llu, another mirror's %llu",
              (unsigned long long)report->serial, (unsigned long long)newest);
    find(check, MIRROR_BEHIND, &error);
}

static int accept_hints(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    hints_finish(user);
    return hints_parse(bytes, size, user, error);
}

bool mirror_check_hints(struct mirror_check *check, const char *name, const char *version, struct hints *hints_out)
{
    char path[ARCHIVE_PATH_MAX];
    int result;

    *hints_out = (struct hints){0};
    result = mirrors_fetch_wait(check->mirrors, &(struct mirrors_request){
        .path = archive_path_hints(name, version, path),
        .size_limit = HINTS_SIZE_MAX,
        .patience_ms = 1,
        .accept = accept_hints,
        .user = hints_out,
    }, NULL);
    if (result)
        hints_finish(hints_out);
    return !result;
}

/* ---- Blocks ---- */

/* Blocks on their way. */
struct sample {
    struct mirror_check *check;
    pthread_mutex_t lock; /* a leaf; over the report while blocks are on their way, and the rest */
    pthread_cond_t done;
    unsigned under_way;
};

/* One more is on its way. False: so many have failed that there is no use in it. */
static bool sample_more(struct sample *sample)
{
    bool more;

    pthread_mutex_lock(&sample->lock);
    more = sample->check->report.failed < FAILED_MAX;
    sample->under_way += more;
    pthread_mutex_unlock(&sample->lock);
    return more;
}

static void block_done(void *user, int code, struct block *block, const struct error *error)
{
    struct sample *sample = user;
    struct mirror_report *report = &sample->check->report;

    block_release(block);
    pthread_mutex_lock(&sample->lock);
    report->checked++;
    report->right += code == 0;
    report->missing += code == ERROR_NOT_FOUND;
    report->wrong += code == ERROR_CORRUPT;
    if (code == ERROR_NOT_FOUND) {
        find(sample->check, MIRROR_INCOMPLETE, error);
    } else if (code == ERROR_CORRUPT) {
        find(sample->check, MIRROR_WRONG, error);
    } else if (code) {
        report->failed++;
        find(sample->check, MIRROR_UNREACHABLE_NOW, error);
    }
    if (--sample->under_way == 0)
        pthread_cond_signal(&sample->done);
    pthread_mutex_unlock(&sample->lock);
}

static void wait_for_blocks(struct sample *sample)
{
    pthread_mutex_lock(&sample->lock);
    while (sample->under_way)
        pthread_cond_wait(&sample->done, &sample->lock);
    pthread_mutex_unlock(&sample->lock);
}

static uint64_t random_below(uint64_t limit)
{
    uint64_t value = 0;

    if (getrandom(&value, sizeof(value), 0) != sizeof(value))
        value = clock_us();
    return value % limit;
}

/* A random block that holds something. ERROR_NOT_FOUND: there is none. */
static int pick(struct tree *tree, struct digest *digest_out, uint32_t *length_out, struct error *error)
{
    const struct map *map = tree_map(tree);
    uint64_t count = map->block_count, block = count;
    int result = 0;

    if (count)
        result = tree_next_data(tree, random_below(count), count, &block, error);
    if (!result && count && block == count)
        result = tree_next_data(tree, 0, count, &block, error);
    if (!result && block == count)
        result = error_set(error, ERROR_NOT_FOUND, "the image holds nothing");
    if (result)
        return result;
    *length_out = map_block_length(map, block);
    return tree_lookup(tree, block, 1, PRIORITY_READER, digest_out, error);
}

static struct mirror_statistics statistics_of(const struct mirror_check *check)
{
    struct mirror_statistics statistics[MIRRORS_MAX];

    mirrors_statistics(check->mirrors, statistics);
    return statistics[0];
}

/* Fetch COUNT random blocks, AT_ONCE or one after the other. False: there is no use in going on. */
static bool fetch_blocks(struct mirror_check *check, struct tree *tree, unsigned count, bool at_once)
{
    struct sample sample = {
        .check = check, .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    struct digest *digests = calloc(count, sizeof(*digests));
    uint32_t *lengths = calloc(count, sizeof(*lengths));
    struct error error = ERROR_INIT;
    int result = digests && lengths ? 0 : error_set(&error, ERROR_SYSTEM, "no memory for the sample");

    /* First the pages of the map, then the blocks: only these are timed. */
    for (unsigned i = 0; i < count && !result; i++)
        result = pick(tree, &digests[i], &lengths[i], &error);
    for (unsigned i = 0; i < count && !result && sample_more(&sample); i++) {
        store_get_async(check->store, &digests[i], lengths[i], at_once ? PRIORITY_READAHEAD : PRIORITY_READER,
                        block_done, &sample);
        if (!at_once)
            wait_for_blocks(&sample);
    }
    wait_for_blocks(&sample);
    if (result && result != ERROR_NOT_FOUND)
        find(check, verdict_of(result), &error);
    free(digests);
    free(lengths);
    return !result && check->report.failed < FAILED_MAX;
}

void mirror_check_blocks(struct mirror_check *check, const struct digest *image_id, unsigned sample)
{
    struct mirror_report *report = &check->report;
    struct mirror_statistics before, after;
    struct error error = ERROR_INIT;
    struct tree *tree = NULL;
    unsigned alone = sample < ALONE ? sample : ALONE;
    uint64_t start_us;
    int result = tree_open(check->store, image_id, &tree, &error);

    if (result) {
        find(check, result == ERROR_NOT_FOUND ? MIRROR_INCOMPLETE : verdict_of(result), &error);
        return;
    }
    before = after = statistics_of(check);
    if (fetch_blocks(check, tree, alone, false) && sample > alone) {
        before = statistics_of(check);
        start_us = clock_us();
        fetch_blocks(check, tree, sample - alone, true);
        after = statistics_of(check);
        if (after.bytes > before.bytes)
            report->rate = (uint64_t)((double)(after.bytes - before.bytes) * 1e6 /
                                      (double)(clock_us() - start_us + 1));
    } else {
        after = statistics_of(check);
    }
    report->first_byte_us = after.first_byte_us;
    tree_close(tree);
}

const struct mirror_report *mirror_check_report(const struct mirror_check *check)
{
    return &check->report;
}
