/* Recognising other programs' disk images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/foreign.h"

static void first_bytes_tell_what_an_image_is(void **state)
{
    static const struct {
        const char *bytes;
        size_t offset;
        const char *name;
    } cases[] = {
        {"QFI\xfb", 0, "qcow2"},  {"KDMV", 0, "vmdk"}, {"COWD", 0, "vmdk"},        {"# Disk DescriptorFile", 0, "vmdk"},
        {"conectix", 0, "vhd"},   {"vhdxfile", 0, "vhdx"}, {"\x7f\x10\xda\xbe", 64, "vdi"}, {"CD001", 0x8001, "iso"},
        {"QFI", 0, "raw"},        {"QFI\xfb", 1, "raw"},   {"", 0, "raw"},          {"CD001", 0x8000, "raw"},
    };
    uint8_t head[FOREIGN_HEAD_SIZE], tail[FOREIGN_TAIL_SIZE] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t length = strlen(cases[i].bytes);

        memset(head, 0, sizeof(head));
        memcpy(head + cases[i].offset, cases[i].bytes, length);
        assert_string_equal(foreign_recognise(head, sizeof(head), tail, sizeof(tail))->name, cases[i].name);
        /* One byte less than the magic is none. */
        if (length)
            assert_string_equal(foreign_recognise(head, cases[i].offset + length - 1, tail, 0)->name, "raw");
    }
    memset(head, 0, sizeof(head));
    memcpy(tail, "conectix", 8);
    assert_string_equal(foreign_recognise(head, sizeof(head), tail, sizeof(tail))->name, "vhd");
    assert_string_equal(foreign_recognise(head, sizeof(head), tail, 100)->name, "raw");
}

static void formats_have_two_names(void **state)
{
    (void)state;
    assert_string_equal(foreign_find("vhd")->qemu_name, "vpc");
    assert_ptr_equal(foreign_find("vpc"), foreign_find("vhd"));
    assert_null(foreign_find("raw")->qemu_name);
    assert_null(foreign_find("iso")->qemu_name);
    assert_null(foreign_find("nbd"));
    assert_null(foreign_find(""));
}

static void a_vdi_says_how_long_it_is(void **state)
{
    uint8_t head[512] = {0};

    (void)state;
    store_le32(head + 0x158, 2 * MIB);
    store_le32(head + 0x178, MIB);
    store_le32(head + 0x184, 5);
    assert_int_equal(foreign_vdi_size(head, sizeof(head)), 0);
    store_le32(head + 64, 0xbeda107f);
    assert_int_equal(foreign_vdi_size(head, sizeof(head)), 7 * MIB);
    assert_int_equal(foreign_vdi_size(head, 0x187), 0);
    memset(head + 0x158, 0xff, sizeof(head) - 0x158);
    assert_true(foreign_vdi_size(head, sizeof(head)) == UINT32_MAX + (uint64_t)UINT32_MAX * UINT32_MAX);
}

static void what_is_no_file_of_an_archive_is_told(void **state)
{
    static const struct {
        const char *bytes, *told; /* NULL: nothing is */
    } cases[] = {
        {"<!DOCTYPE html><html>", "web page"}, {"\xef\xbb\xbf\r\n <HTML lang=en>", "web page"},
        {"<?xml version=\"1.0\"?>", "web page"}, {"\x1f\x8b\x08...", "gzip"}, {"\x1f\x8b", NULL}, {"<htm", NULL},
        {"{\"<html>\": 1}", NULL}, {"untrusted comment: <html>", NULL}, {" \n", NULL}, {"", NULL}, {"<", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *told = foreign_mistake((const uint8_t *)cases[i].bytes, strlen(cases[i].bytes));

        assert_int_equal(told != NULL, cases[i].told != NULL);
        if (told)
            assert_non_null(strstr(told, cases[i].told));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_bytes_tell_what_an_image_is),
        cmocka_unit_test(formats_have_two_names),
        cmocka_unit_test(a_vdi_says_how_long_it_is),
        cmocka_unit_test(what_is_no_file_of_an_archive_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
