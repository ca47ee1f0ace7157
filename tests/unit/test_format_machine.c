/* machine.json and QMP: known texts, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/foreign.h"
#include "format/machine.h"
#include "format/qmp.h"

#define ID "1111111111111111111111111111111111111111111111111111111111111111"
#define BEGINNING                                                                                                      \
    "{\"format\":\"circular-machine-1\",\"name\":\"lab\",\"archive\":\"http://host/os\",\"image\":\"debian\","
#define REST "\"version\":\"1\",\"image_id\":\"" ID "\",\"disk_size\":4096,\"mac\":\"52:54:00:00:00:01\""

static void a_record_is_read_and_written(void **state)
{
    static const char text[] =
        BEGINNING REST ",\"forwards\":[\"2222:22\"],\"arguments\":[\"-device\",\"x,y\"],\"uefi\":1}";
    struct machine_record record, again;
    struct error error = ERROR_INIT;
    char *written;

    (void)state;
    assert_int_equal(machine_record_parse(text, strlen(text), &record, &error), 0);
    assert_string_equal(record.image, "debian");
    assert_true(record.uefi && !record.tpm);
    assert_int_equal(record.arguments.count, 2);
    assert_string_equal(record.arguments.items[1], "x,y");
    written = machine_record_format(&record);
    assert_non_null(written);
    assert_int_equal(machine_record_parse(written, strlen(written), &again, &error), 0);
    assert_string_equal(again.forwards.items[0], "2222:22");
    assert_int_equal(again.disk_size, 4096);
    machine_record_finish(&again);
    arguments_add(&record.arguments, "two\nlines");
    assert_null(machine_record_format(&record)); /* what could not be read again is not written */
    machine_record_finish(&record);
    free(written);
}

static void bad_records_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "machine.json"},
        {"{\"format\":\"other\"}", "format"},
        {"{\"format\":\"circular-machine-1\",\"name\":\"..\"}", "name"},
        {BEGINNING "\"version\":\"1\",\"image_id\":\"12\"}", "image_id"},
        {BEGINNING REST ",\"uefi\":2}", "uefi"},
        {BEGINNING REST ",\"ssh_port\":65536}", "ssh_port"},
        {BEGINNING REST ",\"previous\":\"0\"}", "previous_image_id"},
        {BEGINNING "\"version\":\"1\",\"image_id\":\"" ID "\",\"disk_size\":0,\"mac\":\"52:54:00:00:00:0,\"}", "mac"},
    };
    struct machine_record record;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error = ERROR_INIT;

        assert_int_equal(machine_record_parse(cases[i].text, strlen(cases[i].text), &record, &error), ERROR_CORRUPT);
        assert_non_null(strstr(error.message, cases[i].says));
        machine_record_finish(&record);
    }
}

static void qemu_is_understood(void **state)
{
    static const struct {
        const char *text;
        enum qmp_kind kind;
        uint64_t id;
        const char *word, *says;
    } cases[] = {
        {"{\"QMP\": {\"version\": {}}}", QMP_GREETING, 0, "", ""},
        {"{\"return\": {}, \"id\": 7}", QMP_RETURN, 7, "", ""},
        {"{\"id\": 8, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}", QMP_ERROR, 8, "GenericError", "no"},
        {"{\"event\": \"STOP\", \"timestamp\": {}}", QMP_EVENT, 0, "STOP", ""},
    };
    struct qmp_message message;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(qmp_parse(cases[i].text, strlen(cases[i].text), &message, NULL), 0);
        assert_int_equal(message.kind, cases[i].kind);
        assert_int_equal(message.id, cases[i].id);
        assert_string_equal(message.word, cases[i].word);
        assert_string_equal(message.text, cases[i].says);
    }
    assert_int_equal(qmp_parse("{}", 2, &message, NULL), ERROR_CORRUPT);
    assert_int_equal(qmp_parse("[]", 2, &message, NULL), ERROR_CORRUPT);
}

static void answers_are_understood(void **state)
{
    static const char blocks_text[] =
        "{\"return\": [{\"node-name\": \"disk\", \"stats\": {\"rd_bytes\": 5, \"wr_operations\": 6}},"
        " {\"stats\": {}}]}";
    static const char full[] = "[{ \"start\": 0, \"present\": true}]",
                      empty[] = "[{ \"start\": 0, \"present\": false}]";
    struct qmp_block blocks[QMP_BLOCKS_MAX];
    char status[QMP_WORD];
    size_t count;
    bool is_empty;

    (void)state;
    assert_int_equal(qmp_parse_status("{\"return\": {\"status\": \"io-error\"}}", 34, status, NULL), 0);
    assert_string_equal(status, "io-error");
    assert_int_equal(qmp_parse_status("{\"return\": {}}", 14, status, NULL), ERROR_CORRUPT);
    assert_int_equal(qmp_parse_blocks(blocks_text, strlen(blocks_text), blocks, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_int_equal(blocks[0].read_bytes, 5);
    assert_int_equal(blocks[0].write_count, 6);
    assert_int_equal(foreign_map_is_empty((const uint8_t *)full, strlen(full), &is_empty, NULL), 0);
    assert_false(is_empty);
    assert_int_equal(foreign_map_is_empty((const uint8_t *)empty, strlen(empty), &is_empty, NULL), 0);
    assert_true(is_empty);
    assert_int_equal(foreign_map_is_empty((const uint8_t *)"[]", 2, &is_empty, NULL), ERROR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_read_and_written),
        cmocka_unit_test(bad_records_are_refused),
        cmocka_unit_test(qemu_is_understood),
        cmocka_unit_test(answers_are_understood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
