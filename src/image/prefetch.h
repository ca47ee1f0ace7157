/*
 * Prefetch: bringing the blocks of a boot before it asks for them - from a boot
 * pack in a few streams, or one by one along a profile - and, when told so, the
 * rest of the image with what the readers leave of the link.
 */
#ifndef IMAGE_PREFETCH_H
#define IMAGE_PREFETCH_H

#include "format/hints.h"
#include "format/profile.h"
#include "image/disk.h"

struct prefetch;

enum prefetch_mode { PREFETCH_NONE, PREFETCH_PROFILE, PREFETCH_ALL };

/*
 * Begin to stream PACK (borrowed for the call); needs no disk yet, so that a boot pack can begin in the second round
 * trip, beside the map. Hints are not trusted: packs over PREFETCH_PACK_MAX bytes are left alone, and every block is
 * verified by the store. STORE is borrowed and outlives the prefetch. NULL: nothing to do, or no memory.
 */
#define PREFETCH_PACK_MAX (256 * MIB)
struct prefetch *prefetch_pack(struct store *store, const struct hints_pack *pack);

/*
 * Wait until the pack's table has come, or will not, or UNTIL_US (clock_us): from then on the store expects the blocks
 * of the pack.
 */
void prefetch_wait_table(struct prefetch *prefetch, uint64_t until_us);
/*
 * Wait for the end of the streams, or prefetch_stop, and meanwhile let readers have fetched apart what they wait for
 * too long. True: the streams brought all that was lacking.
 */
bool prefetch_wait(struct prefetch *prefetch);
/* Let go of everything as soon as more of it comes. Does not wait. Takes NULL. */
void prefetch_stop(struct prefetch *prefetch);

/*
 * Break off what is under way, wait until it has ended (a stream that stands still: some seconds, unless mirrors_cancel
 * was called), and free. Every disk that reads from the store is closed before.
 */
void prefetch_destroy(struct prefetch *prefetch); /* takes NULL */

/* Fetching the blocks of a disk in an order, some at a time, behind everything that readers want. */
struct fill;

/* Along PROFILE, after which the disk is not covered any more (disk_set_covered); then, with ALL, all others. */
struct fill_settings {
    const struct profile *profile; /* borrowed for the call; NULL: none */
    bool all;                      /* those near the readers first; only into a cache */
    /* With ALL: brings many of the others at a time, on a thread of the fill's. False: break off. May be NULL. */
    bool (*before_all)(void *user);
    /* With ALL: likewise, for what is near nobody, when no reader has waited for a while. True: that is all it can. */
    bool (*when_quiet)(void *user);
    void *user;
};

/* NULL: nothing to do, or no memory. */
struct fill *fill_start(struct disk *disk, struct store *store, const struct fill_settings *settings);
/* Break off, before the disk is closed. What is being fetched comes later, for nobody. Takes NULL. */
void fill_stop(struct fill *fill);

#endif
