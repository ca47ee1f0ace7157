/*
 * Ahead: what is fetched before anyone reads. Begins with a version's hints,
 * asked for in the same round trip as the catalog; streams its boot pack as soon
 * as they name one; and when the disk is open, goes along the profile and, if
 * told so, on to the whole image.
 */
#ifndef IMAGE_AHEAD_H
#define IMAGE_AHEAD_H

#include "image/prefetch.h"

struct ahead;

/*
 * Ask for the hints of NAME and VERSION ("" or NULL: the newest). Returns at once. STORE is borrowed and outlives it.
 * FIRST: nothing of the archive was ever fetched to here, so that much of the boot pack will be wanted. NULL: nothing
 * is to be fetched ahead (MODE), there is no network, or no memory.
 */
struct ahead *ahead_begin(struct store *store, const char *name, const char *version, enum prefetch_mode mode,
                          bool first);

/*
 * DISK is open: begin to fill from it. KEPT, which may be NULL, is the profile of earlier runs on this host, for when
 * the archive publishes none; copied. Only for one disk at a time; a second one is left alone. Before it is closed,
 * call ahead_leave, which is quick only after mirrors_cancel. AHEAD may be NULL.
 */
void ahead_disk(struct ahead *ahead, struct disk *disk, const struct profile *kept);
void ahead_leave(struct ahead *ahead, const struct disk *disk);

/* After every disk of the store is closed. Quick only after mirrors_cancel. Takes NULL. */
void ahead_end(struct ahead *ahead);

#endif
