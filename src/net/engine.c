/*
 * The engine: libcurl's multi interface driven through epoll, so that a turn
 * costs what is ready and not what is open. Slots (a curl handle with its
 * memory) are made once and reused.
 */
#include "net/engine.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/answer.h"
#include "net/meter.h"

enum {
    HTTP2_STREAMS = 96,
    MAX_REDIRECTS = 5,
    RECEIVE_BUFFER = 64 * 1024, /* curl's; larger ones come from mmap each time */
    ERROR_PAGE = 64 * 1024,     /* read to its end up to this, so that the connection can be kept */
    KEEP_BYTES = 128 * 1024,    /* memory that an idle slot holds on to */
    MAX_RETRY_AFTER_S = 3600,
    EVENTS = 64,
};

/* A curl handle and what goes with it while a transfer is under way. */
struct slot {
    struct slot *next; /* in the list of active or idle slots */
    struct slot **link;
    struct engine *engine;
    CURL *easy;
    struct transfer *transfer;
    struct answer answer;
    bool judged; /* the header was looked at */
    bool paused; /* for the rate limit */
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
    struct engine_counts *counts;
    CURLM *multi;
    int epoll_fd, wake_fd;
    struct slot *active, *idle;
    struct meter meter;
    unsigned paused_count;
    uint64_t now_ms;         /* at the last turn */
    uint64_t timer_ms;       /* when curl wants to be called, 0: not */
    uint64_t stall_check_ms; /* no transfer can have stalled before */
    struct curl_slist *fresh_headers;
};

/* ---- Results ---- */

static void slot_fail(struct slot *slot, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void slot_fail(struct slot *slot, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(slot->reason, sizeof(slot->reason), format, arguments);
    va_end(arguments);
    slot->code = code;
}

/* "10 s", "250 ms" */
static const char *duration(unsigned ms, char text[24])
{
    if (ms % 1000)
        snprintf(text, 24, "%u ms", ms);
    else
        snprintf(text, 24, "%u s", ms / 1000);
    return text;
}

static const char *connect_reason(int os_error)
{
    switch (os_error) {
    case ECONNREFUSED:
        return "connection refused";
    case EHOSTUNREACH:
        return "no route to host";
    case ENETUNREACH:
    case ENETDOWN:
        return "network unreachable";
    case ECONNRESET:
    case EPIPE:
        return "connection reset";
    case ETIMEDOUT:
        return "connection timed out";
    default:
        return NULL;
    }
}

static long get_long(struct slot *slot, CURLINFO info)
{
    long value = 0;

    curl_easy_getinfo(slot->easy, info, &value);
    return value;
}

/* What curl's result means; a table for those that need no look at anything else. */
static const struct outcome {
    CURLcode result;
    int code;
    const char *reason; /* NULL: curl's own words */
} outcomes[] = {
    {CURLE_URL_MALFORMAT, ERROR_INVALID, "malformed URL"},
    {CURLE_COULDNT_RESOLVE_HOST, ERROR_UNAVAILABLE, "name unknown"},
    {CURLE_COULDNT_RESOLVE_PROXY, ERROR_UNAVAILABLE, "name of the proxy unknown"},
    {CURLE_GOT_NOTHING, ERROR_UNAVAILABLE, "connection closed without an answer"},
    {CURLE_WEIRD_SERVER_REPLY, ERROR_UNAVAILABLE, "the answer is not HTTP"},
    {CURLE_TOO_MANY_REDIRECTS, ERROR_INVALID, "too many redirects"},
    {CURLE_PEER_FAILED_VERIFICATION, ERROR_UNTRUSTED, NULL},
    {CURLE_SSL_ISSUER_ERROR, ERROR_UNTRUSTED, NULL},
    {CURLE_SSL_INVALIDCERTSTATUS, ERROR_UNTRUSTED, NULL},
    {CURLE_SSL_CACERT_BADFILE, ERROR_INVALID, "cannot use the file of trusted certificates"},
    {CURLE_SSL_CERTPROBLEM, ERROR_INVALID, "cannot use the client certificate"},
    {CURLE_OUT_OF_MEMORY, ERROR_SYSTEM, "no memory"},
};

static void classify_by_table(struct slot *slot, CURLcode result)
{
    struct outcome outcome = {result, ERROR_UNAVAILABLE, NULL};
    const char *words = slot->curl_message[0] ? slot->curl_message : curl_easy_strerror(result);

    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
        if (outcomes[i].result == result)
            outcome = outcomes[i];
    slot_fail(slot, outcome.code, "%s", outcome.reason ? outcome.reason : words);
}

/* A transfer that curl ended with RESULT, not 0, and that is not our own doing. */
static void classify(struct slot *slot, CURLcode result)
{
    const char *connection = connect_reason((int)get_long(slot, CURLINFO_OS_ERRNO));
    long proxy_status = get_long(slot, CURLINFO_HTTP_CONNECTCODE);
    char text[24];

    if (result == CURLE_OPERATION_TIMEDOUT)
        slot_fail(slot, ERROR_UNAVAILABLE, "no connection within %s", duration(slot->engine->settings->connect_timeout_ms, text));
    else if (result == CURLE_PARTIAL_FILE && slot->answer.body != ANSWER_UNKNOWN)
        slot_fail(slot, ERROR_CORRUPT, "ended after %" PRIu64 " of %" PRIu64 " bytes", slot->answer.seen,
                  slot->answer.body);
    else if (result == CURLE_PARTIAL_FILE)
        slot_fail(slot, ERROR_CORRUPT, "ended early, after %" PRIu64 " bytes", slot->answer.seen);
    else if (result == CURLE_UNSUPPORTED_PROTOCOL && get_long(slot, CURLINFO_REDIRECT_COUNT))
        slot_fail(slot, ERROR_INVALID, "redirected to where it must not lead");
    else if (result == CURLE_UNSUPPORTED_PROTOCOL)
        slot_fail(slot, ERROR_UNAVAILABLE, "the answer is not HTTP");
    else if (proxy_status >= 400)
        slot_fail(slot, proxy_status >= 500 ? ERROR_UNAVAILABLE : ERROR_INVALID, "HTTP status %ld from the proxy",
                  proxy_status);
    else if (connection && (result == CURLE_COULDNT_CONNECT || result == CURLE_RECV_ERROR ||
                            result == CURLE_SEND_ERROR || result == CURLE_SSL_CONNECT_ERROR))
        slot_fail(slot, ERROR_UNAVAILABLE, "%s", connection);
    else
        classify_by_table(slot, result);
}

/* ---- The body ---- */

static void judge(struct slot *slot)
{
    struct answer_header header = {.status = get_long(slot, CURLINFO_RESPONSE_CODE)};
    struct curl_header *range;
    curl_off_t length = -1;

    slot->judged = true;
    curl_easy_getinfo(slot->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    header.content_length = length;
    if (header.status != 200 &&
        curl_easy_header(slot->easy, "Content-Range", 0, CURLH_HEADER, -1, &range) == CURLHE_OK)
        header.content_range = range->value;
    slot->code = answer_judge(&slot->answer, &slot->transfer->request, &header, slot->reason);
}

static size_t on_body(char *bytes, size_t one, size_t count, void *user)
{
    struct slot *slot = user;
    struct engine *engine = slot->engine;
    size_t size = one * count;
    int result;

    if (!meter_spend(&engine->meter, size)) {
        slot->paused = true;
        engine->paused_count++;
        return CURL_WRITEFUNC_PAUSE;
    }
    slot->progress_ms = engine->now_ms;
    atomic_fetch_add_explicit(&engine->counts->bytes, size, memory_order_relaxed);
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

/* ---- Slots ---- */

static void link_active(struct engine *engine, struct slot *slot)
{
    slot->next = engine->active;
    slot->link = &engine->active;
    if (slot->next)
        slot->next->link = &slot->next;
    engine->active = slot;
}

static void unlink_active(struct slot *slot)
{
    *slot->link = slot->next;
    if (slot->next)
        slot->next->link = slot->link;
}

static void slot_destroy(struct slot *slot)
{
    if (!slot)
        return;
    if (slot->easy)
        curl_easy_cleanup(slot->easy);
    buffer_finish(&slot->answer.bytes);
    free(slot);
}

/* The options that are the same for every request. */
static void slot_prepare(struct slot *slot)
{
    struct engine *engine = slot->engine;
    const char *no_proxy;
    CURL *easy = slot->easy;

    curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->curl_message);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "circular");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)engine->settings->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    no_proxy = engine->settings->no_proxy ? engine->settings->no_proxy : "";
    curl_easy_setopt(easy, CURLOPT_NOPROXY, no_proxy);
    if (engine->settings->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, engine->settings->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (engine->settings->client_certificate)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, engine->settings->client_certificate);
}

/* An idle slot, or a new one. NULL: no memory. */
static struct slot *slot_get(struct engine *engine)
{
    struct slot *slot = engine->idle;

    if (slot) {
        engine->idle = slot->next;
        return slot;
    }
    slot = calloc(1, sizeof(*slot));
    if (!slot)
        return NULL;
    slot->engine = engine;
    slot->easy = curl_easy_init();
    if (!slot->easy) {
        slot_destroy(slot);
        return NULL;
    }
    slot_prepare(slot);
    return slot;
}

static void slot_put(struct slot *slot)
{
    struct engine *engine = slot->engine;

    if (slot->answer.bytes.capacity > KEEP_BYTES)
        buffer_finish(&slot->answer.bytes);
    slot->transfer = NULL;
    slot->next = engine->idle;
    engine->idle = slot;
}

/* The range of REQUEST as curl wants it, or NULL for everything. */
static const char *range_text(const struct http_request *request, char text[48])
{
    if (request->length)
        snprintf(text, 48, "%" PRIu64 "-%" PRIu64, request->offset, request->offset + request->length - 1);
    else if (request->offset)
        snprintf(text, 48, "%" PRIu64 "-", request->offset);
    else
        return NULL;
    return text;
}

/* The options that each request sets anew. */
static void slot_configure(struct slot *slot)
{
    const struct engine *engine = slot->engine;
    const struct transfer *transfer = slot->transfer;
    const struct queue_host *host = transfer->item.host;
    bool secure = url_is_secure(transfer->url);
    const char *named = secure ? engine->settings->https_proxy : engine->settings->proxy;
    const char *proxy = named ? named : ""; /* NULL would let curl look into the environment */
    const char *token = host->first ? engine->settings->bearer_token : NULL;
    const char *range, *redirects;
    char text[48];
    struct curl_slist *headers;
    long authentication;
    CURL *easy = slot->easy;

    curl_easy_setopt(easy, CURLOPT_URL, transfer->request.url);
    range = range_text(&transfer->request, text);
    curl_easy_setopt(easy, CURLOPT_RANGE, range);
    headers = transfer->request.fresh ? engine->fresh_headers : NULL;
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    redirects = secure ? "https" : "http,https";
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, redirects);
    /* Only TLS can turn out to be HTTP/2, for which it pays to wait before opening more connections. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, (long)secure);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, (long)host->suspect);
    curl_easy_setopt(easy, CURLOPT_PROXY, proxy);
    authentication = token ? (long)CURLAUTH_BEARER : (long)CURLAUTH_BASIC;
    curl_easy_setopt(easy, CURLOPT_HTTPAUTH, authentication);
    curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token);
}

/* Start a transfer that was taken from the queue. */
void engine_start(struct engine *engine, struct transfer *transfer)
{
    struct slot *slot = slot_get(engine);
    unsigned stall_ms = transfer->request.stall_timeout_ms;

    if (!slot) {
        queue_done(&transfer->item);
        transfer_fail(transfer, ERROR_SYSTEM, "no memory for the transfer");
        return;
    }
    slot->transfer = transfer;
    answer_begin(&slot->answer);
    slot->judged = slot->paused = false;
    slot->code = 0;
    slot->first_byte_us = 0;
    slot->reason[0] = slot->curl_message[0] = '\0';
    slot->started_us = clock_us();
    slot->progress_ms = slot->started_us / 1000;
    slot->stall_ms = stall_ms && stall_ms < engine->settings->stall_timeout_ms ? stall_ms : engine->settings->stall_timeout_ms;
    engine->stall_check_ms = min_u64(engine->stall_check_ms, slot->progress_ms + slot->stall_ms);
    slot_configure(slot);
    link_active(engine, slot);
    curl_multi_add_handle(engine->multi, slot->easy);
}

static uint64_t retry_after_ms(struct slot *slot)
{
    curl_off_t seconds = 0;

    if (slot->code != ERROR_UNAVAILABLE)
        return 0;
    curl_easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &seconds);
    return seconds <= 0 ? 0 : min_u64((uint64_t)seconds, MAX_RETRY_AFTER_S) * 1000;
}

/* The transfer of SLOT is over, slot->code says how: give back the slot's place, then tell. */
static void finish(struct slot *slot)
{
    struct engine *engine = slot->engine;
    struct transfer *transfer = slot->transfer;
    struct http_response response = {
        .code = slot->code,
        .status = get_long(slot, CURLINFO_RESPONSE_CODE),
        .retry_after_ms = retry_after_ms(slot),
        .first_byte_us = slot->first_byte_us,
        .total_us = clock_us() - slot->started_us,
    };

    if (response.status && get_long(slot, CURLINFO_HTTP_VERSION) == CURL_HTTP_VERSION_2_0 &&
        transfer->item.host->limit < HTTP2_STREAMS)
        transfer->item.host->limit = HTTP2_STREAMS;
    if (response.code == 0 && !transfer->request.data) {
        response.bytes = slot->answer.bytes.bytes;
        response.size = slot->answer.bytes.size;
        response.body = &slot->answer.bytes;
    }
    curl_multi_remove_handle(engine->multi, slot->easy);
    unlink_active(slot);
    engine->paused_count -= slot->paused;
    queue_done(&transfer->item);
    if (response.status)
        atomic_fetch_add_explicit(&engine->counts->requests, 1, memory_order_relaxed);
    transfer_end(transfer, &response, slot->reason);
    slot_put(slot);
}

/* Curl says that the transfer of SLOT ended with RESULT. */
static void conclude(struct slot *slot, CURLcode result)
{
    struct queue_host *host = slot->transfer->item.host;

    if (result == CURLE_OK) {
        host->suspect = false;
        if (!slot->judged)
            judge(slot);
    }
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
    struct epoll_event event = {.data.fd = fd};

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(engine->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    epoll_ctl(engine->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
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

static void check_stalls(struct engine *engine)
{
    struct slot *next;
    char text[24];

    if (engine->now_ms < engine->stall_check_ms)
        return;
    engine->stall_check_ms = UINT64_MAX;
    for (struct slot *slot = engine->active; slot; slot = next) {
        uint64_t due = slot->progress_ms + slot->stall_ms;

        next = slot->next;
        if (due > engine->now_ms || slot->paused) {
            engine->stall_check_ms = min_u64(engine->stall_check_ms, max_u64(due, engine->now_ms + 10));
            continue;
        }
        if (slot->code == 0)
            slot_fail(slot, ERROR_UNAVAILABLE, "no data for %s", duration(slot->stall_ms, text));
        /* HTTP/2 keeps a connection that lost one stream: let go of one that may be dead. */
        slot->transfer->item.host->suspect = true;
        curl_easy_setopt(slot->easy, CURLOPT_FORBID_REUSE, 1L);
        finish(slot);
        curl_easy_setopt(slot->easy, CURLOPT_FORBID_REUSE, 0L);
    }
}

/* Let paused transfers go on, those that somebody waits for first. */
static void resume_paused(struct engine *engine)
{
    struct slot *next;

    if (engine->meter.bytes_per_second == 0)
        return;
    meter_fill(&engine->meter, clock_us());
    for (int priority = 0; priority < PRIORITY_COUNT; priority++) {
        for (struct slot *slot = engine->active; slot && engine->paused_count; slot = next) {
            next = slot->next;
            if (engine->meter.account < 0)
                return;
            if (!slot->paused || (int)slot->transfer->request.priority != priority)
                continue;
            slot->paused = false;
            engine->paused_count--;
            slot->progress_ms = engine->now_ms;
            curl_easy_pause(slot->easy, CURLPAUSE_CONT);
        }
    }
}

static bool is_owned(const struct transfer *transfer, const void *owner)
{
    return !owner || transfer->request.owner == owner;
}

void engine_cancel(struct engine *engine, const void *owner)
{
    struct slot *next;

    for (struct slot *slot = engine->active; slot; slot = next) {
        next = slot->next;
        if (!is_owned(slot->transfer, owner))
            continue;
        slot_fail(slot, ERROR_CANCELLED, "cancelled");
        finish(slot);
    }
}

/* How long epoll may sleep, in milliseconds. */
static int sleep_ms(const struct engine *engine)
{
    uint64_t until = min_u64(engine->stall_check_ms, engine->timer_ms ? engine->timer_ms : UINT64_MAX);
    uint64_t now_ms = clock_ms();
    uint64_t ms = until > now_ms ? until - now_ms : 0;

    if (engine->paused_count)
        ms = min_u64(ms, max_u64(meter_wait_ms(&engine->meter), 2));
    return until == UINT64_MAX && !engine->paused_count ? -1 : (int)min_u64(ms, INT_MAX);
}

static void act_on(struct engine *engine, const struct epoll_event *event)
{
    int what = (event->events & EPOLLIN ? CURL_CSELECT_IN : 0) | (event->events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (event->events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    eventfd_t ignored;
    int running;

    if (event->data.fd == engine->wake_fd)
        eventfd_read(engine->wake_fd, &ignored);
    else
        curl_multi_socket_action(engine->multi, event->data.fd, what, &running);
}

void engine_turn(struct engine *engine, bool busy)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(engine->epoll_fd, events, EVENTS, busy ? 0 : sleep_ms(engine));

    engine->now_ms = clock_ms();
    resume_paused(engine);
    for (int i = 0; i < count; i++)
        act_on(engine, &events[i]);
    run_timer(engine);
    collect(engine);
    check_stalls(engine);
}

void engine_wake(struct engine *engine)
{
    eventfd_write(engine->wake_fd, 1);
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
    /* Otherwise a lull closes all but a few of the connections. */
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 2L * (long)engine->settings->connections_per_host);
    return 0;
}

static int set_up_epoll(struct engine *engine, struct error *error)
{
    struct epoll_event event = {.events = EPOLLIN};

    engine->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event.data.fd = engine->wake_fd;
    if (engine->epoll_fd < 0 || engine->wake_fd < 0 ||
        epoll_ctl(engine->epoll_fd, EPOLL_CTL_ADD, engine->wake_fd, &event))
        return error_set_errno(error, errno, "cannot set up the HTTP client");
    return 0;
}

int engine_create(const struct http_settings *settings, struct engine_counts *counts, struct engine **engine_out,
                  struct error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct engine *engine = calloc(1, sizeof(*engine));
    int result;

    pthread_once(&once, set_up_curl);
    if (!engine)
        return error_set(error, ERROR_SYSTEM, "no memory for the HTTP client");
    engine->settings = settings;
    engine->counts = counts;
    engine->epoll_fd = engine->wake_fd = -1;
    engine->stall_check_ms = UINT64_MAX;
    engine->meter.bytes_per_second = settings->rate_limit;
    engine->now_ms = clock_ms();
    result = set_up_multi(engine, error);
    if (!result)
        result = set_up_epoll(engine, error);
    if (result) {
        engine_destroy(engine);
        return result;
    }
    *engine_out = engine;
    return 0;
}

void engine_destroy(struct engine *engine)
{
    if (!engine)
        return;
    while (engine->idle) {
        struct slot *slot = engine->idle;

        engine->idle = slot->next;
        slot_destroy(slot);
    }
    curl_multi_cleanup(engine->multi);
    curl_slist_free_all(engine->fresh_headers);
    if (engine->epoll_fd >= 0)
        close(engine->epoll_fd);
    if (engine->wake_fd >= 0)
        close(engine->wake_fd);
    free(engine);
}
