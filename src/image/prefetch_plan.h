/*
 * Which parts of a pack are streamed side by side.
 */
#ifndef IMAGE_PREFETCH_PLAN_H
#define IMAGE_PREFETCH_PLAN_H

#include "format/hints.h"
#include "format/pack.h"
#include "store/store.h"

#define PREFETCH_RANGES_MAX 64

/* Bytes of a pack, END excluded. */
struct pack_range {
    uint64_t start, end;
};

/*
 * The segments of PACK; if its TABLE is known (else NULL), of each only what STORE lacks, unless that is too scattered.
 * RANGES_OUT has room for PREFETCH_RANGES_MAX. Returns their number: 0 if nothing is lacking.
 */
size_t prefetch_plan(const struct hints_pack *pack, const struct pack_table *table, struct store *store,
                     struct pack_range *ranges_out);

#endif
