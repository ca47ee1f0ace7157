/* A set of digests that only grows, for "seen already?". */
#ifndef BASE_DIGEST_SET_H
#define BASE_DIGEST_SET_H

#include "base/hash.h"

struct digest_set;

struct digest_set *digest_set_create(void); /* NULL: no memory */
void digest_set_destroy(struct digest_set *set); /* takes NULL */

/* 1: it is new; 0: it was there; -1: no memory. From any thread. */
int digest_set_add(struct digest_set *set, const struct digest *digest);
bool digest_set_has(struct digest_set *set, const struct digest *digest);

#endif
