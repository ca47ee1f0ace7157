/*
 * Verifying what lies on a disk: an archive, a cache, a written-out image.
 * Every block is read and every fault is told, not only the first.
 */
#ifndef IMAGE_VERIFY_H
#define IMAGE_VERIFY_H

#include "base/progress.h"
#include "format/signature.h"
#include "image/disk.h"

struct verify_result {
    uint64_t checked_files, checked_bytes;
    uint64_t bad;      /* faults told */
    uint64_t removed;  /* of those */
    uint64_t missing;  /* files, or blocks of a disk, that are not there; those past its end are one fault together, and
                          those of a folder blocks/ that cannot be read */
};

struct verify_report {
    /* WHERE is a path, or "block N (in a pack DIGEST) at offset O of FILE"; WHAT is the reason. One call at a time. */
    void (*fault)(void *user, const char *where, const char *what);
    void *user;
    const struct progress *progress;
};

/*
 * An archive folder: signature and expiry of the catalog, each manifest, map and every block that any listed
 * version needs, and each pack and profile that the hints of one name. Returns 0 also when faults were told; see
 * result.bad.
 */
int verify_archive(const char *archive, const struct trusted_keys *trusted, const struct verify_report *report,
                   struct verify_result *result_out, struct error *error);

/*
 * Every block file of a cache folder (or of any folder with blocks/), and what it keeps in files/. With REPAIR bad ones
 * are removed.
 */
int verify_blocks(const char *folder, bool repair, const struct verify_report *report,
                  struct verify_result *result_out, struct error *error);

/*
 * Every block of a disk as the store delivers it: from its mirrors, when the store has no cache. A mirror's bad or
 * missing blocks are told; that none can be reached is an error.
 */
int verify_disk(struct disk *disk, struct store *store, const struct verify_report *report,
                struct verify_result *result_out, struct error *error);

/* A written-out disk in FD against an image's map. */
int verify_file(struct disk *disk, int fd, const char *path, const struct verify_report *report,
                struct verify_result *result_out, struct error *error);

#endif
