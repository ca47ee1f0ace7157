/*
 * The HTTP client: what other threads ask for comes in over a list under a
 * lock, waits in the queue of its host, and is handed to the engine when its
 * turn has come. Queue and engine belong to the client's thread alone.
 */
#include "net/http.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/latch.h"
#include "net/engine.h"
#include "net/url.h"

enum { DEFAULT_CONNECTIONS = 96, DEFAULT_STALL_MS = 10000, DEFAULT_CONNECT_MS = 5000 };

/* An http_cancel that waits for the thread, or an http_abandon that does not. */
struct cancellation {
    struct cancellation *next;
    struct selection selection;
    bool awaited; /* else it is on the heap */
    struct latch latch;
};

struct http_client {
    pthread_mutex_t lock; /* a leaf; over the next six */
    struct transfer *inbox, **inbox_tail;
    struct cancellation *cancellations;
    bool sleeping; /* the thread must be woken */
    bool stopping;
    bool stopped; /* nothing is taken any more */

    struct http_settings settings; /* strings owned */
    struct engine_counts counts;
    struct queue queue;
    struct poller poller;
    struct engine *engine;
    pthread_t thread;
};

/* ---- The thread ---- */

/* A URL or a certificate may hold what a terminal would obey. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

void transfer_end(struct transfer *transfer, struct http_response *response, const char *reason)
{
    char url[600];

    response->reason = "";
    if (response->code) {
        url_redact(transfer->url, url, sizeof(url));
        error_set(&response->error, response->code, "%s: %s", url, reason);
        make_printable(response->error.message);
        response->reason = response->error.message + strlen(url) + 2;
    }
    transfer->request.done(transfer->request.user, response);
    free(transfer);
}

void transfer_fail(struct transfer *transfer, int code, const char *reason)
{
    struct http_response response = {.code = code};

    transfer_end(transfer, &response, reason);
}

/* Give a transfer from the inbox to its host's queue. */
static void enqueue(struct http_client *client, struct transfer *transfer)
{
    char name[URL_HOST_SIZE];
    uint64_t end;

    if (!url_host(transfer->url, name, sizeof(name))) {
        transfer_fail(transfer, ERROR_INVALID, "not a URL of a web server");
        return;
    }
    if (!checked_add(transfer->request.offset, transfer->request.length, &end)) {
        transfer_fail(transfer, ERROR_INVALID, "the range ends behind any file");
        return;
    }
    transfer->item.host = queue_host(&client->queue, name);
    transfer->item.priority = transfer->request.priority;
    if (transfer->item.host)
        queue_push(&client->queue, &transfer->item);
    else
        transfer_fail(transfer, ERROR_SYSTEM, "no memory for the request");
}

static bool is_selected(const struct queue_item *item, const void *selection)
{
    return transfer_is_selected((const struct transfer *)item, selection);
}

static bool is_for_dead_host(const struct queue_item *item, const void *unused)
{
    (void)unused;
    return item->host->dead;
}

/* Fail a list of transfers. */
static void fail_all(struct queue_item *item, int code, const char *reason)
{
    while (item) {
        struct transfer *transfer = (struct transfer *)item;

        item = item->next;
        transfer_fail(transfer, code, reason);
    }
}

/* Let go of those that wait for a host that is silent: they are better tried elsewhere, or later. */
static void fail_dead(struct http_client *client)
{
    struct queue_item *items = queue_remove(&client->queue, is_for_dead_host, NULL);

    for (struct queue_host *host = client->queue.hosts; host; host = host->next)
        host->dead = false;
    fail_all(items, ERROR_UNAVAILABLE, "the server gives no answer to other requests");
}

static void cancel(struct http_client *client, const struct selection *selection)
{
    fail_all(queue_remove(&client->queue, is_selected, selection), ERROR_CANCELLED, "cancelled");
    engine_cancel(client->engine, selection);
}

/* Take what other threads left for this one. */
static void drain_inbox(struct http_client *client)
{
    struct cancellation *cancellation;
    struct transfer *transfer;

    pthread_mutex_lock(&client->lock);
    transfer = client->inbox;
    cancellation = client->cancellations;
    client->inbox = NULL;
    client->inbox_tail = &client->inbox;
    client->cancellations = NULL;
    client->sleeping = false;
    pthread_mutex_unlock(&client->lock);
    while (transfer) {
        struct transfer *next = (struct transfer *)transfer->item.next;

        enqueue(client, transfer);
        transfer = next;
    }
    while (cancellation) {
        struct cancellation *next = cancellation->next;

        cancel(client, &cancellation->selection);
        if (cancellation->awaited)
            latch_set(&cancellation->latch, 0, NULL);
        else
            free(cancellation);
        cancellation = next;
    }
}

/* Start what may start. True if anything did. */
static bool start_queued(struct http_client *client)
{
    struct queue_item *item = queue_take(&client->queue);

    if (!item)
        return false;
    for (; item; item = queue_take(&client->queue))
        engine_start(client->engine, (struct transfer *)item);
    return true;
}

static bool inbox_is_empty(const struct http_client *client)
{
    return !client->inbox && !client->cancellations;
}

/* False if there is something to do; otherwise the thread counts as sleeping. */
static bool may_sleep(struct http_client *client)
{
    bool may;

    pthread_mutex_lock(&client->lock);
    may = inbox_is_empty(client) && !client->stopping;
    client->sleeping = may;
    pthread_mutex_unlock(&client->lock);
    return may;
}

/* True at the end, when nothing is left to be taken from the inbox: from then on nothing comes in. */
static bool is_stopping(struct http_client *client, bool *stopped_out)
{
    bool stopping;

    pthread_mutex_lock(&client->lock);
    stopping = client->stopping;
    client->stopped = stopping && inbox_is_empty(client);
    *stopped_out = client->stopped;
    pthread_mutex_unlock(&client->lock);
    return stopping;
}

static void *client_main(void *user)
{
    struct http_client *client = user;
    bool stopped = false;
    sigset_t all;

    /* Signals are the program's business; and a write on a TLS connection may raise SIGPIPE here. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!stopped) {
        bool started;

        drain_inbox(client);
        if (is_stopping(client, &stopped)) {
            cancel(client, &(struct selection){.owner = NULL});
            continue;
        }
        started = start_queued(client);
        if (engine_turn(client->engine, started || !may_sleep(client)))
            fail_dead(client);
    }
    return NULL;
}

/* ---- For all threads ---- */

void http_fetch(struct http_client *client, const struct http_request *request)
{
    size_t length = strlen(request->url);
    struct transfer *transfer = malloc(sizeof(*transfer) + length + 1);
    bool wake, stopped;

    if (!transfer) {
        struct http_response response = {.code = ERROR_SYSTEM, .reason = "no memory"};

        error_set(&response.error, ERROR_SYSTEM, "no memory for a request");
        request->done(request->user, &response);
        return;
    }
    memcpy(transfer->url, request->url, length + 1);
    transfer->request = *request;
    transfer->request.url = transfer->url;
    transfer->item.next = NULL;

    pthread_mutex_lock(&client->lock);
    stopped = client->stopped;
    wake = client->sleeping && !stopped;
    if (!stopped) {
        *client->inbox_tail = transfer;
        client->inbox_tail = (struct transfer **)&transfer->item.next;
        client->sleeping = false;
    }
    pthread_mutex_unlock(&client->lock);
    if (wake)
        poller_wake(&client->poller);
    if (stopped)
        transfer_fail(transfer, ERROR_CANCELLED, "cancelled");
}

/* False: the client is stopped, nothing is under way. */
static bool submit_cancellation(struct http_client *client, struct cancellation *cancellation)
{
    bool stopped, wake;

    pthread_mutex_lock(&client->lock);
    stopped = client->stopped;
    wake = client->sleeping && !stopped;
    if (!stopped) {
        cancellation->next = client->cancellations;
        client->cancellations = cancellation;
        client->sleeping = false;
    }
    pthread_mutex_unlock(&client->lock);
    if (wake)
        poller_wake(&client->poller);
    return !stopped;
}

void http_cancel(struct http_client *client, const void *owner)
{
    struct cancellation cancellation = {.selection.owner = owner, .awaited = true};

    latch_init(&cancellation.latch);
    if (submit_cancellation(client, &cancellation))
        latch_wait(&cancellation.latch, NULL);
    latch_finish(&cancellation.latch);
}

void http_abandon(struct http_client *client, const void *owner, uint64_t tag)
{
    struct cancellation *cancellation = calloc(1, sizeof(*cancellation));

    if (!cancellation)
        return; /* then it goes on to its end */
    cancellation->selection = (struct selection){.owner = owner, .tag = tag};
    if (!submit_cancellation(client, cancellation))
        free(cancellation);
}

void http_client_count(struct http_client *client, struct http_counts *counts_out)
{
    for (int i = 0; i < PRIORITY_COUNT; i++) {
        counts_out->bytes[i] = atomic_load_explicit(&client->counts.bytes[i], memory_order_relaxed);
        counts_out->requests[i] = atomic_load_explicit(&client->counts.requests[i], memory_order_relaxed);
    }
}

/* ---- Making one ---- */

/* The strings of the settings, for copying and releasing. */
static const char **setting_string(struct http_settings *settings, size_t index)
{
    const char **strings[] = {&settings->ca_file,  &settings->client_certificate, &settings->proxy,
                              &settings->no_proxy, &settings->https_proxy,        &settings->bearer_token};

    return index < sizeof(strings) / sizeof(strings[0]) ? strings[index] : NULL;
}

static bool is_proxy_setting(struct http_settings *settings, const char **string)
{
    return string == &settings->proxy || string == &settings->no_proxy || string == &settings->https_proxy;
}

static bool copy_settings(const struct http_settings *from, struct http_settings *to)
{
    const char **string;

    *to = *from;
    for (size_t i = 0; (string = setting_string(to, i)); i++)
        *string = NULL;
    for (size_t i = 0; (string = setting_string(to, i)); i++) {
        const char *value = *setting_string((struct http_settings *)from, i);

        if (!value && is_proxy_setting(to, string))
            value = ""; /* NULL would let libcurl look into the environment */
        if (value && !(*string = strdup(value)))
            return false;
    }
    to->connections_per_host = from->connections_per_host ? from->connections_per_host : DEFAULT_CONNECTIONS;
    to->stall_timeout_ms = from->stall_timeout_ms ? from->stall_timeout_ms : DEFAULT_STALL_MS;
    to->connect_timeout_ms = from->connect_timeout_ms ? from->connect_timeout_ms : DEFAULT_CONNECT_MS;
    return true;
}

/* Everything but the thread. */
static void release(struct http_client *client)
{
    const char **string;

    engine_destroy(client->engine);
    poller_close(&client->poller);
    queue_finish(&client->queue);
    pthread_mutex_destroy(&client->lock);
    for (size_t i = 0; (string = setting_string(&client->settings, i)); i++)
        free((char *)*string);
    free(client);
}

int http_client_create(const struct http_settings *settings, struct http_client **client_out, struct error *error)
{
    struct http_client *client = calloc(1, sizeof(*client));
    int result;

    if (!client)
        return error_set(error, ERROR_SYSTEM, "no memory for the HTTP client");
    pthread_mutex_init(&client->lock, NULL);
    client->inbox_tail = &client->inbox;
    client->poller = POLLER_INIT;
    if (copy_settings(settings, &client->settings))
        result = poller_open(&client->poller, error);
    else
        result = error_set(error, ERROR_SYSTEM, "no memory for the HTTP client");
    if (!result)
        result = engine_create(&client->settings, &client->queue, &client->poller, &client->counts, &client->engine, error);
    client->queue.limit = client->settings.connections_per_host;
    client->queue.no_readers = client->settings.no_readers;
    if (!result) {
        int failure = pthread_create(&client->thread, NULL, client_main, client);

        if (failure)
            result = error_set_errno(error, failure, "cannot start the thread of the HTTP client");
    }
    if (result) {
        release(client);
        return result;
    }
    *client_out = client;
    return 0;
}

void http_client_destroy(struct http_client *client)
{
    if (!client)
        return;
    pthread_mutex_lock(&client->lock);
    client->stopping = true;
    pthread_mutex_unlock(&client->lock);
    poller_wake(&client->poller);
    pthread_join(client->thread, NULL);
    release(client);
}
