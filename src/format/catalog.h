/*
 * The catalog: the signed, numbered, expiring list of an archive's versions.
 * circular-catalog(5). JSON (RFC 8259), UTF-8, at most CATALOG_SIZE_MAX bytes:
 *
 *   { "format": "circular-catalog-1",
 *     "archive": "<32 hex digits, random, made with the archive>",
 *     "serial": 7,                          rises by at least 1 with each catalog
 *     "published": "2026-11-21T08:30:00Z",
 *     "expires": "2027-02-19T08:30:00Z",
 *     "versions": [                         in the order of publication; the last of a name is its newest
 *       { "name": "debian12", "version": "20261121",
 *         "manifest": "<sha-256 of the manifest's bytes>",
 *         "image": "<image id of the first disk>",
 *         "disk_size": 3221225472, "block_size": 65536, "data_size": 798752768, "stored_size": 245366784,
 *         "published": "2026-11-21T08:30:00Z" } ] }
 *
 * Unknown members are ignored, so that a later version can add some. A member
 * that occurs twice makes the whole invalid.
 */
#ifndef FORMAT_CATALOG_H
#define FORMAT_CATALOG_H

#include "format/name.h"

#define CATALOG_SIZE_MAX (16 * 1024 * 1024)
#define ARCHIVE_ID_TEXT 33

struct catalog_version {
    char name[NAME_MAX_LENGTH + 1];
    char version[NAME_MAX_LENGTH + 1];
    struct digest manifest;
    struct digest image;
    uint64_t disk_size;
    uint32_t block_size;
    uint64_t data_size;   /* bytes of its non-zero blocks, uncompressed */
    uint64_t stored_size; /* bytes of the block files that it needs, each counted once */
    int64_t published;
};

struct catalog {
    char archive[ARCHIVE_ID_TEXT];
    uint64_t serial;
    int64_t published;
    int64_t expires;
    struct catalog_version *versions;
    size_t version_count;
};

/* ERROR_CORRUPT with the member that is wrong. The catalog is owned by the caller: catalog_finish. */
int catalog_parse(const void *bytes, size_t size, struct catalog *catalog_out, struct error *error);
/* Canonical JSON text, with a final newline. Heap; NULL: no memory. */
char *catalog_format(const struct catalog *catalog);
void catalog_finish(struct catalog *catalog);

/* A random id for a new archive. */
void catalog_make_id(char id[ARCHIVE_ID_TEXT]);

/* The entry of NAME and VERSION; VERSION "" or NULL: the newest of that name. NULL: none. */
const struct catalog_version *catalog_find(const struct catalog *catalog, const char *name, const char *version);
/* Append, or ERROR_EXISTS / ERROR_SYSTEM. */
int catalog_add(struct catalog *catalog, const struct catalog_version *version, struct error *error);
/* Remove one version. ERROR_NOT_FOUND. */
int catalog_remove(struct catalog *catalog, const char *name, const char *version, struct error *error);

#endif
