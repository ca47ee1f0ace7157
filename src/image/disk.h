/*
 * A disk: an image's bytes, at any offset, verified. Reads are split into
 * blocks; sequential readers are recognised and read ahead of.
 */
#ifndef IMAGE_DISK_H
#define IMAGE_DISK_H

#include <sys/types.h>

#include "format/profile.h"
#include "image/ranges.h"
#include "image/tree.h"

struct disk;

/* STORE is borrowed and outlives the disk. Fetches the head of the map; no block. */
int disk_open(struct store *store, const struct digest *image_id, struct disk **disk_out, struct error *error);
/* Waits for reads under way. Takes NULL. */
void disk_close(struct disk *disk);

uint64_t disk_size(const struct disk *disk);
uint32_t disk_block_size(const struct disk *disk);
struct tree *disk_tree(struct disk *disk); /* borrowed */

/* Where readers are: the offsets up to which they have read, the last one first. Returns how many. */
#define DISK_POSITIONS 8
size_t disk_positions(struct disk *disk, uint64_t positions_out[DISK_POSITIONS]);

/*
 * Nothing is read ahead over the network of readers who find everything here or on its way. While COVERED, because
 * somebody else is to bring what they are likely to want, also not of those who have lacked only little. For any
 * thread.
 */
void disk_set_covered(struct disk *disk, bool covered);

/*
 * From now on blocks come in ranges of packs where they can. Once for a disk, which takes RANGES over. For any thread.
 */
void disk_set_ranges(struct disk *disk, struct ranges *ranges);
/*
 * COUNT blocks from FIRST on, with DIGESTS (zero: not this one), are about to be asked for: those that lie side by side
 * in a pack come together. Nothing, as long as there are no ranges.
 */
void disk_gather(struct disk *disk, uint64_t first, uint32_t count, const struct digest *digests,
                 enum priority priority);
/* To the first byte of an answer: quicker ones come from so near that a reader waits for processors, not the link. */
#define DISK_NEAR_US 4000
/* How many blocks come together at most; 1: as long as there are no ranges. */
uint32_t disk_gathers(struct disk *disk);

/*
 * The profile of what was read so far: every block that a read touched, whether it was cached or not, but nothing
 * that was fetched ahead. ERROR_NOT_FOUND when nothing was read.
 */
int disk_profile(struct disk *disk, struct profile *copy_out, struct error *error);

/*
 * Read SIZE bytes at OFFSET into BYTES, which live until DONE. A read past the end is cut: DONE gets the bytes read,
 * or a negative error code. DONE is called exactly once, perhaps before this returns. What is cached never waits for
 * the network.
 */
void disk_read_async(struct disk *disk, void *bytes, size_t size, uint64_t offset,
                     void (*done)(void *user, ssize_t result, const struct error *error), void *user);
/* As disk_read_async, and wait. */
ssize_t disk_read(struct disk *disk, void *bytes, size_t size, uint64_t offset, struct error *error);

#endif
