/* The HTTP client against a server that misbehaves: what comes back, what is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net_http_fixture.h"

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
    {"hang", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "no data for 3 s"},
    {"stall", "/big", 0, 0, SIZE, ERROR_UNAVAILABLE, 0, 0, "no data for 3 s"},
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
    snprintf(nobody, sizeof(nobody), "http://user:secret@%s", LIAR_NOBODY);
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
    liar_tell(&liar, "small", "slow:2", 0); /* half a second a byte, five seconds in all; a stall is three */
    assert_int_equal(get(client, liar.url, "/small", &answer), 0);
    assert_true(clock_ms() - start_ms > 3500);
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
    assert_true(clock_ms() - start_ms < 10000);
}

static void retry_after_is_passed_on(void **state)
{
    struct http_client *patient = make(&(struct http_settings){0});
    struct answer answer;

    (void)state;
    /* Not for one request only: one that an earlier test gave up may reach the server late, and would take it. */
    liar_tell(&liar, "big", "retry-after:7", 0);
    assert_int_equal(get(patient, liar.url, "/big", &answer), ERROR_UNAVAILABLE);
    assert_int_equal(answer.status, 503);
    assert_int_equal(answer.retry_after_ms, 7000);
    liar_reset(&liar);
    liar_tell(&liar, "big", "retry-after:999999", 0);
    get(patient, liar.url, "/big", &answer);
    assert_int_equal(answer.retry_after_ms, 3600 * 1000);
    http_client_destroy(patient);
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

#define REST_MS 2000 /* more than the request's patience for a stall */

/* A consumer who has no room at first, for long, and then for a hundred KiB at a time. */
struct slow {
    struct stream stream; /* first */
    uint64_t until_ms;
    uint64_t allowed;
    uint64_t past; /* bytes that came though there was no room */
};

static bool on_slow_ready(void *user)
{
    struct slow *slow = user;

    if (slow->stream.at < slow->allowed)
        return true;
    if (clock_ms() >= slow->until_ms)
        slow->allowed = slow->stream.at + 100 * KIB;
    return false;
}

static bool on_slow_data(void *user, const uint8_t *bytes, size_t size)
{
    struct slow *slow = user;

    slow->past += slow->stream.at >= slow->allowed ? size : 0;
    return on_data(user, bytes, size);
}

/* Stream PATH to SLOW; the code. */
static int fetch_slowly(struct http_client *with, const char *path, unsigned stall_ms, struct slow *slow)
{
    struct http_request request = {
        .stall_timeout_ms = stall_ms,
        .data = on_slow_data,
        .ready = on_slow_ready,
        .done = on_stream_done,
        .user = slow,
    };
    char url[100];

    snprintf(url, sizeof(url), "%s%s", liar.url, path);
    request.url = url;
    slow->until_ms = clock_ms() + REST_MS;
    latch_init(&slow->stream.answer.latch);
    http_fetch(with, &request);
    return finish(&slow->stream.answer);
}

static void a_stream_rests_until_there_is_room(void **state)
{
    struct slow slow = {0};

    (void)state;
    assert_int_equal(fetch_slowly(client, "/big", REST_MS / 2, &slow), 0);
    assert_int_equal(slow.stream.at, SIZE);
    assert_false(slow.stream.wrong);
    assert_int_equal(slow.past, 0);
    assert_true(clock_ms() >= slow.until_ms);
}

/* What curl kept back while a stream rested may end it, which curl tells nobody. */
static void a_stream_can_end_as_it_wakes(void **state)
{
    struct http_client *with = make(&(struct http_settings){0}); /* whose timers come late */
    struct slow slow = {.stream.stop_at = 1};

    (void)state;
    assert_int_equal(fetch_slowly(with, "/small", 20000, &slow), ERROR_CANCELLED);
    assert_true(clock_ms() < slow.until_ms + 15000);
    http_client_destroy(with);
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
        test(a_stream_rests_until_there_is_room),
        test(a_stream_can_end_as_it_wakes),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
