/* Ranges of packs over a store that the test plays: readers who come just when a range begins or ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"
#include "image/ranges.h"

#define BLOCK_SIZE 4096
#define BLOCKS 4

struct mirrors {
    struct buffer table; /* of the only pack */
    struct mirrors_request held; /* a range that is not answered yet */
    bool lost;
    unsigned hurried; /* how often the held one was */
};

struct store {
    struct mirrors mirrors;
    struct digest digests[BLOCKS];
    const struct store_stream *streams[BLOCKS]; /* that are to bring them */
    bool late;  /* a reader comes for block 1 while block 0 is given up */
    bool early; /* and one for block 2 as soon as it is expected */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned given_up[BLOCKS];
};

/* ---- What ranges ask of the store ---- */

struct cache *store_cache(struct store *store)
{
    (void)store;
    return NULL;
}

struct mirrors *store_mirrors(struct store *store)
{
    return &store->mirrors;
}

static uint32_t number_of(const struct store *store, const struct digest *digest)
{
    uint32_t number = 0;

    while (!digest_equal(&store->digests[number], digest))
        number++;
    return number;
}

static void read_block(struct store *store, uint32_t number)
{
    const struct store_stream *stream = store->streams[number];

    assert_false(stream->wanted(stream->user, &store->digests[number]));
}

bool store_expect(struct store *store, const struct digest *digest, uint32_t length,
                  const struct store_stream *stream)
{
    uint32_t number = number_of(store, digest);

    assert_int_equal(length, BLOCK_SIZE);
    store->streams[number] = stream;
    if (store->early && number == 2)
        read_block(store, 2);
    return true;
}

void store_unexpect(struct store *store, const struct digest *digest, uint32_t length)
{
    uint32_t number = number_of(store, digest);

    (void)length;
    if (store->late && number == 0)
        read_block(store, 1);
    pthread_mutex_lock(&store->lock);
    store->given_up[number]++;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
}

uint64_t mirrors_first_byte_us(struct mirrors *mirrors)
{
    (void)mirrors;
    return 0;
}

void mirrors_hurry(struct mirrors *mirrors, const void *user)
{
    mirrors->hurried += user == mirrors->held.user;
}

void mirrors_fetch(struct mirrors *mirrors, const struct mirrors_request *request)
{
    struct error error = ERROR_INIT;

    if (!request->range_only) {
        assert_int_equal(request->accept(request->user, mirrors->table.bytes, mirrors->table.size, &error), 0);
        request->done(request->user, 0, NULL);
    } else if (mirrors->lost) {
        error_set(&error, ERROR_NOT_FOUND, "no mirror has it");
        request->done(request->user, error.code, &error);
    } else {
        mirrors->held = *request;
    }
}

/* ---- The tests ---- */

static struct ranges *open_ranges(struct store *store)
{
    static struct pack_entry entries[BLOCKS];
    struct pack_table table = {.entries = entries, .count = BLOCKS};
    struct digest image = {{1}};
    struct hints_pack pack = {0};
    struct hints hints = {.image = image, .packs = &pack, .pack_count = 1};
    struct ranges *ranges;

    *store = (struct store){.late = false};
    pthread_mutex_init(&store->lock, NULL);
    condition_init(&store->changed);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        store->digests[i] = (struct digest){{(uint8_t)(i + 1)}};
        entries[i] = (struct pack_entry){.digest = store->digests[i], .frame_size = 100, .block_length = BLOCK_SIZE};
    }
    assert_int_equal(pack_format_table(&table, &store->mirrors.table, &pack.table, NULL), 0);
    pack.table_size = store->mirrors.table.size;
    pack.size = table.file_size;
    ranges = ranges_create(store, packs_begin_hinted(store, &hints, &image, BLOCKS * BLOCK_SIZE, MIB));
    assert_non_null(ranges);
    return ranges;
}

static void close_ranges(struct ranges *ranges, struct store *store)
{
    store->mirrors.held.done(store->mirrors.held.user, ERROR_CANCELLED, &(struct error){.code = ERROR_CANCELLED});
    ranges_close(ranges);
    buffer_finish(&store->mirrors.table);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->lock);
}

static void fetch(struct ranges *ranges, struct store *store, uint64_t first, enum priority priority)
{
    struct map map = {.block_size = BLOCK_SIZE, .block_count = BLOCKS, .disk_size = BLOCKS * BLOCK_SIZE};

    ranges_fetch(ranges, &(struct ranges_wish){
        .map = &map, .first = first, .count = 2, .digests = &store->digests[first], .priority = priority});
}

/* One range has failed, just when a reader came; another one takes long. */
static void a_reader_who_comes_at_the_end_is_not_waited_for(void **state)
{
    struct store store;
    struct ranges *ranges = open_ranges(&store);
    uint64_t until_ms = clock_ms() + 20000;

    (void)state;
    store.late = store.mirrors.lost = true;
    fetch(ranges, &store, 0, PRIORITY_READER);
    assert_int_equal(store.given_up[0], 1);
    assert_int_equal(store.given_up[1], 1);
    store.mirrors.lost = false;
    fetch(ranges, &store, 2, PRIORITY_READER);
    read_block(&store, 3);
    pthread_mutex_lock(&store.lock);
    while (!store.given_up[3] && condition_wait_ms(&store.changed, &store.lock, until_ms))
        ;
    pthread_mutex_unlock(&store.lock);
    assert_int_equal(store.given_up[3], 1);
    close_ranges(ranges, &store);
    for (uint32_t i = 0; i < BLOCKS; i++)
        assert_int_equal(store.given_up[i], 1);
}

/* What is fetched for nobody becomes urgent also when a reader comes before its request is under way. */
static void a_reader_who_comes_at_the_beginning_hurries_it(void **state)
{
    struct store store;
    struct ranges *ranges = open_ranges(&store);

    (void)state;
    store.early = true;
    fetch(ranges, &store, 2, PRIORITY_FILL);
    assert_int_equal(store.mirrors.hurried, 1);
    close_ranges(ranges, &store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_who_comes_at_the_end_is_not_waited_for),
        cmocka_unit_test(a_reader_who_comes_at_the_beginning_hurries_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
