/*
 * What is kept of plain files in the cache: a folder plain/<digest> for each
 * file, named by URL, size and validator, with "data", a sparse file of its
 * slices each at its place, and "index" (format/plain.h). The digest of a slice
 * is written after its bytes and checked when they are read: it tells damage,
 * not forgery.
 */
#ifndef PLAIN_KEEP_H
#define PLAIN_KEEP_H

#include "base/error.h"
#include "base/progress.h"
#include "format/plain.h"

#define KEEP_FOLDER "plain"

struct keep;

/*
 * Open or make the folder for HEADER in the cache folder CACHE_FD. Without a validator nobody can know later whether
 * it is still the same file: then it is kept without a name, for this process only. MAX_BYTES (0: unbounded) is what
 * all plain files may take. Other processes may have the same one open.
 */
int keep_open(int cache_fd, uint64_t max_bytes, const struct plain_header *header, struct keep **keep_out,
              struct error *error);

/* The one used last of a URL with this digest, for when the server cannot be asked. ERROR_NOT_FOUND. */
int keep_open_latest(int cache_fd, uint64_t max_bytes, const struct digest *url, struct keep **keep_out,
                     struct error *error);

/* Nobody can remove it until it is closed. Takes NULL. */
void keep_close(struct keep *keep);

const struct plain_header *keep_header(const struct keep *keep);

/* For one without a name: the size is known only now. */
void keep_set_size(struct keep *keep, uint64_t size);

/* The SIZE bytes of SLICE. NOT_FOUND; CORRUPT: they were damaged, and are not there any more. */
int keep_read(struct keep *keep, uint64_t slice, void *bytes, size_t size);
bool keep_has(struct keep *keep, uint64_t slice);
bool keep_has_all(struct keep *keep);

/* NO_SPACE: neither the limit nor the file system has room; SYSTEM. Different slices may be written at once. */
int keep_write(struct keep *keep, uint64_t slice, const void *bytes, size_t size, const struct digest *digest,
               struct error *error);

/* It is not what its user wanted: the next one begins anew. */
void keep_discard(struct keep *keep);

struct keep_usage {
    uint64_t count; /* files */
    uint64_t bytes; /* on disk */
};
int keep_measure(int cache_fd, struct keep_usage *usage_out, struct error *error);

/* Remove those not used for the longest until at most MAX_BYTES are left; those in use stay. */
int keep_prune(int cache_fd, uint64_t max_bytes, uint64_t *removed_out, struct error *error);

struct keep_check {
    uint64_t slices, bytes, bad;
    uint64_t removed; /* of the bad ones */
};
/* Check every slice of every file; with REPAIR bad ones are forgotten. FAULT tells of each. */
int keep_verify(int cache_fd, bool repair, void (*fault)(void *user, const char *where, const char *what), void *user,
                struct keep_check *check_out, struct error *error);

#endif
