/*
 * Publishing: an image's bytes into an archive folder. Blocks first, then map,
 * manifest and signatures, last and atomically the catalog. A reader sees the
 * old catalog or the new one; a killed publisher leaves only files that nobody
 * refers to.
 */
#ifndef IMAGE_PUBLISH_H
#define IMAGE_PUBLISH_H

#include "base/progress.h"
#include "format/catalog.h"
#include "format/manifest.h"
#include "format/signature.h"

struct publish_settings {
    const char *archive;       /* folder; made if it does not exist */
    const char *name;
    const char *version;
    const char *architecture;  /* may be NULL */
    const char *description;   /* may be NULL */
    uint32_t block_size;       /* 0: 64 KiB */
    int level;                 /* 0: 3, and 15 for the first 128 MiB that an update adds */
    unsigned job_count;        /* 0: one a processor */
    const struct secret_key *key;
    uint64_t lifetime_s;       /* until the catalog expires; 0: 90 days */
    const struct progress *progress; /* may be NULL */
};

struct publish_result {
    struct digest image;
    uint64_t disk_size, data_size, stored_size;
    uint64_t new_blocks, new_bytes; /* block files that were not there before */
    uint64_t serial;
    bool was_listed; /* the version was published before, with this content: the catalog is unchanged */
};

/*
 * Publish the raw image in FD (holes are found by SEEK_HOLE and not read). INPUT is its name for messages.
 * INVALID (name, version, block size), EXISTS (that version, with other content; the same content again is no
 * error and changes nothing), CHANGED (size or times of the input differ after reading), UNTRUSTED (the archive's
 * catalog is signed by another key), NO_SPACE.
 */
int publish_image(const struct publish_settings *settings, int fd, const char *input,
                  struct publish_result *result_out, struct error *error);

/* Publish the catalog again with a new serial and expiry, and nothing else changed. */
int publish_renew(const char *archive, const struct secret_key *key, uint64_t lifetime_s, uint64_t *serial_out,
                  struct error *error);

/* Take a version off the catalog. Its files stay until publish_collect. */
int publish_unlist(const char *archive, const struct secret_key *key, uint64_t lifetime_s, const char *name,
                   const char *version, uint64_t *serial_out, struct error *error);

struct collect_result {
    uint64_t files, bytes;           /* removed, or with DRY_RUN would be */
    uint64_t kept_files, kept_bytes;
};

/*
 * Remove everything that no listed version needs: blocks, maps, manifests, left-over temporary files. Waits for
 * publishers that are at work and keeps new ones waiting. REMOVED (may be NULL) is told each path.
 * CORRUPT: a map or manifest of a listed version is bad; then nothing is removed. The catalog must be signed by one
 * of TRUSTED (NULL: by anybody).
 */
int publish_collect(const char *archive, const struct trusted_keys *trusted, bool dry_run,
                    void (*removed)(void *user, const char *path, uint64_t size), void *user,
                    struct collect_result *result_out, struct error *error);

#endif
