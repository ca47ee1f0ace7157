/* What a plain file's readers got, waited for and wait for: statistics. */
#include <stdio.h>

#include "base/clock.h"
#include "plain/plain_parts.h"

void count_wait(struct plain *plain, const struct piece *piece)
{
    uint64_t us = clock_us() - piece->since_us;

    atomic_fetch_add(&plain->wait_us, us);
    atomic_fetch_add(&plain->waits[statistics_bucket(us)], 1);
}

void count_answer(struct plain *plain, const struct error *error)
{
    if (error)
        atomic_fetch_add(&plain->errors, 1);
    pthread_mutex_lock(&plain->lock);
    snprintf(plain->reason, sizeof(plain->reason), "%.*s", PLAIN_REASON_SIZE - 1, error ? error->message : "");
    pthread_mutex_unlock(&plain->lock);
}

void plain_count(struct plain *plain, struct plain_statistics *statistics_out)
{
    *statistics_out = (struct plain_statistics){
        .memory_hits = atomic_load(&plain->memory_hits),
        .kept_hits = atomic_load(&plain->kept_hits),
        .fetched = atomic_load(&plain->fetched),
        .fetched_bytes = atomic_load(&plain->fetched_bytes),
        .damaged = atomic_load(&plain->damaged),
        .failed = atomic_load(&plain->failed),
        .reads = atomic_load(&plain->reads),
        .read_bytes = atomic_load(&plain->read_bytes),
        .wait_us = atomic_load(&plain->wait_us),
        .errors = atomic_load(&plain->errors),
    };
    for (unsigned i = 0; i < STATISTICS_BUCKETS; i++) {
        statistics_out->waits[i] = atomic_load(&plain->waits[i]);
        statistics_out->misses += statistics_out->waits[i];
    }
    pthread_mutex_lock(&plain->lock);
    statistics_out->held_bytes = plain->ready_count * SLICE_SIZE;
    statistics_out->answers = !*plain->reason;
    memcpy(statistics_out->reason, plain->reason, sizeof(plain->reason));
    pthread_mutex_unlock(&plain->lock);
}

static void visit_slice(const struct slice *slice, uint64_t now_us,
                        void (*visit)(void *user, const struct plain_wait *wait), void *user)
{
    struct plain_wait wait = {.offset = slice->index * SLICE_SIZE, .size = slice_length(slice->plain, slice->index)};

    for (const struct piece *piece = slice->pieces; piece; piece = piece->next) {
        wait.readers++;
        wait.age_us = max_u64(wait.age_us, now_us - piece->since_us);
    }
    if (wait.readers)
        visit(user, &wait);
}

void plain_each_waiting(struct plain *plain, void (*visit)(void *user, const struct plain_wait *wait), void *user)
{
    uint64_t now_us;

    pthread_mutex_lock(&plain->lock);
    now_us = clock_us();
    for (size_t i = 0; i < SLICE_BUCKETS; i++)
        for (const struct slice *slice = plain->buckets[i]; slice; slice = slice->next)
            visit_slice(slice, now_us, visit, user);
    pthread_mutex_unlock(&plain->lock);
}
