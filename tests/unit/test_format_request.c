/* HTTP requests: paths that must not pass, ranges as RFC 9110 tells them, dates and entity tags. */
#include "format/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void paths_are_decoded_or_refused(void **state)
{
    static const struct {
        const char *target;
        int code;
        const char *path;
    } table[] = {
        {"/catalog.json", 0, "catalog.json"},
        {"/images/a%2Eb/1.json", 0, "images/a.b/1.json"},
        {"/images/a+b~c/1%2B2.json", 0, "images/a+b~c/1+2.json"},
        {"/a%2Fb", 0, "a/b"},
        {"/", ERROR_NOT_FOUND, NULL},
        {"/blocks/", ERROR_NOT_FOUND, NULL},
        {"//etc/passwd", ERROR_NOT_FOUND, NULL},
        {"/a//b", ERROR_NOT_FOUND, NULL},
        {"/../etc/passwd", ERROR_NOT_FOUND, NULL},
        {"/blocks/../../etc/passwd", ERROR_NOT_FOUND, NULL},
        {"/blocks/%2e%2e/%2E%2E/etc/passwd", ERROR_NOT_FOUND, NULL},
        {"/..%2fetc", ERROR_NOT_FOUND, NULL},
        {"/a%2F..%2Fb", ERROR_NOT_FOUND, NULL},
        {"/.lock", ERROR_NOT_FOUND, NULL},
        {"/blocks/ab/.tmp-0123", ERROR_NOT_FOUND, NULL},
        {"/catalog.json%00.txt", ERROR_INVALID, NULL},
        {"/%", ERROR_INVALID, NULL},
        {"/%4", ERROR_INVALID, NULL},
        {"/%zz", ERROR_INVALID, NULL},
        {"", ERROR_INVALID, NULL},
        {"catalog.json", ERROR_INVALID, NULL},
        {"http://host/", ERROR_INVALID, NULL},
    };
    char path[REQUEST_PATH_MAX], target[REQUEST_PATH_MAX + 2];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        int code = request_path(table[i].target, path, NULL);

        if (code != table[i].code || (code == 0 && strcmp(path, table[i].path)))
            fail_msg("%s gives %d %s", table[i].target, code, code ? "" : path);
    }
    memset(target, 'a', sizeof(target));
    target[0] = '/';
    target[REQUEST_PATH_MAX] = '\0';
    assert_int_equal(request_path(target, path, NULL), 0);
    target[REQUEST_PATH_MAX] = 'a';
    target[REQUEST_PATH_MAX + 1] = '\0';
    assert_int_equal(request_path(target, path, NULL), ERROR_INVALID);
}

static void ranges_are_as_rfc_9110_says(void **state)
{
    static const struct {
        const char *header;
        int count;
        struct request_range first;
    } table[] = {
        {"bytes=0-0", 1, {0, 1}},
        {"bytes=0-99", 1, {0, 100}},
        {"bytes=10-19", 1, {10, 10}},
        {"bytes=90-", 1, {90, 10}},
        {"bytes=90-1000", 1, {90, 10}},
        {"bytes=-10", 1, {90, 10}},
        {"bytes=-1000", 1, {0, 100}},
        {"Bytes=0-0", 1, {0, 1}},
        {"bytes= 0-0 , 5-6", 2, {0, 1}},
        {"bytes=0-0,200-300", 1, {0, 1}},
        {"bytes=99-18446744073709551615", 1, {99, 1}},
        {"bytes=100-", 0, {0, 0}},
        {"bytes=-0", 0, {0, 0}},
        {"bytes=200-300,400-", 0, {0, 0}},
        {"bytes=18446744073709551615-", 0, {0, 0}},
        {"bytes=5-4", -1, {0, 0}},
        {"bytes=", -1, {0, 0}},
        {"bytes=-", -1, {0, 0}},
        {"bytes=a-b", -1, {0, 0}},
        {"bytes=0-5 6-7", -1, {0, 0}},
        {"bytes=0-5,", -1, {0, 0}},
        {"bytes=0-9,5-15", -1, {0, 0}},
        {"bytes=18446744073709551616-", -1, {0, 0}},
        {"items=0-5", -1, {0, 0}},
        {"", -1, {0, 0}},
    };
    struct request_range ranges[REQUEST_RANGES_MAX];
    char many[200] = "bytes=0-0";

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        int count = request_ranges(table[i].header, 100, ranges);

        if (count != table[i].count || (count > 0 && memcmp(&ranges[0], &table[i].first, sizeof(ranges[0]))))
            fail_msg("%s gives %d: %llu+%llu", table[i].header, count, (unsigned long long)ranges[0].offset,
                     (unsigned long long)ranges[0].length);
    }
    assert_int_equal(request_ranges("bytes=0-", 0, ranges), 0);
    for (int i = 1; i < REQUEST_RANGES_MAX; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), ",%d-%d", 2 * i, 2 * i);
    assert_int_equal(request_ranges(many, 100, ranges), REQUEST_RANGES_MAX);
    strcat(many, ",99-99");
    assert_int_equal(request_ranges(many, 100, ranges), -1);
}

static void dates_round_trip(void **state)
{
    char text[REQUEST_DATE_TEXT];
    int64_t seconds;

    (void)state;
    assert_string_equal(request_date_format(784111777, text), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_true(request_date_parse(text, &seconds));
    assert_int_equal(seconds, 784111777);
    assert_false(request_date_parse("Mon, 06 Nov 1994 08:49:37 GMT", &seconds));
    assert_false(request_date_parse("Sunday, 06-Nov-94 08:49:37 GMT", &seconds));
    assert_false(request_date_parse("Sun, 31 Feb 1994 08:49:37 GMT", &seconds));
    assert_false(request_date_parse("", &seconds));
}

static void etags_are_found_in_lists(void **state)
{
    (void)state;
    assert_true(request_has_etag("\"a-1\"", "\"a-1\""));
    assert_true(request_has_etag("W/\"a-1\"", "\"a-1\""));
    assert_true(request_has_etag("\"b\", \"a-1\"", "\"a-1\""));
    assert_true(request_has_etag("*", "\"a-1\""));
    assert_false(request_has_etag("\"a-12\"", "\"a-1\""));
    assert_false(request_has_etag("\"b\" \"a-1\"", "\"a-1\""));
    assert_false(request_has_etag("a-1", "\"a-1\""));
    assert_false(request_has_etag("", "\"a-1\""));
    assert_false(request_has_etag("\"unfinished", "\"a-1\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_decoded_or_refused),
        cmocka_unit_test(ranges_are_as_rfc_9110_says),
        cmocka_unit_test(dates_round_trip),
        cmocka_unit_test(etags_are_found_in_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
