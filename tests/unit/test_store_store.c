/* The store: verified bytes or an error, one fetch a block, and damage that heals. Mirrors are played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "seed.h"
#include "store_fixture.h"

static void a_block_comes_from_mirror_then_memory_then_cache(void **state)
{
    struct fixture fixture;
    char path[160];

    (void)state;
    set_up(&fixture);
    assert_false(store_has(fixture.store, &fixture.mirrors.digests[1]));
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    assert_int_equal(count(&fixture).fetched_blocks, 1);
    assert_true(count(&fixture).fetched_bytes > LENGTH / 4);
    assert_int_equal(count(&fixture).memory_hits[PRIORITY_READER], 1);
    assert_int_equal(count(&fixture).misses, 1);
    assert_int_equal(count(&fixture).held_bytes, LENGTH);
    open_store(&fixture, true, false, 0);
    assert_int_equal(access(scratch_path(&fixture.scratch, &fixture.mirrors.digests[1], path), R_OK), 0);
    assert_true(store_has(fixture.store, &fixture.mirrors.digests[1]));
    for (unsigned priority = 0; priority < PRIORITY_COUNT; priority++) {
        open_store(&fixture, true, false, 0);
        assert_int_equal(get(&fixture, 1, priority, NULL), 0);
        assert_int_equal(count(&fixture).cache_hits[priority], 1);
        assert_int_equal(count(&fixture).misses, 0);
    }
    assert_int_equal(fixture.mirrors.fetches, 1);
    tear_down(&fixture);
}

/* What a full cache forgets first is what was not used for longest. */
static void a_block_from_the_cache_is_marked_as_used(void **state)
{
    struct timespec old[2] = {{.tv_sec = time(NULL) - 700}, {.tv_sec = time(NULL) - 700}};
    struct fixture fixture;
    struct stat status;
    char path[160];

    (void)state;
    set_up(&fixture);
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    open_store(&fixture, true, false, 0);
    scratch_path(&fixture.scratch, &fixture.mirrors.digests[1], path);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    open_store(&fixture, true, false, 0);
    assert_int_equal(stat(path, &status), 0);
    assert_true(time(NULL) - status.st_mtime < 100);
    tear_down(&fixture);
}

static void without_a_cache_folder_memory_serves(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture);
    open_store(&fixture, false, true, 0);
    for (unsigned priority = 0; priority < PRIORITY_COUNT; priority++) {
        assert_int_equal(get(&fixture, priority, priority, NULL), 0);
        assert_int_equal(get(&fixture, priority, priority, NULL), 0);
    }
    assert_int_equal(fixture.mirrors.fetches, PRIORITY_COUNT);
    tear_down(&fixture);
}

/* Single flight. */

static void *read_all(void *argument)
{
    struct fixture *fixture = argument;

    for (uint64_t i = 0; i < 40; i++) {
        store_prefetch(fixture->store, &fixture->mirrors.digests[(i + 3) % 40], LENGTH, PRIORITY_READAHEAD);
        if (get(fixture, i, PRIORITY_READER, NULL))
            return argument; /* not NULL */
    }
    return NULL;
}

static void many_readers_share_one_fetch(void **state)
{
    struct fixture fixture;
    pthread_t threads[16];
    void *result;
    unsigned running = 16;

    (void)state;
    set_up(&fixture);
    fixture.mirrors.holds = true;
    for (int i = 0; i < 16; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &fixture), 0);
    while (running) {
        if (!let_go(&fixture.mirrors))
            sched_yield();
        if (!pthread_tryjoin_np(threads[running - 1], &result)) {
            assert_null(result);
            running--;
        }
    }
    assert_int_equal(fixture.mirrors.fetches, 40);
    tear_down(&fixture);
}

struct gate {
    struct job job;
    pthread_mutex_t lock;
};

static void wait_at_gate(struct job *job)
{
    struct gate *gate = (struct gate *)job;

    pthread_mutex_lock(&gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static void a_reader_does_not_wait_for_a_queued_readahead(void **state)
{
    struct fixture fixture;
    struct gate gates[2];

    (void)state;
    set_up(&fixture);
    assert_int_equal(get(&fixture, 1, PRIORITY_FILL, NULL), 0);
    for (int i = 0; i < 2; i++) {
        gates[i].job.run = wait_at_gate;
        pthread_mutex_init(&gates[i].lock, NULL);
        pthread_mutex_lock(&gates[i].lock);
        workers_submit(fixture.workers, &gates[i].job, PRIORITY_READER);
    }
    store_prefetch(fixture.store, &fixture.mirrors.digests[1], LENGTH, PRIORITY_READAHEAD);
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    assert_int_equal(count(&fixture).cache_hits[PRIORITY_READER], 1);
    for (int i = 0; i < 2; i++)
        pthread_mutex_unlock(&gates[i].lock);
    tear_down(&fixture);
}

static void a_reader_overtakes_a_long_queue_only(void **state)
{
    struct fixture fixture;
    struct delivery first = {0}, last = {0};

    (void)state;
    set_up(&fixture);
    fixture.mirrors.holds = true;
    for (size_t i = 0; i < 80; i++) {
        store_prefetch(fixture.store, &fixture.mirrors.digests[i], LENGTH, PRIORITY_FILL);
        while (held_count(&fixture.mirrors) <= i)
            sched_yield();
    }
    store_get_async(fixture.store, &fixture.mirrors.digests[0], LENGTH, PRIORITY_READER, delivered, &first);
    assert_int_equal(fixture.mirrors.fetches, 80);
    assert_int_equal(fixture.mirrors.hurries, 1);
    store_get_async(fixture.store, &fixture.mirrors.digests[79], LENGTH, PRIORITY_READER, delivered, &last);
    assert_int_equal(fixture.mirrors.fetches, 81);
    assert_int_equal(fixture.mirrors.last_priority, PRIORITY_READER);
    assert_true(let_go(&fixture.mirrors));
    assert_int_equal(last.calls, 1);
    assert_int_equal(first.calls, 0);
    while (let_go(&fixture.mirrors))
        ;
    assert_int_equal(first.calls, 1);
    assert_int_equal(last.calls, 1);
    assert_int_equal(first.code | last.code, 0);
    tear_down(&fixture);
}

/* If one of two fetches of a block fails, the other decides. */
static void one_of_two_fetches_is_enough(void **state)
{
    struct fixture fixture;
    struct delivery delivery = {0};

    (void)state;
    set_up(&fixture);
    fixture.mirrors.holds = true;
    for (size_t i = 0; i < 80; i++) {
        store_prefetch(fixture.store, &fixture.mirrors.digests[i], LENGTH, PRIORITY_FILL);
        while (held_count(&fixture.mirrors) <= i)
            sched_yield();
    }
    store_get_async(fixture.store, &fixture.mirrors.digests[79], LENGTH, PRIORITY_READER, delivered, &delivery);
    assert_int_equal(held_count(&fixture.mirrors), 81);
    fixture.mirrors.is_down = true;
    let_go(&fixture.mirrors);
    assert_int_equal(delivery.calls, 0);
    fixture.mirrors.is_down = false;
    while (let_go(&fixture.mirrors))
        ;
    assert_int_equal(delivery.calls, 1);
    assert_int_equal(delivery.code, 0);
    tear_down(&fixture);
}

/* Damage. */

static void put_file(const char *path, const void *bytes, size_t size)
{
    assert_int_equal(file_write_atomic(AT_FDCWD, path, bytes, size, 0, NULL), 0);
}

static void damage_by_flip(const char *path)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, 5000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
    close(fd);
}

static void damage_by_cut(const char *path)
{
    assert_int_equal(truncate(path, 9000), 0);
}

static void damage_by_emptying(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void damage_by_other_block(const char *path)
{
    uint8_t frame[FRAME_MAX];
    struct digest digest;
    size_t size = make_frame(99, frame, &digest);

    put_file(path, frame, size);
}

static void damage_by_larger_content(const char *path)
{
    static uint8_t bytes[1 << 20];
    uint8_t frame[FRAME_MAX];

    put_file(path, frame, frame_compress(bytes, sizeof(bytes), 1, frame, sizeof(frame)));
}

static void damage_by_appending(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND);

    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}

static void damage_by_folder(const char *path)
{
    assert_int_equal(unlink(path) | mkdir(path, 0755), 0);
}

static void damage_in_the_cache_heals(void **state)
{
    static void (*const damages[])(const char *) = {damage_by_flip,        damage_by_cut,
                                                    damage_by_emptying,    damage_by_other_block,
                                                    damage_by_larger_content, damage_by_appending,
                                                    damage_by_folder};

    (void)state;
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        struct fixture fixture;
        char path[160], text[DIGEST_TEXT];

        set_up(&fixture);
        assert_int_equal(get(&fixture, 7, PRIORITY_READER, NULL), 0);
        open_store(&fixture, true, true, 0);
        damages[i](scratch_path(&fixture.scratch, &fixture.mirrors.digests[7], path));
        assert_int_equal(get(&fixture, 7, i % 2 ? PRIORITY_FILL : PRIORITY_READER, NULL), 0);
        assert_int_equal(count(&fixture).cache_corrupt, 1);
        assert_int_equal(fixture.mirrors.fetches, 2);
        assert_int_equal(fixture.scratch.warnings, 1);
        assert_non_null(strstr(fixture.scratch.last_warning, path));
        assert_non_null(strstr(fixture.scratch.last_warning,
                               digest_format(&fixture.mirrors.digests[7], text)));
        assert_non_null(strstr(fixture.scratch.last_warning, "is damaged"));
        open_store(&fixture, true, false, 0);
        assert_int_equal(get(&fixture, 7, PRIORITY_READER, NULL), 0);
        assert_int_equal(fixture.scratch.warnings, 1);
        tear_down(&fixture);
    }
}

static void a_lie_is_neither_returned_nor_kept(void **state)
{
    struct fixture fixture;
    struct error error = ERROR_INIT;
    char path[160];

    (void)state;
    set_up(&fixture);
    fixture.mirrors.lies = true;
    assert_int_equal(get(&fixture, 7, PRIORITY_READER, &error), ERROR_CORRUPT);
    assert_non_null(strstr(error.message, "digest differs"));
    assert_int_equal(count(&fixture).failed, 1);
    assert_int_equal(access(scratch_path(&fixture.scratch, &fixture.mirrors.digests[7], path), F_OK), -1);
    fixture.mirrors.lies = false;
    fixture.mirrors.lies_first = true;
    assert_int_equal(get(&fixture, 7, PRIORITY_READER, &error), 0);
    assert_int_equal(fixture.mirrors.refused, 1);
    tear_down(&fixture);
}

static void an_error_reaches_the_reader_and_is_not_remembered(void **state)
{
    struct fixture fixture;
    struct error error = ERROR_INIT;

    (void)state;
    set_up(&fixture);
    fixture.mirrors.is_down = true;
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, &error), ERROR_UNAVAILABLE);
    assert_string_equal(error.message, "down");
    store_prefetch(fixture.store, &fixture.mirrors.digests[1], LENGTH, PRIORITY_READAHEAD);
    open_store(&fixture, true, true, 0);
    fixture.mirrors.is_down = false;
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, &error), 0);
    tear_down(&fixture);
}

static void offline_says_which_block_is_missing(void **state)
{
    struct fixture fixture;
    struct error error = ERROR_INIT;
    char path[160], text[DIGEST_TEXT], expected[200];

    (void)state;
    set_up(&fixture);
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, NULL), 0);
    open_store(&fixture, true, false, 0);
    snprintf(expected, sizeof(expected), "block %s is not in the cache and the network is not used (--offline)",
             digest_format(&fixture.mirrors.digests[2], text));
    for (unsigned priority = 0; priority < PRIORITY_COUNT; priority++) {
        assert_int_equal(get(&fixture, 2, priority, &error), ERROR_UNAVAILABLE);
        assert_string_equal(error.message, expected);
    }
    damage_by_flip(scratch_path(&fixture.scratch, &fixture.mirrors.digests[1], path));
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, &error), ERROR_UNAVAILABLE);
    assert_int_equal(fixture.scratch.warnings, 1);
    tear_down(&fixture);
}

/* Memory. */

static unsigned count_in_memory(struct fixture *fixture, uint64_t first, uint64_t end)
{
    uint64_t before = count(fixture).memory_hits[PRIORITY_FILL];

    for (uint64_t i = first; i < end; i++)
        assert_int_equal(get(fixture, i, PRIORITY_FILL, NULL), 0);
    return (unsigned)(count(fixture).memory_hits[PRIORITY_FILL] - before);
}

static void memory_holds_what_was_read_last(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture);
    open_store(&fixture, true, true, 16 * LENGTH);
    assert_int_equal(store_memory(fixture.store), 16 * LENGTH);
    for (uint64_t i = 0; i < 40; i++)
        assert_int_equal(get(&fixture, i, PRIORITY_READER, NULL), 0);
    assert_int_equal(count_in_memory(&fixture, 0, 24), 0);
    assert_int_equal(count_in_memory(&fixture, 24, 40), 16);
    /* A use moves to the front. */
    assert_int_equal(get(&fixture, 24, PRIORITY_READER, NULL), 0);
    for (uint64_t i = 50; i < 65; i++)
        assert_int_equal(get(&fixture, i, PRIORITY_READER, NULL), 0);
    assert_int_equal(count_in_memory(&fixture, 24, 40), 1);
    tear_down(&fixture);
}

static void what_comes_ahead_has_more_room_for_a_while(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture);
    open_store(&fixture, true, true, 16 * LENGTH);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(get(&fixture, i, PRIORITY_READER, NULL), 0);
    store_set_generous(fixture.store, true);
    for (uint64_t i = 10; i < 60; i++)
        assert_int_equal(get(&fixture, i, PRIORITY_PROFILE, NULL), 0);
    assert_int_equal(count_in_memory(&fixture, 0, 10), 10);
    assert_int_equal(count(&fixture).held_bytes, 48 * LENGTH);
    /* What was used is held to the usual limit. */
    assert_int_equal(count_in_memory(&fixture, 10, 48), 38);
    assert_int_equal(count(&fixture).held_bytes, 16 * LENGTH);
    for (uint64_t i = 70; i < 90; i++)
        assert_int_equal(get(&fixture, i, PRIORITY_PROFILE, NULL), 0);
    assert_int_equal(count(&fixture).held_bytes, 36 * LENGTH);
    store_set_generous(fixture.store, false);
    assert_int_equal(count(&fixture).held_bytes, 16 * LENGTH);
    assert_int_equal(count_in_memory(&fixture, 32, 48), 16);
    tear_down(&fixture);
}

static void background_work_does_not_push_readers_out(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture);
    open_store(&fixture, true, true, 16 * LENGTH);
    for (uint64_t i = 0; i < 12; i++)
        assert_int_equal(get(&fixture, i, PRIORITY_READER, NULL), 0);
    for (uint64_t i = 20; i < 60; i++)
        assert_int_equal(get(&fixture, i, i % 2 ? PRIORITY_PROFILE : PRIORITY_FILL, NULL), 0);
    assert_int_equal(count_in_memory(&fixture, 0, 12), 12);
    assert_int_equal(count_in_memory(&fixture, 20, 60), 4);
    tear_down(&fixture);
}

static void a_block_outlives_the_store(void **state)
{
    struct fixture fixture;
    uint8_t expected[LENGTH];
    struct digest digest;
    struct block *block;

    (void)state;
    set_up(&fixture);
    make_block(1, expected, &digest);
    assert_int_equal(store_get(fixture.store, &digest, LENGTH, PRIORITY_READER, &block, NULL), 0);
    store_close(fixture.store);
    fixture.store = NULL;
    assert_memory_equal(block->bytes, expected, LENGTH);
    block_release(block);
    block_release(NULL);
    tear_down(&fixture);
}

static void odd_lengths_and_zeros(void **state)
{
    struct fixture fixture;
    struct digest zero = {{0}};
    struct block *block = NULL;
    struct error error = ERROR_INIT;

    (void)state;
    set_up(&fixture);
    assert_int_equal(store_get(fixture.store, &zero, 5000, PRIORITY_READER, &block, &error), 0);
    assert_int_equal(block->length, 5000);
    assert_true(bytes_are_zero(block->bytes, 5000));
    block_release(block);
    store_prefetch(fixture.store, &zero, 5000, PRIORITY_READAHEAD);
    assert_int_equal(fixture.mirrors.fetches, 0);
    assert_int_equal(store_get(fixture.store, &fixture.mirrors.digests[1], 0, PRIORITY_READER, &block, &error),
                     ERROR_INVALID);
    assert_int_equal(store_get(fixture.store, &fixture.mirrors.digests[1], 1 << 21, PRIORITY_READER, &block,
                               &error), ERROR_INVALID);
    /* A map that lies about the length of the last block. */
    assert_int_equal(get(&fixture, 1, PRIORITY_READER, &error), 0);
    assert_int_equal(store_get(fixture.store, &fixture.mirrors.digests[1], 4096, PRIORITY_READER, &block, &error),
                     ERROR_CORRUPT);
    tear_down(&fixture);
}

static void *close_store(void *argument)
{
    struct fixture *fixture = argument;

    store_close(fixture->store);
    return NULL;
}

static void close_waits_for_what_is_under_way(void **state)
{
    struct fixture fixture;
    struct delivery delivery = {0};
    pthread_t thread;

    (void)state;
    set_up(&fixture);
    fixture.mirrors.holds = true;
    store_get_async(fixture.store, &fixture.mirrors.digests[1], LENGTH, PRIORITY_READER, delivered, &delivery);
    store_prefetch(fixture.store, &fixture.mirrors.digests[2], LENGTH, PRIORITY_READAHEAD);
    assert_int_equal(pthread_create(&thread, NULL, close_store, &fixture), 0);
    assert_int_not_equal(pthread_tryjoin_np(thread, NULL), 0);
    while (held_count(&fixture.mirrors) < 2)
        sched_yield();
    assert_int_not_equal(pthread_tryjoin_np(thread, NULL), 0);
    let_go(&fixture.mirrors);
    let_go(&fixture.mirrors);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(delivery.calls, 1);
    fixture.store = NULL;
    tear_down(&fixture);
}

/* Everything at once: readers of all kinds, damage, a cache that is too small, a mirror that lies. */

struct chaos {
    struct fixture *fixture;
    unsigned seed;
    bool damages;
};

static void *make_chaos(void *argument)
{
    struct chaos *chaos = argument;
    struct fixture *fixture = chaos->fixture;

    for (int i = 0; i < 300; i++) {
        uint64_t block = (uint64_t)rand_r(&chaos->seed) % 40;
        char path[160];

        if (chaos->damages && i % 4 == 0)
            (void)!truncate(scratch_path(&fixture->scratch, &fixture->mirrors.digests[block], path), i);
        if (i % 3 == 0)
            store_prefetch(fixture->store, &fixture->mirrors.digests[block + 1], LENGTH,
                           (enum priority)(rand_r(&chaos->seed) % PRIORITY_COUNT));
        if (get(fixture, block, (enum priority)(rand_r(&chaos->seed) % PRIORITY_COUNT), NULL))
            return argument; /* not NULL */
    }
    return NULL;
}

static void chaos_changes_time_never_bytes(void **state)
{
    struct fixture fixture;
    struct chaos chaos[6];
    struct cache *unbounded;
    pthread_t threads[6];
    unsigned seed = random_seed();
    void *result;

    (void)state;
    set_up(&fixture);
    unbounded = fixture.scratch.cache;
    assert_int_equal(cache_open(fixture.scratch.path, 30 * LENGTH / 3, &fixture.scratch.cache, NULL), 0);
    fixture.mirrors.lies_first = true;
    open_store(&fixture, true, true, 6 * LENGTH);
    cache_close(unbounded);
    for (unsigned i = 0; i < 6; i++) {
        chaos[i] = (struct chaos){&fixture, seed + i, i == 0};
        assert_int_equal(pthread_create(&threads[i], NULL, make_chaos, &chaos[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    assert_int_equal(count(&fixture).failed, 0);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_comes_from_mirror_then_memory_then_cache),
        cmocka_unit_test(a_block_from_the_cache_is_marked_as_used),
        cmocka_unit_test(without_a_cache_folder_memory_serves),
        cmocka_unit_test(many_readers_share_one_fetch),
        cmocka_unit_test(a_reader_does_not_wait_for_a_queued_readahead),
        cmocka_unit_test(a_reader_overtakes_a_long_queue_only),
        cmocka_unit_test(one_of_two_fetches_is_enough),
        cmocka_unit_test(damage_in_the_cache_heals),
        cmocka_unit_test(a_lie_is_neither_returned_nor_kept),
        cmocka_unit_test(an_error_reaches_the_reader_and_is_not_remembered),
        cmocka_unit_test(offline_says_which_block_is_missing),
        cmocka_unit_test(memory_holds_what_was_read_last),
        cmocka_unit_test(what_comes_ahead_has_more_room_for_a_while),
        cmocka_unit_test(background_work_does_not_push_readers_out),
        cmocka_unit_test(a_block_outlives_the_store),
        cmocka_unit_test(odd_lengths_and_zeros),
        cmocka_unit_test(close_waits_for_what_is_under_way),
        cmocka_unit_test(chaos_changes_time_never_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
