/*
 * Finding an archive's catalog: see catalog_search.h.
 *
 * Catalog and signature are two files, fetched at the same time. A publisher may
 * replace them in between, a mirror may lag behind or lie, so what arrives is
 * kept as candidates, and every catalog is tried with every signature.
 */
#include "image/catalog_search.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/latch.h"
#include "format/foreign.h"
#include "image/serial.h"

#define ROUNDS_MAX     5
#define CANDIDATES_MAX (MIRRORS_MAX + ROUNDS_MAX)

#define PATIENCE_DEFAULT_MS 5000

/* Nothing in BYTES is looked at before a signature was found that proves them, unless the caller is insecure. */
struct candidate {
    struct buffer bytes;
    bool verified;
    struct public_key signer;
    size_t signature;   /* the one that proves it */
    bool is_read;       /* CATALOG and FAULT are set */
    struct catalog catalog;
    struct error fault; /* malformed, expired or rolled back; code 0: none of them */
};

struct catalog_search {
    const struct archive_settings *settings;
    const struct signed_catalog *seen;
    bool keep_expired; /* of the cache */

    pthread_mutex_t lock; /* all below; answers come on different threads. A leaf */
    bool choosy;          /* there are several mirrors: refuse what is of no use, so that the next one is asked */
    bool strict;          /* refuse all that does not complete a good pair */
    struct candidate catalogs[CANDIDATES_MAX];
    size_t catalog_count;
    struct buffer signatures[CANDIDATES_MAX];
    size_t signature_count;
    struct error bad_signature; /* why the last pair was none */
};

void signed_catalog_finish(struct signed_catalog *catalog)
{
    catalog_finish(&catalog->catalog);
    buffer_finish(&catalog->bytes);
    buffer_finish(&catalog->signature);
}

static void search_init(struct catalog_search *search, const struct archive_settings *settings,
                        const struct signed_catalog *seen)
{
    *search = (struct catalog_search){.settings = settings, .seen = seen};
    pthread_mutex_init(&search->lock, NULL);
}

static void search_finish(struct catalog_search *search)
{
    for (size_t i = 0; i < search->catalog_count; i++) {
        catalog_finish(&search->catalogs[i].catalog);
        buffer_finish(&search->catalogs[i].bytes);
    }
    for (size_t i = 0; i < search->signature_count; i++)
        buffer_finish(&search->signatures[i]);
    pthread_mutex_destroy(&search->lock);
}

/* Set the error of a catalog that must not be used though it may be signed. */
static void check_policy(const struct catalog_search *search, const struct catalog *catalog, struct error *error)
{
    char published[TIME_TEXT], expires[TIME_TEXT];
    const struct catalog *seen = search->seen ? &search->seen->catalog : NULL;
    uint64_t highest;

    time_format(catalog->published, published);
    time_format(catalog->expires, expires);
    if (serial_read(search->settings->state_fd, catalog->archive, &highest, error))
        return;
    if (seen && !strcmp(seen->archive, catalog->archive))
        highest = max_u64(highest, seen->serial);
    if (catalog->serial < highest)
        error_set(error, ERROR_ROLLED_BACK, "the catalog is older than one seen before: it has serial %" PRIu64
                  " of %s, and serial %" PRIu64 " was seen", catalog->serial, published, highest);
    else if (!search->keep_expired && catalog->expires <= clock_wall())
        error_set(error, ERROR_EXPIRED, "the catalog (serial %" PRIu64 " of %s) expired at %s; its publisher has "
                  "to renew it", catalog->serial, published, expires);
}

static void read_candidate(struct catalog_search *search, struct candidate *catalog)
{
    if (catalog->is_read)
        return;
    catalog->is_read = true;
    if (!catalog_parse(catalog->bytes.bytes, catalog->bytes.size, &catalog->catalog, &catalog->fault))
        check_policy(search, &catalog->catalog, &catalog->fault);
}

/* Try one catalog with one signature. */
static void pair(struct catalog_search *search, struct candidate *catalog, size_t signature)
{
    const struct buffer *text = &search->signatures[signature];

    if (catalog->verified ||
        signature_verify((const char *)text->bytes, text->size, catalog->bytes.bytes, catalog->bytes.size,
                         &search->settings->trusted, &catalog->signer, NULL, &search->bad_signature))
        return;
    catalog->verified = true;
    catalog->signature = signature;
    read_candidate(search, catalog);
}

static bool is_good(const struct candidate *catalog)
{
    return catalog->is_read && !catalog->fault.code;
}

/* The best of the candidates; NULL: none is good. */
static struct candidate *best(struct catalog_search *search)
{
    struct candidate *found = NULL;

    for (size_t i = 0; i < search->catalog_count; i++) {
        struct candidate *catalog = &search->catalogs[i];

        if (is_good(catalog) &&
            (!found || (catalog->verified && !found->verified) ||
             (catalog->verified == found->verified && catalog->catalog.serial > found->catalog.serial)))
            found = catalog;
    }
    return found;
}

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_SYSTEM, "no memory for a catalog");
}

static bool has_bytes(const struct buffer *buffer, const uint8_t *bytes, size_t size)
{
    return buffer->size == size && (size == 0 || !memcmp(buffer->bytes, bytes, size));
}

/* A new candidate with a copy of BYTES, or one that has the same bytes. NULL: too many, or no memory. */
static struct candidate *keep_catalog(struct catalog_search *search, const uint8_t *bytes, size_t size)
{
    struct candidate *catalog;

    for (size_t i = 0; i < search->catalog_count; i++) {
        catalog = &search->catalogs[i];
        if (has_bytes(&catalog->bytes, bytes, size))
            return catalog;
    }
    if (search->catalog_count == CANDIDATES_MAX)
        return NULL;
    catalog = &search->catalogs[search->catalog_count];
    *catalog = (struct candidate){0};
    if (!buffer_append(&catalog->bytes, bytes, size))
        return NULL;
    search->catalog_count++;
    return catalog;
}

static int take_catalog(struct catalog_search *search, const uint8_t *bytes, size_t size, struct error *error)
{
    struct candidate *catalog = keep_catalog(search, bytes, size);

    if (!catalog)
        return no_memory(error);
    for (size_t i = 0; i < search->signature_count; i++)
        pair(search, catalog, i);
    if (search->settings->insecure)
        read_candidate(search, catalog);
    if (catalog->fault.code)
        return error_copy(error, &catalog->fault);
    if (search->strict && !is_good(catalog))
        return error_copy(error, &search->bad_signature);
    return 0;
}

/* Keep a copy of a signature file; one that is there already is not kept twice. False: too many, or no memory. */
static bool keep_signature(struct catalog_search *search, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < search->signature_count; i++)
        if (has_bytes(&search->signatures[i], bytes, size))
            return true;
    if (search->signature_count == CANDIDATES_MAX ||
        !buffer_append(&search->signatures[search->signature_count], bytes, size))
        return false;
    search->signature_count++;
    for (size_t i = 0; i < search->catalog_count; i++)
        pair(search, &search->catalogs[i], search->signature_count - 1);
    return true;
}

static int take_signature(struct catalog_search *search, const uint8_t *bytes, size_t size, struct error *error)
{
    bool any = false;

    /* Over nothing: tells whether it is a signature file at all. */
    if (signature_verify((const char *)bytes, size, "", 0, &search->settings->trusted, NULL, NULL, error) ==
        ERROR_CORRUPT)
        return error_copy(&search->bad_signature, error);
    if (!keep_signature(search, bytes, size))
        return no_memory(error);
    for (size_t i = 0; i < search->catalog_count; i++)
        any |= is_good(&search->catalogs[i]);
    /* It is the catalog's mirror that may be wrong; when catalogs are asked for, that one is found out. */
    if (search->strict && !any)
        return error_set(error, ERROR_NOT_FOUND, "it proves no catalog that was found");
    return 0;
}

/* Not even the lone mirror's: then there was no answer, which is another thing than a bad one. */
static int refuse_mistake(const uint8_t *bytes, size_t size, struct error *error)
{
    const char *mistake = foreign_mistake(bytes, size);

    return mistake ? error_set(error, ERROR_CORRUPT, "%s", mistake) : 0;
}

static int accept_catalog(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct catalog_search *search = user;
    int result = refuse_mistake(bytes, size, error);

    if (result)
        return result;
    pthread_mutex_lock(&search->lock);
    result = take_catalog(search, bytes, size, error);
    pthread_mutex_unlock(&search->lock);
    return search->choosy ? result : 0;
}

static int accept_signature(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct catalog_search *search = user;
    int result = refuse_mistake(bytes, size, error);

    if (result)
        return result;
    pthread_mutex_lock(&search->lock);
    result = take_signature(search, bytes, size, error);
    pthread_mutex_unlock(&search->lock);
    return search->choosy ? result : 0;
}

/* A fetch of one of the two files. */
struct fetch {
    struct catalog_search *search;
    bool signature;
    struct latch latch;
    struct error error; /* code 0: it came */
};

static int fetch_accept(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct fetch *fetch = user;

    return (fetch->signature ? accept_signature : accept_catalog)(fetch->search, bytes, size, error);
}

static void fetch_done(void *user, int code, const struct error *error)
{
    latch_set(&((struct fetch *)user)->latch, code, error);
}

/* A lone folder does not get better by waiting. */
static unsigned patience_of(const struct catalog_search *search)
{
    const struct archive_settings *settings = search->settings;

    if (!search->choosy && location_folder(settings->location))
        return 1;
    return settings->patience_ms ? settings->patience_ms : PATIENCE_DEFAULT_MS;
}

static void fetch_begin(struct fetch *fetch, struct catalog_search *search, bool signature, bool fresh)
{
    const struct mirrors_request request = {
        .path = signature ? ARCHIVE_CATALOG SIGNATURE_SUFFIX : ARCHIVE_CATALOG,
        .size_limit = signature ? SIGNATURE_FILE_MAX : CATALOG_SIZE_MAX,
        .priority = PRIORITY_READER,
        .fresh = fresh,
        .patience_ms = patience_of(search),
        .accept = fetch_accept,
        .done = fetch_done,
        .user = fetch,
    };

    *fetch = (struct fetch){.search = search, .signature = signature};
    latch_init(&fetch->latch);
    mirrors_fetch(store_mirrors(search->settings->store), &request);
}

static void fetch_end(struct fetch *fetch)
{
    latch_wait(&fetch->latch, &fetch->error);
    latch_finish(&fetch->latch);
}

/*
 * With several mirrors, catalog and signature may have come from different ones. Ask each for its signature until
 * one proves a catalog, then each for its catalog until one is proved.
 */
static void search_strictly(struct catalog_search *search)
{
    struct fetch fetch;

    search->strict = true;
    for (int i = 0; i < 2 && !best(search); i++) {
        fetch_begin(&fetch, search, i == 0, true);
        fetch_end(&fetch);
    }
    search->strict = false;
}

/* What is wrong, when no candidate is good. CATALOG and SIGNATURE: how the two were last got, code 0: they were. */
static int explain(const struct catalog_search *search, const struct error *catalog, const struct error *signature,
                   struct error *error)
{
    for (size_t i = 0; i < search->catalog_count; i++)
        if (search->catalogs[i].fault.code)
            return error_copy(error, &search->catalogs[i].fault);
    if (catalog->code == ERROR_NOT_FOUND)
        return error_set(error, ERROR_NOT_FOUND, "there is no archive: %s", catalog->message);
    if (catalog->code && catalog->code != ERROR_CORRUPT)
        return error_copy(error, catalog);
    if (!search->catalog_count)
        return error_copy(error, catalog);
    if (signature->code == ERROR_NOT_FOUND)
        return error_set(error, ERROR_UNTRUSTED, "the catalog is not signed: there is no " ARCHIVE_CATALOG
                         SIGNATURE_SUFFIX);
    if (signature->code && signature->code != ERROR_CORRUPT)
        return error_copy(error, signature);
    return error_set(error, ERROR_UNTRUSTED, ARCHIVE_CATALOG SIGNATURE_SUFFIX ": %s",
                     search->bad_signature.message);
}

static bool is_proved(const struct catalog_search *search)
{
    for (size_t i = 0; i < search->catalog_count; i++)
        if (search->catalogs[i].verified)
            return true;
    return false;
}

/*
 * One try of everything. Returns true if another may help: the files are there but do not match, or they came out of
 * some cache on the way and are too old.
 */
static bool search_round(struct catalog_search *search, bool fresh, struct fetch *catalog, struct fetch *signature)
{
    fetch_begin(catalog, search, false, fresh);
    fetch_begin(signature, search, true, fresh);
    fetch_end(catalog);
    fetch_end(signature);
    if (best(search) || catalog->error.code ||
        (signature->error.code && signature->error.code != ERROR_CORRUPT))
        return false;
    if (search->choosy)
        search_strictly(search);
    return !best(search) && !(fresh && is_proved(search));
}

/* Hand over the candidate FOUND. */
static int copy_out(struct catalog_search *search, struct candidate *found, struct signed_catalog *catalog_out)
{
    *catalog_out = (struct signed_catalog){
        .bytes = found->bytes,
        .catalog = found->catalog,
        .verified = found->verified,
        .signer = found->signer,
    };
    if (found->verified) {
        catalog_out->signature = search->signatures[found->signature];
        search->signatures[found->signature] = (struct buffer){0};
    }
    found->bytes = (struct buffer){0};
    found->catalog = (struct catalog){0};
    return 0;
}

int catalog_fetch(const struct archive_settings *settings, const struct signed_catalog *seen,
                  struct signed_catalog *catalog_out, struct error *error)
{
    cleanup(search_finish) struct catalog_search search;
    struct fetch catalog, signature;
    unsigned round = 0;

    search_init(&search, settings, seen);
    search.choosy = mirrors_count(store_mirrors(settings->store)) > 1;
    while (search_round(&search, round > 0, &catalog, &signature) && ++round < ROUNDS_MAX)
        clock_sleep_ms(25u << round);
    if (best(&search))
        return copy_out(&search, best(&search), catalog_out);
    return explain(&search, &catalog.error, &signature.error, error);
}

static void read_cached(const struct archive_settings *settings, const char *path, size_t limit,
                        int (*accept)(void *user, const uint8_t *bytes, size_t size, struct error *error),
                        struct catalog_search *search, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};

    *error = ERROR_INIT;
    if (!cache_read_metadata(store_cache(settings->store), settings->location, path, limit, &bytes, error))
        accept(search, bytes.bytes, bytes.size, error);
}

int catalog_read_cached(const struct archive_settings *settings, struct signed_catalog *catalog_out,
                        struct error *error)
{
    cleanup(search_finish) struct catalog_search search;
    struct error catalog = ERROR_INIT, signature = ERROR_INIT;

    search_init(&search, settings, NULL);
    search.keep_expired = true;
    if (!store_cache(settings->store))
        return error_set(error, ERROR_NOT_FOUND, "there is no cache");
    /* Another process may be replacing both: once more if they do not match. */
    for (int i = 0; i < 3 && !best(&search) && !catalog.code; i++) {
        read_cached(settings, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, accept_catalog, &search, &catalog);
        read_cached(settings, ARCHIVE_CATALOG SIGNATURE_SUFFIX, SIGNATURE_FILE_MAX, accept_signature, &search,
                    &signature);
    }
    if (best(&search))
        return copy_out(&search, best(&search), catalog_out);
    return explain(&search, &catalog, &signature, error);
}

void catalog_write_cached(const struct archive_settings *settings, const struct signed_catalog *catalog,
                          const struct signed_catalog *seen)
{
    struct cache *cache = store_cache(settings->store);
    cleanup(buffer_finish) struct buffer both = {0};
    const char *path = ARCHIVE_CATALOG SIGNATURE_SUFFIX;

    if (!cache || (seen && (!catalog->verified ||
                            has_bytes(&seen->bytes, catalog->bytes.bytes, catalog->bytes.size))))
        return;
    /* A signature file may hold several: with both of them, either catalog beside it is good. */
    if (catalog->verified && seen && catalog->signature.size + seen->signature.size <= SIGNATURE_FILE_MAX &&
        buffer_append(&both, catalog->signature.bytes, catalog->signature.size) &&
        (both.bytes[both.size - 1] == '\n' || buffer_append(&both, "\n", 1)) &&
        buffer_append(&both, seen->signature.bytes, seen->signature.size))
        cache_write_metadata(cache, settings->location, path, both.bytes, both.size);
    cache_write_metadata(cache, settings->location, ARCHIVE_CATALOG, catalog->bytes.bytes, catalog->bytes.size);
    if (catalog->verified)
        cache_write_metadata(cache, settings->location, path, catalog->signature.bytes, catalog->signature.size);
}
