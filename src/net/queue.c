/* Waiting requests: one list a priority and host. */
#include "net/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HTTP2_STREAMS = 96 };

void queue_finish(struct queue *queue)
{
    while (queue->hosts) {
        struct queue_host *host = queue->hosts;

        queue->hosts = host->next;
        free(host);
    }
}

static struct queue_host *find_host(const struct queue *queue, const char *name)
{
    struct queue_host *host = queue->hosts;

    while (host && strcmp(host->name, name))
        host = host->next;
    return host;
}

bool queue_knows(const struct queue *queue, const char *name)
{
    return find_host(queue, name) != NULL;
}

struct queue_host *queue_host(struct queue *queue, const char *name)
{
    struct queue_host *host = find_host(queue, name);

    if (host)
        return host;
    host = calloc(1, sizeof(*host));
    if (!host)
        return NULL;
    snprintf(host->name, sizeof(host->name), "%s", name);
    host->limit = queue->limit;
    host->first = !queue->hosts;
    for (int i = 0; i < PRIORITY_COUNT; i++)
        host->tails[i] = &host->heads[i];
    host->next = queue->hosts;
    queue->hosts = host;
    return host;
}

void queue_multiplexes(struct queue_host *host)
{
    host->multiplexes = true;
    if (host->limit < HTTP2_STREAMS)
        host->limit = HTTP2_STREAMS;
}

void queue_push(struct queue *queue, struct queue_item *item)
{
    struct queue_host *host = item->host;

    (void)queue;
    item->next = NULL;
    *host->tails[item->priority] = item;
    host->tails[item->priority] = &item->next;
}

/* Background work leaves three eighths of the places free, so that a reader never waits for one to become so. */
static unsigned allowance(const struct queue *queue, const struct queue_host *host, enum priority priority)
{
    static const unsigned eighths[PRIORITY_COUNT] = {
        [PRIORITY_READER] = 8, [PRIORITY_READAHEAD] = 7, [PRIORITY_PROFILE] = 6, [PRIORITY_FILL] = 5};
    unsigned places = queue->no_readers ? host->limit : host->limit * eighths[priority] / 8;

    return places ? places : 1;
}

struct queue_item *queue_take(struct queue *queue)
{
    for (int priority = 0; priority < PRIORITY_COUNT; priority++) {
        for (struct queue_host *host = queue->hosts; host; host = host->next) {
            struct queue_item *item = host->heads[priority];

            if (!item || host->active >= allowance(queue, host, (enum priority)priority))
                continue;
            host->heads[priority] = item->next;
            if (!item->next)
                host->tails[priority] = &host->heads[priority];
            host->active++;
            return item;
        }
    }
    return NULL;
}

void queue_done(struct queue_item *item)
{
    item->host->active--;
}

/* Move the matching items of one list to *REMOVED. */
static void remove_from(struct queue_host *host, int priority,
                        bool (*matches)(const struct queue_item *item, const void *what), const void *what,
                        struct queue_item **removed)
{
    struct queue_item **link = &host->heads[priority];

    while (*link) {
        struct queue_item *item = *link;

        if (matches(item, what)) {
            *link = item->next;
            item->next = *removed;
            *removed = item;
        } else {
            link = &item->next;
        }
    }
    host->tails[priority] = link;
}

struct queue_item *queue_remove(struct queue *queue, bool (*matches)(const struct queue_item *item, const void *what),
                                const void *what)
{
    struct queue_item *removed = NULL;

    for (struct queue_host *host = queue->hosts; host; host = host->next)
        for (int priority = 0; priority < PRIORITY_COUNT; priority++)
            remove_from(host, priority, matches, what, &removed);
    return removed;
}
