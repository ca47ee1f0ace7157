/* Statistics: what is written is read again, hostile texts are made harmless, buckets are where they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/statistics.h"

static void what_is_written_is_read_again(void **state)
{
    auto_free struct statistics *written = calloc(1, sizeof(*written));
    auto_free struct statistics *read = calloc(1, sizeof(*read));
    struct error error = ERROR_INIT;

    (void)state;
    strcpy(written->source, "http://host/os/debian@1");
    written->reads = 10;
    written->misses = UINT64_MAX; /* more than JSON's integers hold */
    written->waits[STATISTICS_BUCKETS - 1] = 7;
    written->classes[PRIORITY_FILL].bytes = 12;
    written->mirror_count = 2;
    strcpy(written->mirrors[1].mirror, "/srv/os");
    written->mirrors[1].hedges_won = 3;
    written->waiting_count = 1;
    strcpy(written->waiting[0].reason, "connection refused");
    written->waiting[0].age_ms = 12000;
    auto_free char *text = statistics_format(written);

    assert_non_null(text);
    assert_int_equal(statistics_parse(text, strlen(text), read, &error), 0);
    assert_string_equal(read->source, "http://host/os/debian@1");
    assert_int_equal(read->reads, 10);
    assert_int_equal(read->misses, INT64_MAX);
    assert_int_equal(read->waits[STATISTICS_BUCKETS - 1], 7);
    assert_int_equal(read->classes[PRIORITY_FILL].bytes, 12);
    assert_int_equal(read->mirror_count, 2);
    assert_string_equal(read->mirrors[1].mirror, "/srv/os");
    assert_int_equal(read->mirrors[1].hedges_won, 3);
    assert_int_equal(read->waiting_count, 1);
    assert_string_equal(read->waiting[0].reason, "connection refused");
    assert_int_equal(read->waiting[0].age_ms, 12000);
}

static void hostile_texts_become_harmless(void **state)
{
    static const char *const texts[][2] = {
        {"a\033[2Jb", "a?[2Jb"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
        {"cut in a character\xc3", "cut in a character?"},
        {"\"quoted\\\"", "\"quoted\\\""},
    };
    auto_free struct statistics *written = calloc(1, sizeof(*written));
    auto_free struct statistics *read = calloc(1, sizeof(*read));
    struct error error = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        strcpy(written->source, texts[i][0]);
        auto_free char *text = statistics_format(written);

        assert_non_null(text);
        assert_int_equal(statistics_parse(text, strlen(text), read, &error), 0);
        assert_string_equal(read->source, texts[i][1]);
    }
}

static void the_fullest_fits_an_attribute_but_for_its_longest_names(void **state)
{
    auto_free struct statistics *full = calloc(1, sizeof(*full));

    (void)state;
    full->mirror_count = STATISTICS_MIRRORS;
    full->waiting_count = STATISTICS_WAITING;
    for (size_t i = 0; i < STATISTICS_MIRRORS; i++) {
        snprintf(full->mirrors[i].mirror, sizeof(full->mirrors[i].mirror), "https://mirror%zu.%0100d/os", i, 0);
        snprintf(full->waiting[i].mirror, sizeof(full->waiting[i].mirror), "https://mirror%zu.%0100d/os", i, 0);
        memset(full->mirrors[i].reason, 'r', sizeof(full->mirrors[i].reason) - 1);
        memset(full->waiting[i].reason, 'r', sizeof(full->waiting[i].reason) - 1);
    }
    auto_free char *text = statistics_format(full);

    assert_non_null(text);
    assert_true(strlen(text) <= STATISTICS_SIZE_MAX);
}

static void buckets_hold_what_they_say(void **state)
{
    static const struct {
        uint64_t us;
        unsigned bucket;
    } cases[] = {
        {0, 0}, {64, 0}, {65, 1}, {128, 1}, {129, 2}, {1 << 25, 19}, {(1 << 25) + 1, 20}, {UINT64_MAX, 20},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(statistics_bucket(cases[i].us), cases[i].bucket);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(hostile_texts_become_harmless),
        cmocka_unit_test(the_fullest_fits_an_attribute_but_for_its_longest_names),
        cmocka_unit_test(buckets_hold_what_they_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
