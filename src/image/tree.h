/*
 * The tree: an image's map, read page by page as digests are wanted. Each page
 * is verified up to the image id before an entry of it is used. At most
 * TREE_MEMORY of pages are kept.
 */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include "format/map.h"
#include "store/store.h"

#define TREE_MEMORY (8 * 1024 * 1024)

struct tree;

/*
 * Fetch and verify the head of the map (header, presence bits and the first pages, in one request) and open it.
 * STORE is borrowed and outlives the tree. Waits.
 */
int tree_open(struct store *store, const struct digest *image_id, struct tree **tree_out, struct error *error);
void tree_close(struct tree *tree); /* no request may be under way; takes NULL */

const struct map *tree_map(const struct tree *tree);

/*
 * Digests of COUNT blocks from FIRST, into memory of the caller that lives until DONE. DONE is called exactly once,
 * perhaps before this returns. Pages that are missing are fetched in few range requests.
 */
void tree_lookup_async(struct tree *tree, uint64_t first, uint32_t count, enum priority priority,
                       struct digest *digests_out, void (*done)(void *user, int code, const struct error *error),
                       void *user);
int tree_lookup(struct tree *tree, uint64_t first, uint32_t count, enum priority priority,
                struct digest *digests_out, struct error *error);

/*
 * From block FIRST on, the next block whose digest is not zero, at most LIMIT; whole empty pages are skipped without
 * being touched. *BLOCK_OUT is LIMIT if there is none. Waits. For pull, verify, gc and SEEK_DATA.
 */
int tree_next_data(struct tree *tree, uint64_t first, uint64_t limit, uint64_t *block_out, struct error *error);

#endif
