/* The verified pages of a tree that are kept in memory: a hash table with a list in order of use. */
#include "image/tree_internal.h"

#include <stdlib.h>

struct page {
    uint64_t number;
    struct page *same_bucket;
    struct page *newer, *older;
    uint8_t bytes[MAP_PAGE_SIZE];
};

int page_memory_init(struct page_memory *memory, size_t bytes, struct error *error)
{
    *memory = (struct page_memory){.limit = bytes / sizeof(struct page), .bucket_count = 1};
    while (memory->bucket_count < memory->limit)
        memory->bucket_count *= 2;
    memory->buckets = calloc(memory->bucket_count, sizeof(*memory->buckets));
    return memory->buckets ? 0 : error_set(error, ERROR_SYSTEM, "no memory for the pages of a map");
}

void page_memory_finish(struct page_memory *memory)
{
    while (memory->newest) {
        struct page *page = memory->newest;

        memory->newest = page->older;
        free(page);
    }
    free(memory->buckets);
    *memory = (struct page_memory){0};
}

static struct page **bucket_of(struct page_memory *memory, uint64_t number)
{
    return &memory->buckets[number & (memory->bucket_count - 1)];
}

static void list_remove(struct page_memory *memory, struct page *page)
{
    *(page->newer ? &page->newer->older : &memory->newest) = page->older;
    *(page->older ? &page->older->newer : &memory->oldest) = page->newer;
}

static void list_add(struct page_memory *memory, struct page *page)
{
    page->newer = NULL;
    page->older = memory->newest;
    *(memory->newest ? &memory->newest->newer : &memory->oldest) = page;
    memory->newest = page;
}

static struct page *lookup(struct page_memory *memory, uint64_t number)
{
    struct page *page = *bucket_of(memory, number);

    while (page && page->number != number)
        page = page->same_bucket;
    return page;
}

const uint8_t *page_memory_find(struct page_memory *memory, uint64_t number)
{
    struct page *page = lookup(memory, number);

    if (!page)
        return NULL;
    if (page != memory->newest) {
        list_remove(memory, page);
        list_add(memory, page);
    }
    return page->bytes;
}

/* A page to fill: a new one, or at the limit the oldest, taken out of table and list. */
static struct page *take(struct page_memory *memory)
{
    struct page *page = memory->oldest;
    struct page **link;

    if (memory->count < memory->limit || !page) {
        page = malloc(sizeof(*page));
        memory->count += page != NULL;
        return page;
    }
    list_remove(memory, page);
    for (link = bucket_of(memory, page->number); *link != page; link = &(*link)->same_bucket)
        ;
    *link = page->same_bucket;
    return page;
}

void page_memory_keep(struct page_memory *memory, uint64_t number, const uint8_t bytes[MAP_PAGE_SIZE])
{
    struct page *page;

    if (lookup(memory, number))
        return;
    page = take(memory);
    if (!page)
        return;
    page->number = number;
    memcpy(page->bytes, bytes, MAP_PAGE_SIZE);
    page->same_bucket = *bucket_of(memory, number);
    *bucket_of(memory, number) = page;
    list_add(memory, page);
}
