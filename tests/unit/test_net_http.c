/* The HTTP client against a server that misbehaves: what comes back, what is said, and that nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/latch.h"
#include "liar.h"
#include "net/http.h"

#define SIZE 300000 /* of the file "big" */
#define NO_RULE NULL

static struct liar liar;
static struct http_client *client;
static uint8_t *content;

static int set_up(void **state)
{
    struct http_settings settings = {.stall_timeout_ms = 400};

    (void)state;
    content = malloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        content[i] = (uint8_t)(i * 7 + i / 256);
    liar_start(&liar, NULL);
    liar_put(&liar, "big", content, SIZE);
    liar_put(&liar, "small", content, 10);
    liar_put(&liar, "empty", content, 0);
    return http_client_create(&settings, &client, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    http_client_destroy(client);
    liar_finish(&liar);
    free(content);
    return 0;
}

static int reset(void **state)
{
    (void)state;
    liar_reset(&liar);
    return 0;
}

/* A fetch that is waited for. */
struct answer {
    struct latch latch;
    struct buffer body;
    struct error error;
    char reason[200];
    long status;
    uint64_t retry_after_ms;
    int code;
    int times;
};

static void on_done(void *user, const struct http_response *response)
{
    struct answer *answer = user;

    answer->code = response->code;
    answer->error = response->error;
    snprintf(answer->reason, sizeof(answer->reason), "%s", response->reason);
    answer->status = response->status;
    answer->retry_after_ms = response->retry_after_ms;
    answer->times++;
    buffer_append(&answer->body, response->bytes, response->size);
    latch_set(&answer->latch, 0, NULL);
}

static void begin(struct http_client *with, const struct http_request *request, const char *base, const char *path,
                  struct answer *answer)
{
    struct http_request copy = *request;
    char url[300];

    memset(answer, 0, sizeof(*answer));
    latch_init(&answer->latch);
    snprintf(url, sizeof(url), "%s%s", base, path);
    copy.url = url;
    copy.done = on_done;
    copy.user = answer;
    http_fetch(with, &copy);
}

static int finish(struct answer *answer)
{
    latch_wait(&answer->latch, NULL);
    assert_int_equal(answer->times, 1);
    latch_finish(&answer->latch);
    buffer_finish(&answer->body);
    return answer->code;
}

static int get(struct http_client *with, const char *base, const char *path, struct answer *answer)
{
    struct http_request request = {.size_limit = SIZE};

    begin(with, &request, base, path, answer);
    return finish(answer);
}

#define assert_says(error, text)                                                                                \
    do {                                                                                                        \
        if (!strstr((error).message, text))                                                                     \
            fail_msg("\"%s\" is not in \"%s\"", text, (error).message);                                         \
    } while (0)

/* One row a kind of answer: what the server does, what is asked for, what must come back. */
static const struct row {
    const char *behaviour, *path;
    uint64_t offset, length;
    size_t size_limit;
    int code;
    uint64_t first, count; /* of the content's bytes, when code is 0 */
    const char *reason;
} rows[] = {
    {NO_RULE, "/big", 0, 0, SIZE, 0, 0, SIZE, ""},
    {NO_RULE, "/big", 0, 0, 0, 0, 0, SIZE, ""},
    {NO_RULE, "/big", 5, 10, 10, 0, 5, 10, ""},
    {NO_RULE, "/big", 0, 1, 10, 0, 0, 1, ""},
    {NO_RULE, "/big", SIZE - 5, 0, 10, 0, SIZE - 5, 5, ""},
    {NO_RULE, "/big", SIZE - 5, 10, 10, 0, SIZE - 5, 5, ""},
    {NO_RULE, "/big", SIZE, 10, 10, 0, 0, 0, ""},
    {NO_RULE, "/big", SIZE + 5000, 0, 10, 0, 0, 0, ""},
    {NO_RULE, "/empty", 0, 0, 10, 0, 0, 0, ""},
    {NO_RULE, "/empty", 0, 100, 100, 0, 0, 0, ""},
    {"chunked", "/big", 0, 0, SIZE, 0, 0, SIZE, ""},
    {"chunked", "/big", 100, 70000, SIZE, 0, 100, 70000, ""},
    {"delay:100", "/big", 0, 0, SIZE, 0, 0, SIZE, ""},
    {"redirect:/small", "/big", 0, 0, SIZE, 0, 0, 10, ""},
    /* A server that ignores ranges. */
    {"no-range", "/big", 5, 10, 10, 0, 5, 10, ""},
    {"no-range", "/big", 150000, 100000, SIZE, 0, 150000, 100000, ""},
    {"no-range", "/big", SIZE - 5, 10, 10, 0, SIZE - 5, 5, ""},
    {"no-range", "/big", SIZE + 5, 10, 10, 0, 0, 0, ""},
    {"endless", "/big", 5, 10, 10, 0, 5, 10, NULL}, /* chunked 206 without end: corrupt, see below */
    /* Not the bytes that were asked for. */
    {"wrong-range", "/big", 5, 10, 10, ERROR_CORRUPT, 0, 0, "asked for 10 bytes at 5 but got \"bytes 6-15/300000\""},
    {"truncate", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "ended after 150000 of 300000 bytes"},
    {"truncate", "/big", 10, 100, SIZE, ERROR_UNAVAILABLE, 0, 0, "ended after 50 of 100 bytes"},
    {"short", "/big", 10, 100, SIZE, ERROR_CORRUPT, 0, 0, "declares 50 bytes for the range \"bytes 10-109/300000\""},
    {"oversize", "/big", 0, 0, SIZE, ERROR_CORRUPT, 0, 0, "17077216 bytes, more than the 300000 expected at most"},
    {"oversize", "/big", 5, 10, SIZE, ERROR_CORRUPT, 0, 0, "declares 16777226 bytes for the range"},
    {"endless", "/small", 0, 0, SIZE, ERROR_CORRUPT, 0, 0, "more than the 300000 bytes expected at most"},
    {NO_RULE, "/big", 0, 0, SIZE - 1, ERROR_CORRUPT, 0, 0, "300000 bytes, more than the 299999 expected at most"},
    /* Statuses. */
    {NO_RULE, "/nothing", 0, 0, SIZE, ERROR_NOT_FOUND, 0, 0, "HTTP status 404"},
    {"status:404", "/big", 0, 0, SIZE, ERROR_NOT_FOUND, 0, 0, "HTTP status 404"},
    {"status:410", "/big", 5, 5, SIZE, ERROR_NOT_FOUND, 0, 0, "HTTP status 410"},
    {"status:500", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "HTTP status 500"},
    {"status:503", "/big", 5, 5, SIZE, ERROR_UNAVAILABLE, 0, 0, "HTTP status 503"},
    {"status:429", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "HTTP status 429"},
    {"status:408", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "HTTP status 408"},
    {"status:401", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "HTTP status 401"},
    {"status:403", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "HTTP status 403"},
    {"status:304", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "HTTP status 304"},
    {"status:206", "/big", 0, 0, SIZE, ERROR_CORRUPT, 0, 0, "HTTP status 206"},
    {"status:206", "/big", 5, 5, SIZE, ERROR_CORRUPT, 0, 0, "206 without a valid Content-Range"},
    {"status:416", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "HTTP status 416"},
    {"redirect:loop", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "too many redirects"},
    {"redirect:ftp://127.0.0.1/x", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "redirected to where it must not lead"},
    {"redirect:file:///etc/passwd", "/big", 0, 0, SIZE, ERROR_INVALID, 0, 0, "redirected to where it must not lead"},
    /* The network. */
    {"close", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "connection closed without an answer"},
    {"reset", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "connection reset"},
    {"hang", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "no data for 400 ms"},
    {"stall", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "no data for 400 ms"},
    {"garbage", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "the answer is not HTTP"},
};

static void every_answer_is_told_for_what_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        struct http_request request = {.offset = row->offset, .length = row->length, .size_limit = row->size_limit};
        bool endless_range = !row->reason;
        int code = endless_range ? ERROR_CORRUPT : row->code;
        struct answer answer;

        liar_reset(&liar);
        if (row->behaviour)
            liar_tell(&liar, "big|small", row->behaviour, !strcmp(row->behaviour, "redirect:/small"));
        begin(client, &request, liar.url, row->path, &answer);
        latch_wait(&answer.latch, NULL);
        if (answer.code != code || !strstr(answer.reason, row->reason ? row->reason : "more than the 10 bytes"))
            fail_msg("row %zu, %s: %d %s", i, row->behaviour, answer.code, answer.error.message);
        if (code == 0) {
            assert_int_equal(answer.body.size, row->count);
            assert_memory_equal(answer.body.bytes, content + row->first, row->count);
        } else {
            assert_says(answer.error, row->path);
            assert_int_equal(answer.body.size, 0);
        }
        finish(&answer);
    }
}

static void unreachable_places_are_named(void **state)
{
    struct answer answer;
    char nobody[64];

    (void)state;
    snprintf(nobody, sizeof(nobody), "http://user:secret@127.0.0.1:%d", liar_free_port());
    assert_int_equal(get(client, nobody, "/x?token=1", &answer), ERROR_UNAVAILABLE);
    assert_string_equal(answer.reason, "connection refused");
    assert_null(strstr(answer.error.message, "secret"));
    assert_null(strstr(answer.error.message, "token"));
    assert_says(answer.error, "/x: connection refused");
    assert_int_equal(get(client, "http://nobody.invalid", "/x", &answer), ERROR_UNAVAILABLE);
    assert_string_equal(answer.reason, "name unknown");
    assert_int_equal(get(client, "ftp://127.0.0.1", "/x", &answer), ERROR_INVALID);
    assert_int_equal(get(client, "file:///etc", "/passwd", &answer), ERROR_INVALID);
    assert_int_equal(get(client, "http://", "/x", &answer), ERROR_INVALID);
    assert_int_equal(get(client, "http://127.0.0.1:99999", "/x", &answer), ERROR_INVALID);
    assert_int_equal(get(client, "http://127.0.0.1", "/a b", &answer), ERROR_INVALID);
    assert_int_equal(get(client, "http://127.0.0.1", "/a\r\nX: \033[2J", &answer), ERROR_INVALID);
    assert_says(answer.error, "/a??X: ?[2J");
}

static void a_server_that_ignores_ranges_is_broken_off(void **state)
{
    struct http_request request = {.offset = 100, .length = 50, .size_limit = 50};
    struct answer answer;
    struct http_counts before, after;

    (void)state;
    http_client_count(client, &before);
    liar_tell(&liar, "big", "no-range", 0);
    begin(client, &request, liar.url, "/big", &answer);
    assert_int_equal(finish(&answer), 0);
    http_client_count(client, &after);
    assert_true(after.bytes[PRIORITY_READER] - before.bytes[PRIORITY_READER] < SIZE / 2);
    assert_int_equal(after.requests[PRIORITY_READER] - before.requests[PRIORITY_READER], 1);
}

static void facts_come_with_the_answer(void **state)
{
    struct http_facts facts = {0};
    struct http_request request = {.offset = 100, .length = 50, .size_limit = 50, .facts = &facts};
    struct answer answer;

    (void)state;
    begin(client, &request, liar.url, "/big", &answer);
    assert_int_equal(finish(&answer), 0);
    assert_int_equal(facts.object_size, SIZE);
    assert_false(facts.ignores_ranges);
    assert_string_equal(facts.url, "");
    liar_tell(&liar, "big", "no-range", 0);
    begin(client, &request, liar.url, "/big", &answer);
    assert_int_equal(finish(&answer), 0);
    assert_int_equal(facts.object_size, SIZE);
    assert_true(facts.ignores_ranges);
    liar_reset(&liar);
    liar_tell(&liar, "^/elsewhere", "redirect:/big", 0);
    begin(client, &request, liar.url, "/elsewhere", &answer);
    assert_int_equal(finish(&answer), 0);
    assert_non_null(strstr(facts.url, "/big"));
    liar_tell(&liar, "big", "no-range", 0);
    request.range_only = true;
    begin(client, &request, liar.url, "/big", &answer);
    assert_int_equal(finish(&answer), ERROR_UNSUPPORTED);
    assert_says(answer.error, "ignores ranges");
}

static void slow_is_not_stalled(void **state)
{
    struct answer answer;
    uint64_t start_ms = clock_ms();

    (void)state;
    liar_tell(&liar, "small", "slow:10", 0); /* 100 ms a byte, one second in all; a stall is 400 ms */
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    assert_true(clock_ms() - start_ms > 450);
}

static void a_request_can_be_less_patient(void **state)
{
    struct http_request request = {.size_limit = SIZE, .stall_timeout_ms = 50};
    uint64_t start_ms = clock_ms();
    struct answer answer;

    (void)state;
    liar_tell(&liar, "big", "stall", 0);
    begin(client, &request, liar.url, "/big", &answer);
    assert_int_equal(finish(&answer), ERROR_UNAVAILABLE);
    assert_string_equal(answer.reason, "no data for 50 ms");
    assert_true(clock_ms() - start_ms < 300);
}

static void retry_after_is_passed_on(void **state)
{
    struct answer answer;

    (void)state;
    liar_tell(&liar, "big", "retry-after:7", 1);
    assert_int_equal(get(client, liar.url, "/big", &answer), ERROR_UNAVAILABLE);
    assert_int_equal(answer.status, 503);
    assert_int_equal(answer.retry_after_ms, 7000);
    liar_tell(&liar, "big", "retry-after:999999", 1);
    get(client, liar.url, "/big", &answer);
    assert_int_equal(answer.retry_after_ms, 3600 * 1000);
}

static void fresh_asks_caches_to_ask(void **state)
{
    struct http_request request = {.size_limit = SIZE, .fresh = true};
    struct answer answer;

    (void)state;
    begin(client, &request, liar.url, "/small", &answer);
    assert_int_equal(finish(&answer), 0);
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "fresh"), 1);
}

static void connections_are_kept(void **state)
{
    struct answer answer;

    (void)state;
    for (int i = 0; i < 20; i++)
        assert_int_equal(get(client, liar.url, i % 2 ? "/small" : "/nothing", &answer),
                         i % 2 ? 0 : ERROR_NOT_FOUND);
    assert_true(liar_count(&liar, "connections") <= 3); /* one of them asks for the count */
}

/* Bytes as they arrive. */
struct stream {
    uint64_t at;
    uint64_t stop_at;
    bool wrong;
    struct answer answer;
};

static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct stream *stream = user;

    stream->wrong |= stream->at + size > SIZE || memcmp(bytes, content + stream->at, size);
    stream->at += size;
    return !stream->stop_at || stream->at < stream->stop_at;
}

static void on_stream_done(void *user, const struct http_response *response)
{
    on_done(&((struct stream *)user)->answer, response);
}

static void bytes_can_be_had_as_they_arrive(void **state)
{
    struct stream stream = {0};
    struct http_request request = {.data = on_data, .done = on_stream_done, .user = &stream};
    char url[100];

    (void)state;
    snprintf(url, sizeof(url), "%s/big", liar.url);
    request.url = url;
    latch_init(&stream.answer.latch);
    http_fetch(client, &request);
    assert_int_equal(finish(&stream.answer), 0);
    assert_int_equal(stream.at, SIZE);
    assert_false(stream.wrong);

    stream = (struct stream){.stop_at = 1000};
    latch_init(&stream.answer.latch);
    http_fetch(client, &request);
    assert_int_equal(finish(&stream.answer), ERROR_CANCELLED);
    assert_true(stream.at < SIZE);
}

/* ---- Many ---- */

struct tally {
    atomic_int left, good, cancelled;
    struct latch latch;
};

static void on_tally(void *user, const struct http_response *response)
{
    struct tally *tally = user;

    tally->good += response->code == 0;
    tally->cancelled += response->code == ERROR_CANCELLED;
    if (--tally->left == 0)
        latch_set(&tally->latch, 0, NULL);
}

static void fetch_many(struct http_client *with, struct tally *tally, int count, enum priority priority,
                       const void *owner)
{
    char url[100];

    snprintf(url, sizeof(url), "%s/big", liar.url);
    tally->left = count;
    latch_init(&tally->latch);
    for (int i = 0; i < count; i++)
        http_fetch(with, &(struct http_request){.url = url, .priority = priority, .size_limit = SIZE,
                                                .done = on_tally, .user = tally, .owner = owner});
}

static struct http_client *make(const struct http_settings *settings)
{
    struct http_client *with;

    assert_int_equal(http_client_create(settings, &with, NULL), 0);
    return with;
}

static void many_run_at_once_but_not_too_many(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct tally tally = {0};

    (void)state;
    liar_tell(&liar, "big", "delay:20", 0);
    fetch_many(with, &tally, 100, PRIORITY_READER, NULL);
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 100);
    /* The server may count one as running when its answer is already here. */
    assert_in_range(liar_count(&liar, "most_parallel"), 4, 12);
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

static void a_reader_passes_the_background(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct tally tally = {0};
    struct answer answer;
    uint64_t start_ms;

    (void)state;
    liar_tell(&liar, "big", "delay:2000", 0);
    fetch_many(with, &tally, 200, PRIORITY_FILL, NULL);
    while (liar_count(&liar, "total") < 4)
        usleep(1000);
    start_ms = clock_ms();
    assert_int_equal(get(with, liar.url, "/small", &answer), 0);
    assert_true(clock_ms() - start_ms < 500);
    assert_int_equal(tally.left, 200);
    http_client_destroy(with);
    assert_int_equal(tally.cancelled, 200);
    latch_finish(&tally.latch);
}

static void a_stalled_host_does_not_hold_up_another(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 4});
    struct tally tally = {0};
    struct liar other;
    struct answer answer;
    uint64_t start_ms = clock_ms();

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    liar_tell(&liar, "big", "hang", 0);
    fetch_many(with, &tally, 50, PRIORITY_READER, NULL);
    assert_int_equal(get(with, other.url, "/small", &answer), 0);
    assert_true(clock_ms() - start_ms < 3000);
    http_client_destroy(with);
    assert_int_equal(tally.cancelled, 50);
    latch_finish(&tally.latch);
    liar_finish(&other);
}

/* Without this, each would wait for its own turn to find out. */
static void who_queues_for_a_silent_host_is_told_soon(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 4, .stall_timeout_ms = 400});
    struct tally tally = {0};
    uint64_t start_ms = clock_ms();

    (void)state;
    liar_tell(&liar, "big", "hang", 0);
    fetch_many(with, &tally, 50, PRIORITY_READER, NULL);
    latch_wait(&tally.latch, NULL);
    assert_in_range(clock_ms() - start_ms, 400, 1500);
    assert_int_equal(tally.good + tally.cancelled, 0);
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

static void an_owner_s_requests_can_be_cancelled(void **state)
{
    struct http_client *with = make(&(struct http_settings){.connections_per_host = 8});
    struct tally mine = {0}, others = {0};

    (void)state;
    liar_tell(&liar, "big", "delay:200", 0);
    fetch_many(with, &mine, 50, PRIORITY_READER, &mine);
    fetch_many(with, &others, 20, PRIORITY_READER, &others);
    while (liar_count(&liar, "total") < 4)
        usleep(1000);
    http_cancel(with, &mine);
    assert_int_equal(mine.left, 0);
    assert_true(mine.cancelled > 40);
    latch_wait(&others.latch, NULL);
    assert_int_equal(others.good, 20);
    latch_finish(&mine.latch);
    latch_finish(&others.latch);
    http_client_destroy(with);
}

static void the_rate_is_kept(void **state)
{
    struct http_client *with = make(&(struct http_settings){.rate_limit = 2000000, .stall_timeout_ms = 300});
    struct tally tally = {0};
    uint64_t start_ms = clock_ms();

    (void)state;
    fetch_many(with, &tally, 8, PRIORITY_FILL, NULL); /* 2.4 MB */
    latch_wait(&tally.latch, NULL);
    assert_int_equal(tally.good, 8);
    assert_in_range(clock_ms() - start_ms, 1000, 2500);
    latch_finish(&tally.latch);
    http_client_destroy(with);
}

/* ---- Proxies, credentials, TLS ---- */

static void a_proxy_is_used_but_for_hosts_that_are_excepted(void **state)
{
    struct http_client *with = make(&(struct http_settings){.proxy = liar.url, .no_proxy = "direct.invalid,127.0.0.1"});
    struct answer answer;

    (void)state;
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* the environment is the program's business, not ours */
    assert_int_equal(get(with, "http://somewhere.invalid", "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "proxied"), 1);
    assert_int_equal(get(with, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "proxied"), 1);
    assert_int_equal(get(with, "http://direct.invalid", "/small", &answer), ERROR_UNAVAILABLE);
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    unsetenv("http_proxy");
    http_client_destroy(with);
}

static void the_token_goes_to_the_first_host_only(void **state)
{
    struct http_client *with = make(&(struct http_settings){.bearer_token = "abc"});
    struct liar other;
    struct answer answer;
    char redirect[100];

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    assert_int_equal(get(with, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 1);
    assert_int_equal(get(with, other.url, "/small", &answer), 0);
    snprintf(redirect, sizeof(redirect), "redirect:%s/small", other.url);
    liar_tell(&liar, "big", redirect, 0);
    assert_int_equal(get(with, liar.url, "/big", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 2);
    assert_int_equal(liar_count(&other, "total"), 2);
    assert_int_equal(liar_count(&other, "authorized"), 0);
    liar_finish(&other);
    http_client_destroy(with);
}

static void credentials_of_a_url_stay_with_its_host(void **state)
{
    char url[100], redirect[100];
    struct liar other;
    struct answer answer;

    (void)state;
    liar_start(&other, NULL);
    liar_put(&other, "small", content, 10);
    snprintf(url, sizeof(url), "http://me:secret@127.0.0.1:%d", liar.port);
    snprintf(redirect, sizeof(redirect), "redirect:%s/small", other.url);
    assert_int_equal(get(client, url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 1);
    liar_tell(&liar, "big", redirect, 0);
    assert_int_equal(get(client, url, "/big", &answer), 0);
    assert_int_equal(liar_count(&other, "authorized"), 0);
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    assert_int_equal(liar_count(&liar, "authorized"), 2);
    liar_finish(&other);
}

/* Have an HTTPS server redirect to a plain one. */
static void redirect_over_tls(struct liar *secure, const char *url)
{
    char body[200], command[600];

    snprintf(body, sizeof(body), "{\"match\": \"big\", \"behaviour\": \"redirect:%s/small\"}", url);
    snprintf(command, sizeof(command),
             "printf 'POST /_control HTTP/1.1\\r\\nConnection: close\\r\\nContent-Length: %zu\\r\\n\\r\\n%s' | "
             "openssl s_client -quiet -connect 127.0.0.1:%d 2>/dev/null | grep -q ' 200 OK'",
             strlen(body), body, secure->port);
    assert_int_equal(system(command), 0);
}

static void tls_is_verified(void **state)
{
    char command[1000], certificate[128];
    struct http_client *with;
    struct liar secure;
    struct answer answer;

    (void)state;
    snprintf(certificate, sizeof(certificate), "%s/pair.pem", liar.folder);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
             "-keyout %s -out %s.crt 2>/dev/null && cat %s.crt >>%s",
             certificate, certificate, certificate, certificate);
    if (system(command))
        skip();
    liar_start(&secure, certificate);
    liar_put(&secure, "big", content, SIZE);
    assert_int_equal(get(client, secure.url, "/big", &answer), ERROR_UNTRUSTED);
    assert_says(answer.error, "certificate");
    with = make(&(struct http_settings){.ca_file = certificate});
    assert_int_equal(get(with, secure.url, "/big", &answer), 0);
    redirect_over_tls(&secure, liar.url);
    assert_int_equal(get(with, secure.url, "/big", &answer), ERROR_INVALID);
    assert_says(answer.error, "redirected to where it must not lead");
    assert_int_equal(liar_count(&liar, "total"), 0);
    http_client_destroy(with);
    with = make(&(struct http_settings){.ca_file = "/nonexistent"});
    assert_int_equal(get(with, secure.url, "/big", &answer), ERROR_INVALID);
    http_client_destroy(with);
    liar_finish(&secure);
}

/* ---- Ending ---- */

static void destroying_cancels_everything(void **state)
{
    static const char *const behaviours[] = {"hang", "stall", "delay:50", "slow:1000"};

    (void)state;
    for (size_t i = 0; i < sizeof(behaviours) / sizeof(behaviours[0]); i++) {
        struct http_client *with = make(&(struct http_settings){0});
        struct tally tally = {0};
        uint64_t start_ms;

        liar_reset(&liar);
        liar_tell(&liar, "big", behaviours[i], 0);
        fetch_many(with, &tally, 100, PRIORITY_READER, NULL);
        while (liar_count(&liar, "total") < 10)
            usleep(1000);
        start_ms = clock_ms();
        http_client_destroy(with);
        assert_int_equal(tally.left, 0);
        assert_true(clock_ms() - start_ms < 500);
        latch_finish(&tally.latch);
    }
}

/* A callback may ask for more. */
struct chain {
    int left;
    char url[100];
    struct latch latch;
};

static void on_link(void *user, const struct http_response *response)
{
    struct chain *chain = user;

    assert_int_equal(response->code, 0);
    if (--chain->left == 0)
        latch_set(&chain->latch, 0, NULL);
    else
        http_fetch(client, &(struct http_request){.url = chain->url, .done = on_link, .user = chain});
}

static void a_callback_may_ask_for_more(void **state)
{
    struct chain chain = {.left = 50};

    (void)state;
    latch_init(&chain.latch);
    snprintf(chain.url, sizeof(chain.url), "%s/small", liar.url);
    http_fetch(client, &(struct http_request){.url = chain.url, .done = on_link, .user = &chain});
    latch_wait(&chain.latch, NULL);
    latch_finish(&chain.latch);
}

#define test(function) cmocka_unit_test_setup(function, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(every_answer_is_told_for_what_it_is),
        test(unreachable_places_are_named),
        test(a_server_that_ignores_ranges_is_broken_off),
        test(facts_come_with_the_answer),
        test(slow_is_not_stalled),
        test(a_request_can_be_less_patient),
        test(retry_after_is_passed_on),
        test(fresh_asks_caches_to_ask),
        test(connections_are_kept),
        test(bytes_can_be_had_as_they_arrive),
        test(many_run_at_once_but_not_too_many),
        test(a_reader_passes_the_background),
        test(a_stalled_host_does_not_hold_up_another),
        test(who_queues_for_a_silent_host_is_told_soon),
        test(an_owner_s_requests_can_be_cancelled),
        test(the_rate_is_kept),
        test(a_proxy_is_used_but_for_hosts_that_are_excepted),
        test(the_token_goes_to_the_first_host_only),
        test(credentials_of_a_url_stay_with_its_host),
        test(tls_is_verified),
        test(destroying_cancels_everything),
        test(a_callback_may_ask_for_more),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
