/* Buffers of blocks: whole, apart from each other, used again, and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/memory.h"

#define COUNT 400

/* Bytes of this process's memory mappings. */
static size_t mapped(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A block of one of all sizes, filled with a byte of its own. */
static struct block *make(struct memory *memory, unsigned number)
{
    struct digest digest = {.bytes = {(uint8_t)number, (uint8_t)(number >> 8)}};
    uint32_t length = (UINT32_C(4096) << number % 9) - number;
    uint8_t *bytes;
    struct block *block = memory_make(memory, &digest, length, &bytes);

    assert_non_null(block);
    assert_int_equal(block->length, length);
    memset(bytes, (int)(number % 251), length);
    return block;
}

static void check(const struct block *block, unsigned number)
{
    for (uint32_t i = 0; i < block->length; i++)
        if (block->bytes[i] != number % 251)
            fail_msg("byte %u of block %u is of another block", i, number);
}

static void buffers_are_apart_and_used_again(void **state)
{
    struct memory *memory = memory_create(16 * MIB);
    struct block *blocks[COUNT];
    size_t before = 0;

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < COUNT; i++)
            blocks[i] = make(memory, i);
        for (unsigned i = 0; i < COUNT; i++)
            check(blocks[i], i);
        for (unsigned i = 0; i < COUNT; i += 2)
            block_release(blocks[i]);
        for (unsigned i = 0; i < COUNT; i += 2)
            blocks[i] = make(memory, i + COUNT);
        for (unsigned i = 0; i < COUNT; i++)
            check(blocks[i], i % 2 ? i : i + COUNT);
        for (unsigned i = 0; i < COUNT; i++)
            block_release(blocks[i * 7 % COUNT]);
        if (round == 0)
            before = mapped();
        assert_true(mapped() <= before + 2 * MIB);
    }
    memory_destroy(memory);
}

static void what_nobody_holds_is_given_back(void **state)
{
    struct memory *memory = memory_create(16 * MIB);
    struct block *last = make(memory, 8), *blocks[64];
    size_t before = mapped();

    (void)state;
    for (unsigned i = 0; i < 64; i++)
        blocks[i] = make(memory, 8 + 9 * i);
    assert_true(mapped() >= before + 60 * MIB);
    for (unsigned i = 0; i < 64; i++)
        block_release(blocks[i]);
    assert_true(mapped() <= before + 4 * MIB);
    /* A block outlives the memory that it is from. */
    memory_destroy(memory);
    check(last, 8);
    block_release(last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_are_apart_and_used_again),
        cmocka_unit_test(what_nobody_holds_is_given_back),
    };

    return cmocka_run_group_tests_name("store memory", tests, NULL, NULL);
}
