/*
 * Finding an archive's catalog: candidates for it and for its signature come
 * from mirrors and cache, in any order and perhaps from different moments; the
 * search pairs them, and picks the newest that is signed by a trusted key, not
 * expired and not older than one seen before.
 */
#ifndef IMAGE_CATALOG_SEARCH_H
#define IMAGE_CATALOG_SEARCH_H

#include "image/archive.h"

struct catalog_search;

/* A catalog with the signature file that proves it. */
struct signed_catalog {
    struct buffer bytes;
    struct buffer signature; /* empty if not VERIFIED */
    struct catalog catalog;
    bool verified;           /* false: insecure, and not signed by a trusted key */
    struct public_key signer;
};

void signed_catalog_finish(struct signed_catalog *catalog);

/*
 * The catalog that the cache holds of SETTINGS' archive; its signature and serial are checked as of any other, but
 * not its expiry. NOT_FOUND: none.
 */
int catalog_read_cached(const struct archive_settings *settings, struct signed_catalog *catalog_out,
                        struct error *error);

/*
 * Fetch the catalog. SEEN (may be NULL) is the cached one: a catalog with a lower serial than it is refused.
 * UNTRUSTED, ROLLED_BACK, EXPIRED, CORRUPT, NOT_FOUND, UNAVAILABLE.
 */
int catalog_fetch(const struct archive_settings *settings, const struct signed_catalog *seen,
                  struct signed_catalog *catalog_out, struct error *error);

/* Keep it in the cache, in steps of which each leaves a pair that matches. */
void catalog_write_cached(const struct archive_settings *settings, const struct signed_catalog *catalog,
                          const struct signed_catalog *seen);

#endif
