/* A recorder: see recorder.h. A bitmap, made page by page, tells first touches from later ones. */
#include "image/recorder.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"

#define PAGE_BLOCKS (1 << 15) /* in a page of the bitmap, of 4 KiB */
#define PAGES_MAX   4096
#define PAGE_PLACES (UINT64_C(1) << 17) /* places for pages; blocks behind them are not noted */

struct recorder {
    atomic_bool full;

    pthread_mutex_t lock; /* all below; a leaf */
    uint64_t started_ms;  /* of the first touch */
    struct profile profile;
    uint64_t **pages;     /* NULL: nothing there was touched */
    uint64_t page_limit;
    uint32_t page_count;
};

struct recorder *recorder_create(uint64_t block_count)
{
    struct recorder *recorder = calloc(1, sizeof(*recorder));

    if (!recorder)
        return NULL;
    recorder->page_limit = min_u64(divide_up(block_count, PAGE_BLOCKS), PAGE_PLACES);
    recorder->pages = calloc(recorder->page_limit + 1, sizeof(*recorder->pages));
    if (!recorder->pages) {
        free(recorder);
        return NULL;
    }
    recorder->profile.boot_count = 1;
    pthread_mutex_init(&recorder->lock, NULL);
    return recorder;
}

void recorder_destroy(struct recorder *recorder)
{
    if (!recorder)
        return;
    for (uint64_t i = 0; i < recorder->page_limit; i++)
        free(recorder->pages[i]);
    free(recorder->pages);
    profile_finish(&recorder->profile);
    pthread_mutex_destroy(&recorder->lock);
    free(recorder);
}

/* True if BLOCK was not touched before; it is from now on. Under the lock. */
static bool is_first(struct recorder *recorder, uint64_t block)
{
    uint64_t page = block / PAGE_BLOCKS, bit = UINT64_C(1) << block % 64, *word;

    if (page >= recorder->page_limit)
        return false;
    if (!recorder->pages[page]) {
        if (recorder->page_count < PAGES_MAX)
            recorder->pages[page] = calloc(PAGE_BLOCKS / 64, sizeof(uint64_t));
        if (!recorder->pages[page]) {
            recorder->full = true;
            return false;
        }
        recorder->page_count++;
    }
    word = &recorder->pages[page][block % PAGE_BLOCKS / 64];
    if (*word & bit)
        return false;
    *word |= bit;
    return true;
}

void recorder_note(struct recorder *recorder, uint64_t first, uint64_t count)
{
    uint64_t now_ms;

    if (!recorder || atomic_load_explicit(&recorder->full, memory_order_relaxed))
        return;
    now_ms = clock_ms();
    pthread_mutex_lock(&recorder->lock);
    if (!recorder->profile.run_count)
        recorder->started_ms = now_ms;
    now_ms = now_ms > recorder->started_ms ? now_ms - recorder->started_ms : 0;
    for (uint64_t block = first; block < first + count && !recorder->full; block++)
        if (is_first(recorder, block) &&
            profile_append(&recorder->profile, block, (uint32_t)min_u64(now_ms, UINT32_MAX), NULL))
            recorder->full = true;
    pthread_mutex_unlock(&recorder->lock);
}

int recorder_copy(struct recorder *recorder, struct profile *copy_out, struct error *error)
{
    int result;

    if (!recorder)
        return error_set(error, ERROR_SYSTEM, "there was no memory to record what is read");
    pthread_mutex_lock(&recorder->lock);
    result = profile_copy(&recorder->profile, copy_out, error);
    pthread_mutex_unlock(&recorder->lock);
    return result;
}
