/* Statistics of a session, put together from those of its parts. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "format/name.h"
#include "lib/library.h"

/* Memory of this process that is in use, from /proc/self/statm (proc(5)); 0: not known. */
static uint64_t resident_bytes(void)
{
    cleanup(buffer_finish) struct buffer text = {0};
    unsigned long long pages;

    if (file_read(AT_FDCWD, "/proc/self/statm", 4096, &text, NULL) || !buffer_append(&text, "", 1) ||
        sscanf((const char *)text.bytes, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_process(struct session *session, struct statistics *statistics)
{
    struct http_counts http = {0};

    memset(statistics, 0, sizeof(*statistics));
    statistics->process = (uint64_t)getpid();
    statistics->uptime_ms = session_age_ms(session);
    statistics->resident_bytes = resident_bytes();
    if (session_http(session))
        http_client_count(session_http(session), &http);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        statistics->classes[i] = (struct statistics_class){http.requests[i], http.bytes[i]};
}

static void add_counts(struct session *session, struct statistics *statistics)
{
    struct store_statistics store;

    store_count(session_store(session), &store);
    statistics->reads = store.reads;
    statistics->read_bytes = store.read_bytes;
    statistics->memory_hits = store.memory_hits[PRIORITY_READER];
    statistics->cache_hits = store.cache_hits[PRIORITY_READER];
    statistics->misses = store.misses;
    statistics->failed = store.failed;
    statistics->cache_corrupt = store.cache_corrupt;
    statistics->fetched_blocks = store.fetched_blocks;
    statistics->fetched_bytes = store.fetched_bytes;
    statistics->held_bytes = store.held_bytes;
    statistics->wait_us = store.wait_us;
    memcpy(statistics->waits, store.waits, sizeof(statistics->waits));
}

static void add_mirrors(struct mirrors *mirrors, struct statistics *statistics)
{
    struct mirror_statistics *all = calloc(MIRRORS_MAX, sizeof(*all));

    _Static_assert(MIRRORS_MAX <= STATISTICS_MIRRORS, "all mirrors have a place");
    statistics->mirror_count = all ? mirrors_statistics(mirrors, all) : 0;
    for (size_t i = 0; i < statistics->mirror_count; i++) {
        const struct mirror_statistics *from = &all[i];
        struct statistics_mirror *to = &statistics->mirrors[i];

        *to = (struct statistics_mirror){
            .requests = from->requests,
            .bytes = from->bytes,
            .errors = from->errors,
            .missing = from->missing,
            .bad_blocks = from->bad_blocks,
            .hedges = from->hedges,
            .hedges_won = from->hedges_won,
            .first_byte_us = from->first_byte_us,
            .slow_us = from->slow_us,
            .rate = from->rate,
        };
        snprintf(to->mirror, sizeof(to->mirror), "%s", from->url);
        snprintf(to->state, sizeof(to->state), "%s", mirror_state_name(from->state));
        snprintf(to->reason, sizeof(to->reason), "%s", from->reason);
    }
    free(all);
}

/* The places of the longest waits; when all are taken, one that waits shorter gives way. NULL: none. */
static struct statistics_wait *take_place(struct statistics *statistics, uint64_t age_ms)
{
    struct statistics_wait *shortest = &statistics->waiting[0];

    if (statistics->waiting_count < STATISTICS_WAITING)
        return &statistics->waiting[statistics->waiting_count++];
    for (size_t i = 1; i < STATISTICS_WAITING; i++)
        if (statistics->waiting[i].age_ms < shortest->age_ms)
            shortest = &statistics->waiting[i];
    return shortest->age_ms < age_ms ? shortest : NULL;
}

static void add_block(void *user, const struct store_wait *wait)
{
    struct statistics_wait *place = take_place(user, wait->age_us / 1000);
    char path[ARCHIVE_PATH_MAX];

    if (!place)
        return;
    *place = (struct statistics_wait){.readers = wait->readers, .age_ms = wait->age_us / 1000};
    snprintf(place->what, sizeof(place->what), "%s", archive_path_block(wait->digest, path));
    if (wait->streamed)
        snprintf(place->reason, sizeof(place->reason), "a stream of the boot pack is to bring it");
}

static void add_place(struct statistics_wait *place, const struct mirrors_wait *wait)
{
    snprintf(place->mirror, sizeof(place->mirror), "%s", wait->mirror ? wait->mirror : "");
    snprintf(place->reason, sizeof(place->reason), "%s", wait->reason);
}

/* Where a block that is waited for is asked for; and what else readers wait for: pages of the map. */
static void add_request(void *user, const struct mirrors_wait *wait)
{
    struct statistics *statistics = user;
    struct statistics_wait *place;

    for (size_t i = 0; i < statistics->waiting_count; i++)
        if (!strcmp(statistics->waiting[i].what, wait->path)) {
            add_place(&statistics->waiting[i], wait);
            return;
        }
    if (wait->priority != PRIORITY_READER || !strncmp(wait->path, "blocks/", 7))
        return;
    place = take_place(statistics, wait->age_ms);
    if (!place)
        return;
    *place = (struct statistics_wait){.readers = 1, .age_ms = wait->age_ms};
    snprintf(place->what, sizeof(place->what), "%s", wait->path);
    add_place(place, wait);
}

static int longest_first(const void *a, const void *b)
{
    const struct statistics_wait *x = a, *y = b;

    return x->age_ms < y->age_ms ? 1 : x->age_ms > y->age_ms ? -1 : strcmp(x->what, y->what);
}

void library_statistics(struct circular_archive *archive, struct statistics *statistics_out)
{
    struct session *session = library_session(archive);
    struct mirrors *mirrors = store_mirrors(session_store(session));

    add_process(session, statistics_out);
    add_counts(session, statistics_out);
    store_each_waiting(session_store(session), add_block, statistics_out);
    if (mirrors) {
        add_mirrors(mirrors, statistics_out);
        mirrors_each_under_way(mirrors, add_request, statistics_out);
    }
    qsort(statistics_out->waiting, statistics_out->waiting_count, sizeof(statistics_out->waiting[0]), longest_first);
}

/* ---- Plain files ---- */

static void add_plain(const struct plain_statistics *plain, struct statistics *statistics)
{
    statistics->reads = plain->reads;
    statistics->read_bytes = plain->read_bytes;
    statistics->memory_hits = plain->memory_hits;
    statistics->cache_hits = plain->kept_hits;
    statistics->misses = plain->misses;
    statistics->failed = plain->failed;
    statistics->cache_corrupt = plain->damaged;
    statistics->fetched_blocks = plain->fetched;
    statistics->fetched_bytes = plain->fetched_bytes;
    statistics->held_bytes = plain->held_bytes;
    statistics->wait_us = plain->wait_us;
    memcpy(statistics->waits, plain->waits, sizeof(statistics->waits));
}

static void add_server(const struct plain *plain, const struct plain_statistics *counts, struct statistics *statistics)
{
    struct statistics_mirror *server = &statistics->mirrors[0];

    statistics->mirror_count = 1;
    snprintf(server->mirror, sizeof(server->mirror), "%s", plain_shown(plain));
    snprintf(server->state, sizeof(server->state), "%s",
             mirror_state_name(counts->answers ? MIRROR_IN_USE : MIRROR_UNREACHABLE));
    snprintf(server->reason, sizeof(server->reason), "%s", counts->reason);
    server->errors = counts->errors;
    for (int i = 0; i < PRIORITY_COUNT; i++) {
        server->requests += statistics->classes[i].requests;
        server->bytes += statistics->classes[i].bytes;
    }
}

static void add_slice(void *user, const struct plain_wait *wait)
{
    struct statistics *statistics = user;
    struct statistics_wait *place = take_place(statistics, wait->age_us / 1000);

    if (!place)
        return;
    *place = (struct statistics_wait){.readers = wait->readers, .age_ms = wait->age_us / 1000};
    snprintf(place->what, sizeof(place->what), "bytes %llu-%llu", (unsigned long long)wait->offset,
             (unsigned long long)(wait->offset + wait->size - 1));
    snprintf(place->mirror, sizeof(place->mirror), "%.255s", statistics->mirrors[0].mirror);
    snprintf(place->reason, sizeof(place->reason), "%s", statistics->mirrors[0].reason);
}

void library_plain_statistics(struct circular_disk *disk, struct statistics *statistics_out)
{
    struct session *session;
    struct plain *plain = library_plain(disk, &session);
    struct plain_statistics counts;

    plain_count(plain, &counts);
    add_process(session, statistics_out);
    add_plain(&counts, statistics_out);
    add_server(plain, &counts, statistics_out);
    plain_each_waiting(plain, add_slice, statistics_out);
    qsort(statistics_out->waiting, statistics_out->waiting_count, sizeof(statistics_out->waiting[0]), longest_first);
}
