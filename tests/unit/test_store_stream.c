/* Blocks that a stream brings: who waits for them gets them, whether it brings them, damages them or does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "seed.h"
#include "store_fixture.h"

struct stream {
    struct store_stream stream; /* first */
    atomic_int asked;
    atomic_bool apart;
    atomic_bool stuck; /* hold the reader who asks */
};

static bool on_wanted(void *user, const struct digest *digest)
{
    struct stream *stream = user;

    assert_false(digest_is_zero(digest));
    stream->asked++;
    while (stream->stuck)
        sched_yield();
    return stream->apart;
}

static bool expect(struct fixture *fixture, struct stream *stream, uint64_t seed)
{
    stream->stream = (struct store_stream){.wanted = on_wanted, .user = stream, .priority = PRIORITY_PROFILE};
    return store_expect(fixture->store, &fixture->mirrors.digests[seed], LENGTH, &stream->stream);
}

/* Offer the frame of block CONTENT as that of block SEED. */
static int offer(struct fixture *fixture, uint64_t seed, uint64_t content)
{
    uint8_t frame[FRAME_MAX];
    struct digest digest;
    size_t size = make_frame(content, frame, &digest);

    return store_offer(fixture->store, &fixture->mirrors.digests[seed], LENGTH,
                       &(struct store_frame){frame, size, 0, "packs/p"}, &(bool){false}, NULL);
}

static void ask(struct fixture *fixture, uint64_t seed, struct delivery *delivery)
{
    store_get_async(fixture->store, &fixture->mirrors.digests[seed], LENGTH, PRIORITY_READER, delivered, delivery);
}

/* STREAM is to bring blocks 1 and 2, and a reader waits for the first. */
static void set_up_waiting(struct fixture *fixture, struct stream *stream, struct delivery *delivery)
{
    set_up(fixture);
    assert_true(expect(fixture, stream, 1));
    assert_true(expect(fixture, stream, 2));
    ask(fixture, 1, delivery);
}

static void readers_wait_for_the_stream(void **state)
{
    struct fixture fixture;
    struct stream stream = {.asked = 0};
    struct delivery first = {0}, second = {0};
    char path[160];

    (void)state;
    set_up(&fixture);
    assert_true(expect(&fixture, &stream, 1));
    assert_false(expect(&fixture, &stream, 1));
    ask(&fixture, 1, &first);
    ask(&fixture, 1, &second);
    assert_true(stream.asked >= 1);
    assert_int_equal(first.calls + second.calls, 0);
    assert_int_equal(offer(&fixture, 1, 1), 0);
    assert_int_equal(first.calls, 1);
    assert_int_equal(second.calls, 1);
    assert_int_equal(first.code | second.code, 0);
    assert_int_equal(fixture.mirrors.fetches, 0);
    assert_int_equal(count(&fixture).fetched_blocks, 1);
    cache_settle(store_cache(fixture.store));
    assert_int_equal(access(scratch_path(&fixture.scratch, &fixture.mirrors.digests[1], path), R_OK), 0);
    assert_false(expect(&fixture, &stream, 1)); /* it is here */
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    tear_down(&fixture);
}

static void a_slow_stream_is_overtaken(void **state)
{
    struct fixture fixture;
    struct stream stream = {.apart = true};
    struct delivery delivery = {0};

    (void)state;
    set_up(&fixture);
    fixture.mirrors.holds = true;
    assert_true(expect(&fixture, &stream, 1));
    assert_true(expect(&fixture, &stream, 2));
    ask(&fixture, 1, &delivery);
    assert_int_equal(held_count(&fixture.mirrors), 1);
    /* Whichever comes first is taken. */
    assert_int_equal(offer(&fixture, 1, 1), 0);
    assert_int_equal(delivery.calls, 1);
    assert_true(let_go(&fixture.mirrors));
    ask(&fixture, 2, &delivery);
    assert_true(let_go(&fixture.mirrors));
    assert_int_equal(delivery.calls, 2);
    assert_int_equal(offer(&fixture, 2, 2), 0);
    assert_int_equal(delivery.calls, 2);
    assert_int_equal(delivery.code, 0);
    tear_down(&fixture);
}

static void a_damaged_frame_is_fetched_for_those_who_wait(void **state)
{
    struct fixture fixture;
    struct stream stream = {.asked = 0};
    struct delivery delivery = {0};

    (void)state;
    set_up_waiting(&fixture, &stream, &delivery);
    assert_int_equal(offer(&fixture, 1, 99), ERROR_CORRUPT);
    assert_int_equal(delivery.calls, 1);
    assert_int_equal(delivery.code, 0);
    assert_int_equal(fixture.mirrors.fetches, 1);
    /* The mirror that it came from is known for a liar by then. */
    assert_int_equal(fixture.mirrors.accusations, 1);
    assert_int_equal(fixture.mirrors.fetches_before, 0);
    /* Nobody waits for the other. */
    assert_int_equal(offer(&fixture, 2, 99), ERROR_CORRUPT);
    assert_int_equal(fixture.mirrors.fetches, 1);
    assert_false(store_has(fixture.store, &fixture.mirrors.digests[2]));
    assert_int_equal(get(&fixture, 2, PRIORITY_READER, NULL), 0);
    assert_int_equal(fixture.mirrors.fetches, 2);
    tear_down(&fixture);
}

static void what_a_stream_does_not_bring_is_fetched(void **state)
{
    struct fixture fixture;
    struct stream stream = {.asked = 0};
    struct delivery delivery = {0};

    (void)state;
    set_up_waiting(&fixture, &stream, &delivery);
    store_unexpect(fixture.store, &fixture.mirrors.digests[1], LENGTH);
    store_unexpect(fixture.store, &fixture.mirrors.digests[2], LENGTH);
    assert_int_equal(delivery.calls, 1);
    assert_int_equal(delivery.code, 0);
    assert_int_equal(fixture.mirrors.fetches, 1);
    /* Offered, but never expected or not any more: of no interest, and no harm. */
    assert_int_equal(offer(&fixture, 2, 2), 0);
    assert_int_equal(offer(&fixture, 3, 99), 0);
    assert_false(store_has(fixture.store, &fixture.mirrors.digests[3]));
    tear_down(&fixture);
}

/* Only who is in a hurry has it fetched. */
static void what_is_called_off_is_fetched_for_readers(void **state)
{
    struct fixture fixture;
    struct store_stream bulk = {.priority = PRIORITY_FILL};
    struct delivery reader = {0}, background[2] = {{0}, {0}};

    (void)state;
    set_up(&fixture);
    for (uint64_t i = 0; i < 2; i++)
        assert_true(store_expect(fixture.store, &fixture.mirrors.digests[1 + i], LENGTH, &bulk));
    for (uint64_t i = 0; i < 2; i++)
        store_get_async(fixture.store, &fixture.mirrors.digests[1 + i], LENGTH, PRIORITY_FILL, delivered,
                        &background[i]);
    ask(&fixture, 1, &reader);
    store_call_off(fixture.store, &fixture.mirrors.digests[1], LENGTH);
    store_call_off(fixture.store, &fixture.mirrors.digests[2], LENGTH);
    assert_int_equal(reader.calls, 1);
    assert_int_equal(reader.code, 0);
    assert_int_equal(background[0].calls, 1);
    assert_int_equal(background[0].code, 0);
    assert_int_equal(background[1].calls, 1);
    assert_int_equal(background[1].code, ERROR_CANCELLED);
    assert_int_equal(fixture.mirrors.fetches, 1);
    assert_int_equal(count(&fixture).failed, 0);
    assert_int_equal(get(&fixture, 2, PRIORITY_READER, NULL), 0);
    tear_down(&fixture);
}

struct asker {
    struct fixture *fixture;
    struct delivery delivery;
};

static void *ask_one(void *argument)
{
    struct asker *asker = argument;

    ask(asker->fixture, 1, &asker->delivery);
    return NULL;
}

static void *unexpect_one(void *argument)
{
    struct asker *asker = argument;

    store_unexpect(asker->fixture->store, &asker->fixture->mirrors.digests[1], LENGTH);
    return NULL;
}

/* The owner of a stream may free it once it owes nothing: so nobody may be in its callback then. */
static void a_stream_outlives_those_who_ask_it(void **state)
{
    struct fixture fixture;
    struct stream stream = {.stuck = true};
    struct asker asker = {.fixture = &fixture};
    pthread_t reader, owner;

    (void)state;
    set_up(&fixture);
    assert_true(expect(&fixture, &stream, 1));
    assert_int_equal(pthread_create(&reader, NULL, ask_one, &asker), 0);
    while (!stream.asked)
        sched_yield();
    assert_int_equal(pthread_create(&owner, NULL, unexpect_one, &asker), 0);
    for (int i = 0; i < 1000; i++) {
        sched_yield();
        assert_int_not_equal(pthread_tryjoin_np(owner, NULL), 0);
    }
    stream.stuck = false;
    assert_int_equal(pthread_join(owner, NULL), 0);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(asker.delivery.calls, 1);
    assert_int_equal(asker.delivery.code, 0);
    tear_down(&fixture);
}

/* Readers, and a stream that brings, lies, gives up and says that it is slow, all at once. */

#define CHAOS_BLOCKS 24

struct chaos {
    struct fixture *fixture;
    unsigned seed;
};

static void *read_at_random(void *argument)
{
    struct chaos *chaos = argument;

    for (int i = 0; i < 200; i++)
        if (get(chaos->fixture, (uint64_t)rand_r(&chaos->seed) % CHAOS_BLOCKS,
                (enum priority)(rand_r(&chaos->seed) % PRIORITY_COUNT), NULL))
            return argument; /* not NULL */
    return NULL;
}

static void stream_at_random(struct fixture *fixture, unsigned seed)
{
    struct stream stream = {.asked = 0};

    for (int round = 0; round < 200; round++) {
        uint64_t at = (uint64_t)rand_r(&seed) % CHAOS_BLOCKS;
        char path[160];

        stream.apart = rand_r(&seed) % 3 == 0;
        if (rand_r(&seed) % 2) /* or it would soon be here for good */
            unlink(scratch_path(&fixture->scratch, &fixture->mirrors.digests[at], path));
        if (!expect(fixture, &stream, at))
            continue;
        sched_yield();
        if (rand_r(&seed) % 3 == 0)
            store_unexpect(fixture->store, &fixture->mirrors.digests[at], LENGTH);
        else
            offer(fixture, at, rand_r(&seed) % 3 ? at : at + 1);
    }
}

static void chaos_changes_time_never_bytes(void **state)
{
    unsigned seed = random_seed();
    struct fixture fixture;
    struct chaos chaos[4];
    pthread_t threads[4];
    void *result;

    (void)state;
    set_up(&fixture);
    open_store(&fixture, true, true, 6 * LENGTH);
    for (unsigned i = 0; i < 4; i++) {
        chaos[i] = (struct chaos){&fixture, seed + i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &chaos[i]), 0);
    }
    stream_at_random(&fixture, seed + 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    assert_int_equal(count(&fixture).failed, 0);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_wait_for_the_stream),
        cmocka_unit_test(a_slow_stream_is_overtaken),
        cmocka_unit_test(a_damaged_frame_is_fetched_for_those_who_wait),
        cmocka_unit_test(what_a_stream_does_not_bring_is_fetched),
        cmocka_unit_test(what_is_called_off_is_fetched_for_readers),
        cmocka_unit_test(a_stream_outlives_those_who_ask_it),
        cmocka_unit_test(chaos_changes_time_never_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
