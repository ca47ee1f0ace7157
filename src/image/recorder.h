/*
 * A recorder: which blocks of a disk readers touched, in the order of the first
 * touch, with a coarse clock - what a profile is made of.
 */
#ifndef IMAGE_RECORDER_H
#define IMAGE_RECORDER_H

#include "format/profile.h"

struct recorder;

/* For a disk of BLOCK_COUNT blocks. NULL: no memory. */
struct recorder *recorder_create(uint64_t block_count);
void recorder_destroy(struct recorder *recorder); /* takes NULL */

/*
 * A reader wants COUNT blocks from FIRST on. Any thread; quick. When the profile is full (PROFILE_BLOCKS_MAX blocks),
 * reads are spread over more than 2^27 blocks, or memory has run out, nothing more is noted. RECORDER may be NULL.
 */
void recorder_note(struct recorder *recorder, uint64_t first, uint64_t count);

/* A copy of what was noted until now, without image and block size: of one boot. RECORDER may be NULL. */
int recorder_copy(struct recorder *recorder, struct profile *copy_out, struct error *error);

#endif
