/*
 * Verified blocks in memory: their buffers, used again and again so that resident memory does not creep up, and the
 * least-recently-used list that holds some of them. For store.c only; block_release is in store.h.
 */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "store/store.h"

struct memory;

/* LIMIT: bytes of the blocks that are held when nobody uses them. NULL: no memory. */
struct memory *memory_create(size_t limit);
/* Lets go of all; blocks that are still used elsewhere stay valid. Takes NULL. */
void memory_destroy(struct memory *memory);
size_t memory_limit(const struct memory *memory);
/* Bytes of the blocks that are held now. */
size_t memory_held(struct memory *memory);

/* A block to be filled through BYTES_OUT before anyone else sees it. LENGTH is 1 to BLOCK_SIZE_MAX. NULL: no memory. */
struct block *memory_make(struct memory *memory, const struct digest *digest, uint32_t length, uint8_t **bytes_out);
struct block *block_reference(struct block *block);

/* A reference, or NULL. */
struct block *memory_find(struct memory *memory, const struct digest *digest);
/* Hold BLOCK; the least recently used give way, or with ONLY_IF_ROOM, BLOCK does. */
void memory_keep(struct memory *memory, struct block *block, bool only_if_room);

#endif
