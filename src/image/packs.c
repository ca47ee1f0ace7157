/*
 * Packs of an image: see packs.h. Hints first, unless they are known, then all tables side by side; whoever waits, does
 * so for both.
 */
#include "image/packs.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "format/map.h"

/* A table, on its way or there. */
struct known {
    struct packs *packs;
    struct digest name;
    uint64_t size; /* of the pack, as the hints have it */
    struct pack pack;
};

struct packs {
    struct store *store;
    struct digest image;
    uint64_t tables_max; /* bytes of them that are of use */
    struct hints hints;  /* asked for; empty if they were known */
    struct known *known;
    struct pack *usable; /* copies of those in KNOWN that can be used */
    size_t known_count, usable_count;

    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t changed;
    unsigned under_way;
};

static void begin_request(struct packs *packs)
{
    pthread_mutex_lock(&packs->lock);
    packs->under_way++;
    pthread_mutex_unlock(&packs->lock);
}

static void end_request(struct packs *packs)
{
    pthread_mutex_lock(&packs->lock);
    packs->under_way--;
    pthread_cond_broadcast(&packs->changed);
    pthread_mutex_unlock(&packs->lock);
}

static void wait_for_requests(struct packs *packs)
{
    pthread_mutex_lock(&packs->lock);
    while (packs->under_way)
        pthread_cond_wait(&packs->changed, &packs->lock);
    pthread_mutex_unlock(&packs->lock);
}

/* ---- Tables ---- */

bool pack_table_kept(struct cache *cache, const struct digest *name, uint64_t table_size,
                     struct pack_table *table_out)
{
    cleanup(buffer_finish) struct buffer bytes = {0};

    return cache && table_size <= PACKS_TABLES_MAX && !cache_read_file(cache, name, (size_t)table_size, &bytes, NULL) &&
           !pack_parse_table(bytes.bytes, bytes.size, table_out, NULL);
}

static int accept_table(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct known *known = user;
    struct cache *cache = store_cache(known->packs->store);
    struct error reason = ERROR_INIT;

    (void)error; /* It may be the hints that are wrong about the table's size. */
    if (pack_parse_table_of(&known->name, bytes, size, &known->pack.table, &reason))
        log_info("%s: not used: %s", known->pack.path, reason.message);
    else if (cache)
        cache_write_file(cache, &known->name, bytes, size);
    return 0;
}

static void table_done(void *user, int code, const struct error *error)
{
    struct known *known = user;

    if (code && code != ERROR_CANCELLED)
        log_info("%s: not used: %s", known->pack.path, error->message);
    end_request(known->packs);
}

/* Get the table of PACK: from the cache, or ask for it. */
static void get_table(struct packs *packs, const struct hints_pack *pack)
{
    struct known *known = &packs->known[packs->known_count++];

    known->packs = packs;
    known->name = pack->table;
    known->size = pack->size;
    archive_path_pack(&pack->table, known->pack.path);
    if (pack_table_kept(store_cache(packs->store), &pack->table, pack->table_size, &known->pack.table))
        return;
    begin_request(packs);
    mirrors_fetch(store_mirrors(packs->store), &(struct mirrors_request){
        .path = known->pack.path,
        .length = pack->table_size,
        .size_limit = (size_t)pack->table_size,
        .priority = PRIORITY_PROFILE,
        .patience_ms = 1,
        .accept = accept_table,
        .done = table_done,
        .user = known,
    });
}

/* ---- Hints ---- */

static void get_tables(struct packs *packs, const struct hints *hints)
{
    uint64_t left = packs->tables_max;

    if (hints->pack_count && digest_equal(&hints->image, &packs->image))
        packs->known = calloc(hints->pack_count, sizeof(*packs->known));
    for (size_t i = 0; packs->known && i < hints->pack_count; i++) {
        const struct hints_pack *pack = &hints->packs[i];

        if (pack->table_size < PACK_HEADER_SIZE + PACK_ENTRY_SIZE || pack->table_size > left)
            continue;
        left -= pack->table_size;
        get_table(packs, pack);
    }
}

static int accept_hints(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct packs *packs = user;
    struct error reason = ERROR_INIT;

    (void)error; /* Nobody vouched for hints: bad ones are not held against the mirror. */
    hints_finish(&packs->hints);
    if (hints_parse(bytes, size, &packs->hints, &reason))
        log_info("hints are not used: %s", reason.message);
    return 0;
}

static void hints_done(void *user, int code, const struct error *error)
{
    struct packs *packs = user;

    if (code)
        hints_finish(&packs->hints);
    else
        get_tables(packs, &packs->hints);
    if (code && code != ERROR_NOT_FOUND && code != ERROR_CANCELLED)
        log_info("no hints: %s", error->message);
    end_request(packs);
}

static struct packs *create(struct store *store, const struct digest *image, uint64_t data_size, uint64_t tables_max)
{
    struct packs *packs = store_mirrors(store) ? calloc(1, sizeof(*packs)) : NULL;

    if (!packs)
        return NULL;
    packs->store = store;
    packs->image = *image;
    /* Each block is in one pack at most, if the hints are any good, and no block is smaller than 4 KiB. */
    packs->tables_max = min_u64(tables_max, data_size / BLOCK_SIZE_MIN * PACK_ENTRY_SIZE + MIB);
    pthread_mutex_init(&packs->lock, NULL);
    pthread_cond_init(&packs->changed, NULL);
    return packs;
}

struct packs *packs_begin(struct store *store, const char *name, const char *version, const struct digest *image,
                          uint64_t data_size)
{
    struct packs *packs = create(store, image, data_size, PACKS_TABLES_MAX);
    char path[ARCHIVE_PATH_MAX];

    if (!packs)
        return NULL;
    begin_request(packs);
    mirrors_fetch(store_mirrors(store), &(struct mirrors_request){
        .path = archive_path_hints(name, version, path),
        .size_limit = HINTS_SIZE_MAX,
        .priority = PRIORITY_PROFILE,
        .patience_ms = 1, /* one pass: they are only hints */
        .accept = accept_hints,
        .done = hints_done,
        .user = packs,
    });
    return packs;
}

struct packs *packs_begin_hinted(struct store *store, const struct hints *hints, const struct digest *image,
                                 uint64_t data_size, uint64_t tables_max)
{
    struct packs *packs = create(store, image, data_size, tables_max);

    if (packs)
        get_tables(packs, hints);
    return packs;
}

/* ---- For who uses them ---- */

static void choose_usable(struct packs *packs)
{
    packs->usable = calloc(packs->known_count + 1, sizeof(*packs->usable));
    for (size_t i = 0; packs->usable && i < packs->known_count; i++) {
        const struct known *known = &packs->known[i];

        if (known->pack.table.count && known->pack.table.file_size == known->size)
            packs->usable[packs->usable_count++] = known->pack;
    }
}

size_t packs_wait(struct packs *packs, const struct pack **packs_out)
{
    wait_for_requests(packs);
    if (!packs->usable)
        choose_usable(packs);
    *packs_out = packs->usable;
    return packs->usable_count;
}

void packs_end(struct packs *packs)
{
    if (!packs)
        return;
    wait_for_requests(packs);
    for (size_t i = 0; i < packs->known_count; i++)
        pack_table_finish(&packs->known[i].pack.table);
    free(packs->known);
    free(packs->usable);
    hints_finish(&packs->hints);
    pthread_cond_destroy(&packs->changed);
    pthread_mutex_destroy(&packs->lock);
    free(packs);
}

/* ---- Runs ---- */

size_t pack_plan(const struct pack_table *table, const bool *wanted, struct pack_run **runs_out)
{
    struct pack_run *runs = NULL, *grown;
    size_t count = 0, capacity = 0;
    uint64_t end = 0, start = 0, unwanted = 0;

    for (uint32_t e = 0; e < table->count; e++) {
        const struct pack_entry *entry = &table->entries[e];
        uint64_t gap = entry->offset - end;

        if (!wanted[e])
            continue;
        if (count && gap <= PACK_GAP && unwanted + gap <= PACK_GAP + (end - start) / 5) {
            unwanted += gap;
        } else {
            grown = array_grow(runs, count, &capacity, sizeof(*runs));
            if (!grown)
                break; /* the others come one by one */
            runs = grown;
            runs[count++].first = e;
            start = entry->offset;
            unwanted = 0;
        }
        runs[count - 1].limit = e + 1;
        end = entry->offset + entry->frame_size;
    }
    *runs_out = runs;
    return count;
}
