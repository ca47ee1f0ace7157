/*
 * Ranges of packs: blocks that lie side by side in a pack come in one request,
 * for a reader who lacks one and for what is fetched ahead of him. What a range
 * does not bring is fetched block by block.
 */
#ifndef IMAGE_RANGES_H
#define IMAGE_RANGES_H

#include "format/map.h"
#include "image/packs.h"

struct ranges;

/* Whoever waits for one of them waits for all. And small requests side by side share a link better than large ones. */
#define RANGE_BLOCKS_MAX 4

/* Out of PACKS, which are waited for and taken over. NULL: none of them can be used, or there is no memory. */
struct ranges *ranges_create(struct store *store, struct packs *packs);
/* What is under way goes on without RANGES. Takes NULL. */
void ranges_close(struct ranges *ranges);

/*
 * COUNT blocks of a disk with MAP, from FIRST on. Ask, as PRIORITY, for those that a pack holds and that are neither
 * here nor on their way, and with the last one for at most MORE that lie behind it in its pack. From then on they are
 * coming: whoever wants one asks the store, as for any other block.
 */
struct ranges_wish {
    const struct map *map;
    uint64_t first;
    uint32_t count;
    const struct digest *digests; /* zero: not this one */
    uint32_t more;
    enum priority priority;
};
void ranges_fetch(struct ranges *ranges, const struct ranges_wish *wish);

#endif
