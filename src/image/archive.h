/*
 * An archive as a client sees it: its catalog fetched (or taken from the cache
 * when the network is gone), its signature, serial and expiry checked; from it,
 * manifests and disks.
 */
#ifndef IMAGE_ARCHIVE_H
#define IMAGE_ARCHIVE_H

#include "format/catalog.h"
#include "format/manifest.h"
#include "format/signature.h"
#include "image/disk.h"

struct archive;

struct archive_settings {
    const char *location;          /* the archive's URL or folder, also the key of its cached metadata */
    struct store *store;           /* borrowed, outlives the archive */
    struct trusted_keys trusted;   /* borrowed, outlives the archive */
    int state_fd; /* folder that remembers the highest serial of each archive id; -1: do not remember */
    bool insecure;                 /* accept no or an unknown signature (each time with a warning) */
    bool offline;                  /* do not try the network */
    unsigned patience_ms;          /* how long to try to reach a catalog [5000] */
    bool disk_follows;             /* archive_disk is called next, by the same thread: what is remembered of a new
                                      catalog is written meanwhile, and there when that returns */
};

/*
 * UNTRUSTED, ROLLED_BACK, EXPIRED, CORRUPT, UNAVAILABLE (and not cached), NOT_FOUND (no catalog there, nor, if it is a
 * folder, in the cache).
 * Catalog and signature are fetched at the same time; if they do not match, some times more from the origin (a
 * publisher may have replaced them just then) and from each mirror. A catalog that passes is kept in the cache with
 * its signature. When the archive cannot be reached, the cached one is taken with a warning that gives its date, also
 * when it has expired; any other fault of the network's catalog is an error.
 */
int archive_open(const struct archive_settings *settings, struct archive **archive_out, struct error *error);
void archive_close(struct archive *archive); /* takes NULL */

const struct catalog *archive_catalog(const struct archive *archive);
/* The key that signed the catalog; NULL if insecure. */
const struct public_key *archive_signer(const struct archive *archive);
bool archive_is_offline(const struct archive *archive); /* the catalog came from the cache */
/*
 * Is LOCATION a folder that is not there, or has no catalog? Only who has seen it knows whether it ever was an archive.
 */
bool archive_is_away(const char *location);

/* NOT_FOUND names what exists instead. VERSION "" or NULL: the newest. Borrowed. */
int archive_find(const struct archive *archive, const char *name, const char *version,
                 const struct catalog_version **version_out, struct error *error);

/* Fetch (or take from the cache) the manifest and check it against the catalog. */
int archive_manifest(struct archive *archive, const struct catalog_version *version, struct manifest *manifest_out,
                     struct error *error);

/* Open the first disk of a version: its manifest must agree with the catalog. */
int archive_disk(struct archive *archive, const struct catalog_version *version, struct disk **disk_out,
                 struct error *error);

#endif
