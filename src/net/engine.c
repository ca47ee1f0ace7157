/*
 * The engine: libcurl's multi interface driven by sockets, so that a turn
 * costs what is ready and not what is open. Slots (a curl handle with its
 * memory) are made once and reused.
 */
#include "net/engine.h"

#include <curl/curl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "net/answer.h"
#include "net/engine_certificate.h"
#include "net/engine_facts.h"
#include "net/engine_outcome.h"
#include "net/meter.h"
#include "net/reason.h"
#include "net/spares.h"

enum {
    MAX_REDIRECTS = 5,
    RECEIVE_BUFFER = 64 * 1024, /* curl's; larger ones come from mmap each time */
    ERROR_PAGE = 64 * 1024,     /* read to its end up to this, so that the connection can be kept */
    KEEP_BYTES = 128 * 1024,    /* memory that an idle slot holds on to */
};

LIST_HEAD(slot_list, slot);

/* A curl handle and what goes with it while a transfer is under way. */
struct slot {
    LIST_ENTRY(slot) entry; /* in the list of active or idle slots */
    struct engine *engine;
    CURL *easy;
    struct transfer *transfer;
    struct answer answer;
    bool judged; /* the header was looked at */
    bool connected; /* the socket was a spare one */
    bool opened; /* a socket: its address was the first one tried */
    bool paused; /* for the rate limit, or because there is no room for its bytes */
    int code;    /* of the response, with REASON */
    uint64_t started_us;
    uint64_t first_byte_us;
    uint64_t progress_ms; /* when something last moved */
    unsigned stall_ms;
    char reason[REASON_SIZE];
    char curl_message[CURL_ERROR_SIZE];
};

struct engine {
    const struct http_settings *settings;
    const struct queue *queue; /* whose hosts are those that were asked themselves */
    struct engine_counts *counts;
    CURLM *multi;
    struct poller *poller;
    struct slot_list active, idle;
    struct meter meter;
    struct spares spares;
    uint64_t spares_ms; /* when to look for those that nobody has taken; UINT64_MAX: there are none */
    unsigned active_count, shared_count, paused_count; /* transfers: all, shared ones, those that rest */
    bool found_dead;         /* in this turn: a host */
    uint64_t now_ms;         /* at the last turn */
    uint64_t timer_ms;       /* when curl wants to be called, 0: not */
    uint64_t stall_check_ms; /* no transfer can have stalled before */
    struct curl_slist *fresh_headers;
};

/* ---- Results ---- */

static __attribute__((format(printf, 3, 4))) void slot_fail(struct slot *slot, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(slot->reason, sizeof(slot->reason), format, arguments);
    va_end(arguments);
    slot->code = code;
}

/* A transfer that curl ended with RESULT, not 0, and that is not our own doing. */
static void classify(struct slot *slot, CURLcode result)
{
    slot->code = result == CURLE_PARTIAL_FILE
                     ? answer_cut_short(&slot->answer, slot->reason)
                     : engine_outcome(slot->easy, result, slot->curl_message,
                                      slot->engine->settings->connect_timeout_ms, slot->reason);
}

/* ---- The body ---- */

static void judge(struct slot *slot)
{
    struct answer_header header = {.status = engine_number(slot->easy, CURLINFO_RESPONSE_CODE)};
    struct curl_header *range;
    curl_off_t length = -1;

    slot->judged = true;
    curl_easy_getinfo(slot->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    header.content_length = length;
    if (header.status != 200 &&
        curl_easy_header(slot->easy, "Content-Range", 0, CURLH_HEADER, -1, &range) == CURLHE_OK)
        header.content_range = range->value;
    if (slot->transfer->request.facts)
        engine_note_facts(slot->easy, &slot->transfer->request, &header);
    slot->code = answer_judge(&slot->answer, &slot->transfer->request, &header, slot->reason);
}

static bool has_room(const struct slot *slot)
{
    const struct http_request *request = &slot->transfer->request;

    return !request->ready || request->ready(request->user);
}

static size_t on_body(char *bytes, size_t one, size_t count, void *user)
{
    struct slot *slot = user;
    struct engine *engine = slot->engine;
    size_t size = one * count;
    int result;

    if (!has_room(slot) || !meter_spend(&engine->meter, size)) {
        slot->paused = true;
        engine->paused_count++;
        return CURL_WRITEFUNC_PAUSE;
    }
    slot->progress_ms = slot->transfer->item.host->progress_ms = engine->now_ms;
    atomic_fetch_add_explicit(&engine->counts->bytes[slot->transfer->request.priority], size, memory_order_relaxed);
    if (!slot->judged) {
        slot->first_byte_us = clock_us() - slot->started_us;
        judge(slot);
    }
    if (slot->code) {
        slot->answer.seen += size;
        return slot->answer.seen > ERROR_PAGE ? 0 : size;
    }
    result = answer_take(&slot->answer, &slot->transfer->request, (uint8_t *)bytes, size, slot->reason);
    slot->code = result < 0 ? result : 0;
    return result ? 0 : size;
}

/* ---- Connecting ---- */

static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct slot *slot = user;
    struct engine *engine = slot->engine;
    const struct transfer *transfer = slot->transfer;
    const struct queue_host *host = transfer->item.host;
    unsigned busy = host->active + engine->spares.count; /* this one included */
    unsigned more = (unsigned)min_u64(transfer->request.more_soon, host->limit > busy ? host->limit - busy : 0);
    bool anew = host->suspect || transfer->request.reconnect, first = !slot->opened;
    int fd = anew ? -1 : spares_take(&engine->spares, &address->addr, address->addrlen);

    (void)purpose;
    slot->opened = true;
    if ((slot->connected = fd >= 0))
        return fd;
    if (first && more && !url_is_secure(transfer->url)) {
        spares_open(&engine->spares, &address->addr, address->addrlen, more, engine->now_ms);
        engine->spares_ms = engine->now_ms; /* to be set in the next turn */
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol); /* CURL_SOCKET_BAD is -1 */
}

static int on_opened(void *user, curl_socket_t fd, curlsocktype purpose)
{
    const struct slot *slot = user;

    (void)fd;
    (void)purpose;
    return slot->connected ? CURL_SOCKOPT_ALREADY_CONNECTED : CURL_SOCKOPT_OK;
}

/* ---- Slots ---- */

/* The options that are the same for every request. */
static void slot_prepare(struct slot *slot)
{
    struct engine *engine = slot->engine;
    CURL *easy = slot->easy;

    curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->curl_message);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, slot);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_opened);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, slot);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* Or giving up a lookup of a name would wait for it, and everything else with it. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "circular");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)engine->settings->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, engine->settings->no_proxy);
    engine_set_certificates(easy, engine->settings, engine->queue);
}

/* An idle slot, or a new one. NULL: no memory. */
static struct slot *slot_get(struct engine *engine)
{
    struct slot *slot = LIST_FIRST(&engine->idle);

    if (slot) {
        LIST_REMOVE(slot, entry);
        return slot;
    }
    slot = calloc(1, sizeof(*slot));
    if (!slot)
        return NULL;
    slot->engine = engine;
    slot->easy = curl_easy_init();
    if (slot->easy) {
        slot_prepare(slot);
        return slot;
    }
    free(slot);
    return NULL;
}

/* The options that each request sets anew. */
static void slot_configure(struct slot *slot)
{
    const struct engine *engine = slot->engine;
    const struct transfer *transfer = slot->transfer;
    const struct queue_host *host = transfer->item.host;
    bool secure = url_is_secure(transfer->url);
    const char *proxy = secure ? engine->settings->https_proxy : engine->settings->proxy;
    const char *token = host->first ? engine->settings->bearer_token : NULL;
    char text[RANGE_TEXT];
    const char *range = answer_range_text(&transfer->request, text);
    const char *redirects = secure ? "https" : "http,https"; /* never from TLS down to plain text */
    struct curl_slist *headers = transfer->request.fresh ? engine->fresh_headers : NULL;
    long authentication = token ? (long)CURLAUTH_BEARER : (long)CURLAUTH_BASIC;
    CURL *easy = slot->easy;

    curl_easy_setopt(easy, CURLOPT_URL, transfer->request.url);
    curl_easy_setopt(easy, CURLOPT_RANGE, range);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, redirects);
    /* Only TLS can turn out to be HTTP/2, for which it pays to wait before opening more connections. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, (long)secure);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, (long)(host->suspect || transfer->request.reconnect));
    curl_easy_setopt(easy, CURLOPT_PROXY, proxy);
    curl_easy_setopt(easy, CURLOPT_HTTPAUTH, authentication);
    curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token);
}

/* CHANGE is 1 or -1. Beyond the limit libcurl closes the longest idle connection; its own limit is low in a lull. */
static void count(struct engine *engine, const struct transfer *transfer, int change)
{
    engine->active_count += (unsigned)change;
    engine->shared_count += transfer->request.shared ? (unsigned)change : 0;
    curl_multi_setopt(engine->multi, CURLMOPT_MAXCONNECTS,
                      (long)(engine->shared_count ? engine->active_count : 2 * engine->settings->connections_per_host));
}

/* Start a transfer that was taken from the queue. */
void engine_start(struct engine *engine, struct transfer *transfer)
{
    struct slot *slot = slot_get(engine);
    unsigned wanted_ms = transfer->request.stall_timeout_ms, most_ms = engine->settings->stall_timeout_ms;

    if (!slot) {
        queue_done(&transfer->item);
        transfer_fail(transfer, ERROR_SYSTEM, "no memory for the transfer");
        return;
    }
    slot->transfer = transfer;
    answer_begin(&slot->answer);
    slot->judged = slot->paused = slot->opened = false;
    slot->code = 0;
    slot->first_byte_us = 0;
    slot->reason[0] = slot->curl_message[0] = '\0';
    slot->started_us = clock_us();
    slot->progress_ms = slot->started_us / 1000;
    slot->stall_ms = wanted_ms && wanted_ms < most_ms ? wanted_ms : most_ms;
    engine->stall_check_ms = min_u64(engine->stall_check_ms, slot->progress_ms + slot->stall_ms);
    slot_configure(slot);
    LIST_INSERT_HEAD(&engine->active, slot, entry);
    count(engine, transfer, 1);
    curl_multi_add_handle(engine->multi, slot->easy);
}

/* The transfer of SLOT is over, slot->code says how: give back the slot's place, then tell. */
static void finish(struct slot *slot)
{
    struct engine *engine = slot->engine;
    struct transfer *transfer = slot->transfer;
    struct http_response response = {
        .code = slot->code,
        .status = engine_number(slot->easy, CURLINFO_RESPONSE_CODE),
        .retry_after_ms = slot->code == ERROR_UNAVAILABLE ? engine_retry_after_ms(slot->easy) : 0,
        .first_byte_us = slot->first_byte_us,
        .total_us = clock_us() - slot->started_us,
    };

    if (response.status && engine_number(slot->easy, CURLINFO_HTTP_VERSION) == CURL_HTTP_VERSION_2_0)
        queue_multiplexes(transfer->item.host);
    if (response.code == 0 && !transfer->request.data) {
        response.bytes = slot->answer.bytes.bytes;
        response.size = slot->answer.bytes.size;
        response.body = &slot->answer.bytes;
    }
    curl_multi_remove_handle(engine->multi, slot->easy);
    LIST_REMOVE(slot, entry);
    count(engine, transfer, -1);
    engine->paused_count -= slot->paused;
    queue_done(&transfer->item);
    if (response.status)
        atomic_fetch_add_explicit(&engine->counts->requests[transfer->request.priority], 1, memory_order_relaxed);
    transfer_end(transfer, &response, slot->reason);
    if (slot->answer.bytes.capacity > KEEP_BYTES)
        buffer_finish(&slot->answer.bytes);
    LIST_INSERT_HEAD(&engine->idle, slot, entry);
}

/* SLOT waited in vain. If its host gave nothing to anybody, then who queues for it should not wait in vain, too. */
static void note_silence(struct slot *slot)
{
    struct queue_host *host = slot->transfer->item.host;

    if (host->progress_ms <= slot->progress_ms)
        host->dead = slot->engine->found_dead = true;
}

/* Curl says that the transfer of SLOT ended with RESULT. */
static void conclude(struct slot *slot, CURLcode result)
{
    struct queue_host *host = slot->transfer->item.host;
    long status = engine_number(slot->easy, CURLINFO_RESPONSE_CODE);

    if (result == CURLE_OPERATION_TIMEDOUT)
        note_silence(slot);
    if (result == CURLE_OK) {
        host->suspect = false;
        host->progress_ms = slot->engine->now_ms;
    }
    /* Also a header without its body says something; but one of a redirect is not the last word. */
    if (!slot->judged && (result == CURLE_OK || (status >= 200 && status / 100 != 3)))
        judge(slot);
    if (slot->code == 0 && result && !slot->answer.complete)
        classify(slot, result);
    if (slot->code == 0)
        slot->code = answer_end(&slot->answer, slot->reason);
    finish(slot);
}

/* ---- The loop ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    struct engine *engine = user;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        poller_forget(engine->poller, fd);
        return 0;
    }
    poller_watch(engine->poller, fd, what & CURL_POLL_IN, what & CURL_POLL_OUT, known);
    if (!known)
        curl_multi_assign(engine->multi, fd, engine); /* any mark will do */
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct engine *engine = user;

    (void)multi;
    engine->timer_ms = timeout_ms < 0 ? 0 : clock_ms() + (uint64_t)timeout_ms;
    return 0;
}

static void run_timer(struct engine *engine)
{
    int running;

    if (engine->timer_ms == 0 || engine->timer_ms > engine->now_ms)
        return;
    engine->timer_ms = 0;
    curl_multi_socket_action(engine->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

static void collect(struct engine *engine)
{
    struct CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(engine->multi, &left))) {
        CURLcode result = message->data.result;
        struct slot *slot = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
        conclude(slot, result);
    }
}

/*
 * When SLOT counts as stalled unless something moves before. One stream of many on a slow HTTP/2 connection may have to
 * wait for the others, which is no stall yet.
 */
static uint64_t stall_due_ms(const struct slot *slot)
{
    const struct queue_host *host = slot->transfer->item.host;
    uint64_t due = slot->progress_ms + slot->stall_ms;

    if (!host->multiplexes)
        return due;
    return max_u64(due, min_u64(host->progress_ms + slot->stall_ms, due + 3 * (uint64_t)slot->stall_ms));
}

static void stall(struct slot *slot)
{
    char text[REASON_DURATION];

    note_silence(slot);
    if (slot->code == 0 && !slot->answer.complete)
        slot_fail(slot, ERROR_UNAVAILABLE, "no data for %s", reason_duration(slot->stall_ms, text));
    /* HTTP/2 keeps a connection that lost one stream: let go of one that may be dead. */
    slot->transfer->item.host->suspect = true;
    curl_easy_setopt(slot->easy, CURLOPT_FORBID_REUSE, 1L);
    finish(slot);
    curl_easy_setopt(slot->easy, CURLOPT_FORBID_REUSE, 0L);
}

static void check_stalls(struct engine *engine)
{
    struct slot *next;

    if (engine->now_ms < engine->stall_check_ms)
        return;
    engine->stall_check_ms = UINT64_MAX;
    for (struct slot *slot = LIST_FIRST(&engine->active); slot; slot = next) {
        uint64_t due = stall_due_ms(slot);

        next = LIST_NEXT(slot, entry);
        if (due > engine->now_ms || slot->paused)
            engine->stall_check_ms = min_u64(engine->stall_check_ms, max_u64(due, engine->now_ms + 10));
        else
            stall(slot);
    }
}

/* Let paused transfers go on, those that somebody waits for first. */
static void resume_paused(struct engine *engine)
{
    struct slot *next;
    CURLcode result;

    if (engine->paused_count == 0)
        return;
    meter_fill(&engine->meter, clock_us());
    for (int priority = 0; priority < PRIORITY_COUNT; priority++) {
        for (struct slot *slot = LIST_FIRST(&engine->active); slot && engine->paused_count; slot = next) {
            next = LIST_NEXT(slot, entry);
            if (engine->meter.account < 0)
                return;
            if (!slot->paused || (int)slot->transfer->request.priority != priority || !has_room(slot))
                continue;
            slot->paused = false;
            engine->paused_count--;
            slot->progress_ms = engine->now_ms;
            result = curl_easy_pause(slot->easy, CURLPAUSE_CONT);
            if (result) /* what was kept back has ended it, and curl tells nobody else */
                conclude(slot, result);
        }
    }
}

void engine_cancel(struct engine *engine, const struct selection *selection)
{
    struct slot *next;

    for (struct slot *slot = LIST_FIRST(&engine->active); slot; slot = next) {
        next = LIST_NEXT(slot, entry);
        if (!transfer_is_selected(slot->transfer, selection))
            continue;
        slot_fail(slot, ERROR_CANCELLED, "cancelled");
        finish(slot);
    }
}

/* How long epoll may sleep, in milliseconds. */
static int sleep_ms(const struct engine *engine)
{
    uint64_t until = min_u64(min_u64(engine->stall_check_ms, engine->spares_ms),
                             engine->timer_ms ? engine->timer_ms : UINT64_MAX);
    uint64_t now_ms = clock_ms();
    uint64_t ms = until > now_ms ? until - now_ms : 0;

    if (engine->paused_count)
        ms = min_u64(ms, max_u64(meter_wait_ms(&engine->meter), 2));
    return until == UINT64_MAX && !engine->paused_count ? -1 : (int)min_u64(ms, INT_MAX);
}

static int select_bits(uint32_t events)
{
    return (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
           (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
}

bool engine_turn(struct engine *engine, bool busy)
{
    struct epoll_event events[POLLER_EVENTS];
    int count = poller_wait(engine->poller, busy ? 0 : sleep_ms(engine), events), running;

    engine->now_ms = clock_ms();
    engine->found_dead = false;
    resume_paused(engine);
    for (int i = 0; i < count; i++)
        curl_multi_socket_action(engine->multi, events[i].data.fd, select_bits(events[i].events), &running);
    run_timer(engine);
    collect(engine);
    check_stalls(engine);
    if (engine->now_ms >= engine->spares_ms)
        engine->spares_ms = spares_expire(&engine->spares, engine->now_ms);
    return engine->found_dead;
}

/* ---- Making one ---- */

static void set_up_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int set_up_multi(struct engine *engine, struct error *error)
{
    CURLM *multi = engine->multi = curl_multi_init();

    engine->fresh_headers = curl_slist_append(NULL, "Cache-Control: no-cache");
    if (!multi || !engine->fresh_headers)
        return error_set(error, ERROR_SYSTEM, "no memory for the HTTP client");
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, engine);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, engine);
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
    return 0;
}

int engine_create(const struct http_settings *settings, const struct queue *queue, struct poller *poller,
                  struct engine_counts *counts, struct engine **engine_out, struct error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct engine *engine = calloc(1, sizeof(*engine));
    int result;

    pthread_once(&once, set_up_curl);
    if (!engine)
        return error_set(error, ERROR_SYSTEM, "no memory for the HTTP client");
    engine->settings = settings;
    engine->queue = queue;
    engine->counts = counts;
    engine->poller = poller;
    engine->stall_check_ms = engine->spares_ms = UINT64_MAX;
    engine->meter.bytes_per_second = settings->rate_limit;
    engine->now_ms = clock_ms();
    result = set_up_multi(engine, error);
    if (result) {
        engine_destroy(engine);
        return result;
    }
    *engine_out = engine;
    return 0;
}

void engine_destroy(struct engine *engine)
{
    struct slot *slot;

    if (!engine)
        return;
    while ((slot = LIST_FIRST(&engine->idle))) {
        LIST_REMOVE(slot, entry);
        curl_easy_cleanup(slot->easy);
        buffer_finish(&slot->answer.bytes);
        free(slot);
    }
    curl_multi_cleanup(engine->multi);
    spares_finish(&engine->spares);
    curl_slist_free_all(engine->fresh_headers);
    free(engine);
}
