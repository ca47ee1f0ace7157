/*
 * The cache folder: a partial archive, shared by all images, processes and
 * threads of a user. It needs no journal: whatever is read from it is verified
 * by the reader, and removed here when it is bad.
 *
 *   blocks/ maps/ files/ packs/   as in an archive, shared by all archives
 *   archives/<key>/               one for each archive: catalog.json, images/, and links blocks -> ../../blocks etc.,
 *                                 so that the folder can be served as a mirror
 *   state/                        what must outlive a cleaning: see session.h (kept elsewhere by default)
 *   usage                         16 bytes: a running estimate of the bytes under blocks/ (each file's size rounded up
 *                                 to 4 KiB) and the time of the last scan, which corrects it
 */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/workers.h"

struct cache;

/*
 * Opens or makes the folder. MAX_BYTES 0: unbounded, but as with any other number nothing is written when less than
 * 256 MiB, or 2 % of the file system if that is more, would stay free (of a file system under 2 GiB: an eighth).
 * INVALID: it is a published archive. A folder that cannot be written to is opened for reading.
 */
int cache_open(const char *path, uint64_t max_bytes, struct cache **cache_out, struct error *error);
void cache_close(struct cache *cache); /* when it has settled; takes NULL */
const char *cache_path(const struct cache *cache);
int cache_folder_fd(const struct cache *cache); /* borrowed */

/*
 * The frame of a block, unverified, into FRAME (replaced). NOT_FOUND, CORRUPT (longer than any frame of a block of
 * at most BLOCK_LENGTH), SYSTEM. *UNMARKED_OUT: it was not marked as used for ten minutes; whoever reads it does that
 * when nobody waits any more.
 */
int cache_read_block(struct cache *cache, const struct digest *digest, uint32_t block_length, struct buffer *frame,
                     bool *unmarked_out, struct error *error);
/* It was used now. */
void cache_mark_block(struct cache *cache, const struct digest *digest);
bool cache_has_block(struct cache *cache, const struct digest *digest);

/*
 * Keep a frame that has been verified. Never an error to the caller: when the disk is full, read-only or over
 * quota, reading goes on uncached with one warning a process, and after half a minute it is tried again. When
 * max_bytes would be passed, the caller prunes an eighth of it first; if another thread or process is pruning
 * already, the block is not kept.
 */
void cache_write_block(struct cache *cache, const struct digest *digest, const void *frame, size_t frame_size);

/*
 * The same, but later, on a thread of the lowest priority, when no more frames come or after a second; until then the
 * frame is found as if it had been written. At once when 20 MiB of files are waiting already. A process that is killed
 * loses what waits, which is fetched again.
 */
void cache_write_block_behind(struct cache *cache, const struct digest *digest, const void *frame, size_t frame_size);
/* What waits is written, by the caller too, when this returns. */
void cache_settle(struct cache *cache);

/*
 * Is there room to spare, for what nobody has asked for yet? False over seven eighths of max_bytes, when the file
 * system has little more than what is kept free, or when the cache cannot be written to.
 */
bool cache_has_room(struct cache *cache);

/* A block that was read from here and did not verify: count it, remove it, so that it is fetched again. */
void cache_drop_block(struct cache *cache, const struct digest *digest);

/*
 * The cached part of a map file: a sparse file that holds the header, the presence bits and those pages that have
 * been fetched, each at its place. Reads of holes give zeros, which fail verification as they should.
 */
int cache_read_map(struct cache *cache, const struct digest *image_id, uint64_t offset, void *bytes, size_t size,
                   struct error *error);
void cache_write_map(struct cache *cache, const struct digest *image_id, uint64_t offset, const void *bytes,
                     size_t size);

/* Of the files that keep which blocks readers have touched: images/NAME/VERSION.profile. See image/profile_keep.h. */
#define CACHE_PROFILE_SUFFIX ".profile"

/* Whole small files below archives/<key>/ (catalog, manifests, hints, profiles). ARCHIVE as the user named it. */
int cache_read_metadata(struct cache *cache, const char *archive, const char *path, size_t limit,
                        struct buffer *bytes, struct error *error);
void cache_write_metadata(struct cache *cache, const char *archive, const char *path, const void *bytes, size_t size);

/*
 * For who reads one of them, changes and writes it: hold the lock of archives/<key>/ against other threads and
 * processes until the descriptor is closed. Waits, but not for ever on one who hangs. -1: not locked.
 */
int cache_lock_metadata(struct cache *cache, const char *archive);

/*
 * Whole files under the digest of what is in them (files/), verified when they are read: tables of packs. At most LIMIT
 * bytes. NOT_FOUND; CORRUPT, after which it is gone. What was not written for CACHE_PROFILE_DAYS goes when the cache is
 * pruned.
 */
int cache_read_file(struct cache *cache, const struct digest *digest, size_t limit, struct buffer *bytes,
                    struct error *error);
/* As cache_write_block, never an error. */
void cache_write_file(struct cache *cache, const struct digest *digest, const void *bytes, size_t size);

struct cache_usage {
    uint64_t block_count;
    uint64_t block_bytes;   /* each file's size rounded up to 4 KiB */
    uint64_t map_bytes;
    uint64_t profile_count; /* kept profiles */
    uint64_t profile_bytes;
    uint64_t max_bytes;     /* 0: unbounded */
    uint64_t free_bytes;    /* of the file system */
    uint64_t temporary_count; /* left by killed writers, older than an hour */
};

int cache_measure(struct cache *cache, struct cache_usage *usage_out, struct error *error);

/*
 * Remove least recently used blocks until at most MAX_BYTES are left; then old temporary files, and profiles that no
 * run has changed for CACHE_PROFILE_DAYS. Safe beside readers and writers; waits for a prune by another process.
 */
#define CACHE_PROFILE_DAYS 180
int cache_prune(struct cache *cache, uint64_t max_bytes, uint64_t *removed_bytes_out, struct error *error);

#endif
