/*
 * The manifest: what a publisher says of one version. circular-manifest(5).
 * images/NAME/VERSION.json, signed, immutable; its digest is in the catalog, so
 * that a client which has verified the catalog needs no second signature.
 *
 *   { "format": "circular-manifest-1",
 *     "name": "debian12", "version": "20261121",
 *     "published": "2026-11-21T08:30:00Z",
 *     "architecture": "amd64",                      optional
 *     "description": "Debian 12 with ...",          optional
 *     "disks": [ { "image": "<image id>", "disk_size": 3221225472, "block_size": 65536,
 *                  "data_size": 798752768, "stored_size": 245366784 } ] }
 *
 * At least one disk; the first is the one that mount and boot use. Members for
 * boot instructions and packages are added by later formats; unknown members are ignored.
 */
#ifndef FORMAT_MANIFEST_H
#define FORMAT_MANIFEST_H

#include "format/name.h"

#define MANIFEST_SIZE_MAX (4 * 1024 * 1024)
#define MANIFEST_DISKS_MAX 16
#define MANIFEST_TEXT_MAX 1024

struct manifest_disk {
    struct digest image;
    uint64_t disk_size;
    uint32_t block_size;
    uint64_t data_size;
    uint64_t stored_size;
};

struct manifest {
    char name[NAME_MAX_LENGTH + 1];
    char version[NAME_MAX_LENGTH + 1];
    int64_t published;
    char architecture[33];
    char description[MANIFEST_TEXT_MAX + 1];
    struct manifest_disk disks[MANIFEST_DISKS_MAX];
    size_t disk_count;
};

int manifest_parse(const void *bytes, size_t size, struct manifest *manifest_out, struct error *error);
char *manifest_format(const struct manifest *manifest); /* heap; NULL: no memory */

#endif
