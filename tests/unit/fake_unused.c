/* What tests of src/image over a store of their own link, and never call. */
#include <stdlib.h>

#include "store/cache.h"
#include "store/store.h"

int store_offer(struct store *store, const struct digest *digest, uint32_t length, const struct store_frame *frame,
                bool *blamed_out, struct error *error)
{
    (void)store;
    (void)digest;
    (void)length;
    (void)frame;
    (void)blamed_out;
    (void)error;
    abort();
}

int cache_read_file(struct cache *cache, const struct digest *digest, size_t limit, struct buffer *bytes,
                    struct error *error)
{
    (void)cache;
    (void)digest;
    (void)limit;
    (void)bytes;
    (void)error;
    abort();
}

void cache_write_file(struct cache *cache, const struct digest *digest, const void *bytes, size_t size)
{
    (void)cache;
    (void)digest;
    (void)bytes;
    (void)size;
    abort();
}
