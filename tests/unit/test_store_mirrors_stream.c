/* Streams from mirrors: bytes as they come, also when a stream breaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mirrors_fixture.h"

static int set_up(void **state)
{
    (void)state;
    return set_up_with(20000);
}

struct stream {
    struct buffer bytes;
    size_t stop_at; /* 0: never */
};

static bool take(void *user, const uint8_t *bytes, size_t size)
{
    struct stream *stream = user;

    assert_true(buffer_append(&stream->bytes, bytes, size));
    return !stream->stop_at || stream->bytes.size < stream->stop_at;
}

static int fetch_stream(struct mirrors *mirrors, struct stream *stream, size_t size, struct error *error)
{
    const struct mirrors_request request = {
        .path = "packs/p", .offset = 3, .length = size, .size_limit = size, .data = take, .user = stream};

    return mirrors_fetch_wait(mirrors, &request, error);
}

#define STREAM_SIZE 600000

/* What packs/p holds, on the heap. */
static uint8_t *make_stream_bytes(void)
{
    uint8_t *bytes = malloc(STREAM_SIZE + 3);

    for (size_t i = 0; i < STREAM_SIZE + 3; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    return bytes;
}

static void a_stream_of_a_folder_comes_in_pieces(void **state)
{
    struct stream stream = {0}, stopped = {.stop_at = 10};
    uint8_t *bytes = make_stream_bytes();
    struct mirrors *mirrors;
    struct error error;
    char folder[128];

    (void)state;
    liar_put(&one, "packs/p", bytes, STREAM_SIZE + 3);
    snprintf(folder, sizeof(folder), "%s/root", one.folder);
    mirrors = make(500, folder, NULL);
    assert_int_equal(fetch_stream(mirrors, &stream, STREAM_SIZE, &error), 0);
    assert_int_equal(stream.bytes.size, STREAM_SIZE);
    assert_memory_equal(stream.bytes.bytes, bytes + 3, STREAM_SIZE);
    assert_int_equal(fetch_stream(mirrors, &stopped, STREAM_SIZE, &error), ERROR_CANCELLED);
    assert_true(stopped.bytes.size < STREAM_SIZE);
    mirrors_destroy(mirrors);
    buffer_finish(&stream.bytes);
    buffer_finish(&stopped.bytes);
    free(bytes);
}

static void a_stream_that_breaks_goes_on_from_the_next_mirror(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, two.url);
    uint8_t *bytes = make_stream_bytes();
    struct stream stream = {0}, stopped = {.stop_at = 10};
    struct error error;

    (void)state;
    liar_put(&one, "packs/p", bytes, STREAM_SIZE + 3);
    liar_put(&two, "packs/p", bytes, STREAM_SIZE + 3);
    liar_tell(&one, "^/packs/", "truncate", 1);
    assert_int_equal(fetch_stream(mirrors, &stream, STREAM_SIZE, &error), 0);
    assert_int_equal(stream.bytes.size, STREAM_SIZE);
    assert_memory_equal(stream.bytes.bytes, bytes + 3, STREAM_SIZE);
    assert_in_range(liar_count(&two, "total"), 1, 2); /* and a probe */
    assert_int_equal(fetch_stream(mirrors, &stopped, STREAM_SIZE, &error), ERROR_CANCELLED);
    mirrors_destroy(mirrors);
    buffer_finish(&stream.bytes);
    buffer_finish(&stopped.bytes);
    free(bytes);
}

static void a_stream_that_always_breaks_is_given_up(void **state)
{
    struct mirrors *mirrors = make(20000, one.url, NULL);
    uint8_t *bytes = make_stream_bytes();
    struct stream stream = {0};
    struct error error;

    (void)state;
    liar_put(&one, "packs/p", bytes, STREAM_SIZE + 3);
    liar_tell(&one, "^/packs/", "truncate", -1); /* half of the rest each time: it would take twenty requests */
    assert_int_equal(fetch_stream(mirrors, &stream, STREAM_SIZE, &error), ERROR_UNAVAILABLE);
    assert_in_range(liar_count(&one, "total"), 2, 10);
    assert_memory_equal(stream.bytes.bytes, bytes + 3, stream.bytes.size);
    mirrors_destroy(mirrors);
    buffer_finish(&stream.bytes);
    free(bytes);
}

static void a_mirror_with_a_shorter_file_lacks_the_rest(void **state)
{
    struct mirrors *mirrors = make(2000, one.url, two.url), *alone = make(2000, one.url, NULL);
    uint8_t *bytes = make_stream_bytes();
    struct stream stream = {0}, part = {0};
    struct error error;

    (void)state;
    liar_put(&one, "packs/p", bytes, STREAM_SIZE / 2);
    liar_put(&two, "packs/p", bytes, STREAM_SIZE + 3);
    assert_int_equal(fetch_stream(alone, &part, STREAM_SIZE, &error), ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "ends before"));
    assert_memory_equal(part.bytes.bytes, bytes + 3, STREAM_SIZE / 2 - 3);
    assert_int_equal(part.bytes.size, STREAM_SIZE / 2 - 3);
    assert_int_equal(fetch_stream(mirrors, &stream, STREAM_SIZE, &error), 0);
    assert_int_equal(stream.bytes.size, STREAM_SIZE);
    assert_memory_equal(stream.bytes.bytes, bytes + 3, STREAM_SIZE);
    mirrors_destroy(mirrors);
    mirrors_destroy(alone);
    buffer_finish(&stream.bytes);
    buffer_finish(&part.bytes);
    free(bytes);
}

static void assert_states(struct mirrors *mirrors, enum mirror_state first, enum mirror_state second)
{
    struct mirror_statistics statistics[MIRRORS_MAX];

    assert_int_equal(mirrors_statistics(mirrors, statistics), 2);
    assert_int_equal(statistics[0].state, first);
    assert_int_equal(statistics[1].state, second);
}

/* Take what comes, and accuse whoever sends the first of it: as the store does after a frame that does not verify. */
struct refusal {
    struct stream stream;
    struct mirrors *mirrors;
    unsigned mirror;
    bool done, blamed;
};

static bool refuse(void *user, const uint8_t *bytes, size_t size)
{
    struct refusal *refusal = user;

    if (!refusal->done)
        refusal->blamed = mirrors_accuse(refusal->mirrors, refusal->mirror, "packs/p", "not the frame");
    refusal->done = true;
    return take(&refusal->stream, bytes, size);
}

static void fetch_refused(struct mirrors *mirrors, struct refusal *refusal, size_t size)
{
    const struct mirrors_request request = {
        .path = "packs/p", .length = size, .size_limit = size, .data = refuse, .mirror_out = &refusal->mirror,
        .user = refusal};

    *refusal = (struct refusal){.mirrors = mirrors};
    assert_int_equal(mirrors_fetch_wait(mirrors, &request, NULL), 0);
    assert_int_equal(refusal->stream.bytes.size, size);
    buffer_finish(&refusal->stream.bytes);
}

static void a_damaged_pack_is_not_held_against_single_blocks(void **state)
{
    struct mirrors *mirrors = make(5000, one.url, two.url);
    uint8_t *bytes = make_stream_bytes();
    struct refusal refusal;
    struct error error;

    (void)state;
    liar_put(&one, "packs/p", bytes, STREAM_SIZE + 3);
    liar_put(&two, "packs/p", bytes, STREAM_SIZE + 3);
    fetch_refused(mirrors, &refusal, STREAM_SIZE);
    assert_true(refusal.blamed);
    assert_int_equal(refusal.mirror, 1); /* it went on from there */
    assert_states(mirrors, MIRROR_IN_USE, MIRROR_IN_USE);
    assert_int_equal(damage_warnings, 1);

    /* The other one is asked from now on; its copy is damaged too, and so it is the publisher's fault. */
    fetch_refused(mirrors, &refusal, STREAM_SIZE);
    assert_false(refusal.blamed);
    assert_int_equal(refusal.mirror, 1);
    assert_states(mirrors, MIRROR_IN_USE, MIRROR_IN_USE);
    assert_int_equal(damage_warnings, 1);

    /* Who sends a wrong block has no excuse. */
    liar_tell(&one, "x", "flip", 0);
    liar_tell(&two, "x", "flip", 0);
    assert_int_equal(fetch(mirrors, "blocks/ab/x", 0, &error), ERROR_CORRUPT);
    assert_states(mirrors, MIRROR_DROPPED, MIRROR_DROPPED);
    assert_int_equal(wrong_bytes_warnings, 2);
    mirrors_destroy(mirrors);
    free(bytes);
}

#define test(function) cmocka_unit_test_setup(function, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_stream_that_breaks_goes_on_from_the_next_mirror),
        test(a_stream_that_always_breaks_is_given_up),
        test(a_stream_of_a_folder_comes_in_pieces),
        test(a_mirror_with_a_shorter_file_lacks_the_rest),
        test(a_damaged_pack_is_not_held_against_single_blocks),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
