/*
 * Keeping profiles: what the readers of a disk touch is written into the cache,
 * beside the archive's other small files, and merged over its runs; the next
 * time this version, or a newer one of the same name, is opened, its blocks can
 * be fetched along it.
 *
 * What is kept is the beginning of a run, as a boot is: at most PROFILE_KEEP_MS,
 * PROFILE_KEEP_BYTES, and of what is read in one sequence, such as when a whole
 * disk is copied, only PROFILE_KEEP_SEQUENCE bytes: the rest is read ahead anyway.
 */
#ifndef IMAGE_PROFILE_KEEP_H
#define IMAGE_PROFILE_KEEP_H

#include "format/catalog.h"
#include "image/disk.h"

#define PROFILE_KEEP_MS       300000
#define PROFILE_KEEP_BYTES    (256 * MIB)
#define PROFILE_KEEP_RUNS     16384
#define PROFILE_KEEP_SEQUENCE (16 * MIB)

struct profile_keeper;

/*
 * For DISK, which is VERSION of CATALOG in the archive at LOCATION; all are borrowed and outlive it, as do the disk's
 * store and its cache. NULL: no cache, or no memory.
 */
struct profile_keeper *profile_keeper_open(struct disk *disk, struct store *store, const char *location,
                                           const struct catalog *catalog, const struct catalog_version *version);
/* Of earlier runs, for this image, perhaps carried over from an older version; NULL: none. */
const struct profile *profile_keeper_kept(const struct profile_keeper *keeper);
/* After a read, on any thread: now and then a worker writes what there is. KEEPER may be NULL. */
void profile_keeper_tick(struct profile_keeper *keeper);
/* Write what there is. Before the disk is closed, when nobody reads any more. Takes NULL. */
void profile_keeper_close(struct profile_keeper *keeper);

/* The part of a run's PROFILE that is worth keeping, as above. */
int profile_keep_trim(const struct profile *profile, struct profile *trimmed_out, struct error *error);

#endif
