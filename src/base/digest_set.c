/* A hash table with open addressing under one lock. An all-zero digest marks a free slot and is never added. */
#include "base/digest_set.h"

#include <pthread.h>
#include <stdlib.h>

struct digest_set {
    pthread_mutex_t lock; /* a leaf */
    struct digest *slots;
    size_t slot_count; /* a power of two */
    size_t used;
};

struct digest_set *digest_set_create(void)
{
    struct digest_set *set = calloc(1, sizeof(*set));

    if (!set)
        return NULL;
    set->slot_count = 1024;
    set->slots = calloc(set->slot_count, sizeof(*set->slots));
    if (!set->slots) {
        free(set);
        return NULL;
    }
    pthread_mutex_init(&set->lock, NULL);
    return set;
}

void digest_set_destroy(struct digest_set *set)
{
    if (!set)
        return;
    pthread_mutex_destroy(&set->lock);
    free(set->slots);
    free(set);
}

/* The slot that holds DIGEST, or the free one where it belongs. */
static struct digest *find(struct digest *slots, size_t slot_count, const struct digest *digest)
{
    size_t at = (size_t)load_le64(digest->bytes) & (slot_count - 1);

    while (!digest_is_zero(&slots[at]) && !digest_equal(&slots[at], digest))
        at = (at + 1) & (slot_count - 1);
    return &slots[at];
}

static bool grow(struct digest_set *set)
{
    size_t wider_count = set->slot_count * 2;
    struct digest *wider = calloc(wider_count, sizeof(*wider));

    if (!wider)
        return false;
    for (size_t i = 0; i < set->slot_count; i++)
        if (!digest_is_zero(&set->slots[i]))
            *find(wider, wider_count, &set->slots[i]) = set->slots[i];
    free(set->slots);
    set->slots = wider;
    set->slot_count = wider_count;
    return true;
}

static int add(struct digest_set *set, const struct digest *digest)
{
    struct digest *slot = find(set->slots, set->slot_count, digest);

    if (!digest_is_zero(slot))
        return 0;
    /* At most half full, so that runs stay short. */
    if (set->used * 2 >= set->slot_count) {
        if (!grow(set))
            return -1;
        slot = find(set->slots, set->slot_count, digest);
    }
    *slot = *digest;
    set->used++;
    return 1;
}

int digest_set_add(struct digest_set *set, const struct digest *digest)
{
    int result;

    if (digest_is_zero(digest))
        return 0;
    pthread_mutex_lock(&set->lock);
    result = add(set, digest);
    pthread_mutex_unlock(&set->lock);
    return result;
}

bool digest_set_has(struct digest_set *set, const struct digest *digest)
{
    bool has;

    pthread_mutex_lock(&set->lock);
    has = !digest_is_zero(digest) && !digest_is_zero(find(set->slots, set->slot_count, digest));
    pthread_mutex_unlock(&set->lock);
    return has;
}
