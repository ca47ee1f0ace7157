/* What this host can run machines on: every way in which KVM does not work is told apart, and nothing hangs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "vm/accelerator.h"
#include "vm/accelerator_memory.h"
#include "vm/kvm.h"

#define IN_TIME_MS 30000 /* for what ends by itself, on a busy machine */

static char scratch[] = "/tmp/circular-accelerator-XXXXXX";
static char memory[100], program[100];

static int make_scratch(void **state)
{
    (void)state;
    if (!mkdtemp(scratch))
        return -1;
    snprintf(memory, sizeof(memory), "%s/memory", scratch);
    snprintf(program, sizeof(program), "%s/qemu-system-x86_64", scratch);
    return 0;
}

static int remove_scratch(void **state)
{
    (void)state;
    unlink(memory);
    unlink(program);
    return rmdir(scratch);
}

/* A program that does what LINES say. */
static void make_program(const char *lines)
{
    FILE *file = fopen(program, "w");

    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", lines);
    assert_int_equal(fchmod(fileno(file), 0755), 0);
    fclose(file);
}

static void test_devices_that_are_none(void **state)
{
    static const struct {
        const char *device, *expected;
        int code;
    } cases[] = {
        {"/dev/there-is-no-kvm", "there is no /dev/there-is-no-kvm", ERROR_NOT_FOUND},
        {"/dev/null", "/dev/null is not a device of KVM", ERROR_UNSUPPORTED},
        {"/dev/zero", "/dev/zero is not a device of KVM", ERROR_UNSUPPORTED},
        {"/", "/ cannot be used: Is a directory", ERROR_UNSUPPORTED},
        {"/etc/passwd", "/etc/passwd", ERROR_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error = ERROR_INIT;

        assert_int_equal(kvm_try(cases[i].device, IN_TIME_MS, &error), cases[i].code);
        assert_non_null(strstr(error.message, cases[i].expected));
    }
}

/* A FIFO that nobody writes to: opening it may wait for ever. */
static void test_fifo(void **state)
{
    char path[100];
    uint64_t begun_ms = clock_ms();
    struct error error = ERROR_INIT;

    (void)state;
    snprintf(path, sizeof(path), "%s/fifo", scratch);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(kvm_try(path, 500, &error), ERROR_UNSUPPORTED);
    assert_true(clock_ms() - begun_ms < IN_TIME_MS);
    unlink(path);
}

static void test_forbidden(void **state)
{
    bool root = !geteuid();
    char path[100];
    struct error error = ERROR_INIT;
    int result;

    (void)state;
    snprintf(path, sizeof(path), "%s/kvm", scratch);
    close(open(path, O_CREAT | O_WRONLY, 0));
    if (root)
        assert_int_equal(seteuid(65534), 0);
    result = kvm_try(path, IN_TIME_MS, &error);
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(result, ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "permission denied: add yourself to the group kvm"));
    unlink(path);
}

/* QEMU that hangs is ended, with what it has started; one that fails is quoted. */
static void test_qemu_that_misbehaves(void **state)
{
    struct accelerator_settings settings = {
        .search_path = scratch, .kvm_device = "/dev/null", .timeout_ms = IN_TIME_MS};
    struct accelerator tcg;

    (void)state;
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_false(tcg.works);
    assert_non_null(strstr(tcg.text, "Debian package qemu-system-x86"));

    make_program("/bin/sleep 1000 & wait");
    settings.timeout_ms = 300;
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    settings.timeout_ms = IN_TIME_MS;
    assert_false(tcg.works);
    assert_non_null(strstr(tcg.text, "hung in its first"));

    make_program("echo one >&2; echo 'no such machine' >&2; exit 1");
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_false(tcg.works);
    assert_string_equal(tcg.text, "no such machine");

    make_program("exit 33");
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_true(tcg.works);
}

static void test_process_group_is_ended(void **state)
{
    const char *arguments[] = {"sh", "-c", "/bin/sleep 1000 & echo $!; wait", NULL};
    struct buffer output = {0};
    struct error error = ERROR_INIT;
    char stat_path[64], line[256] = "";
    int status;
    FILE *file;

    (void)state;
    /* Until it has had the time to say whom it has started. */
    for (unsigned ms = 300; !output.size; ms *= 2) {
        uint64_t begun_ms = clock_ms();

        assert_int_equal(process_try("/bin/sh", arguments, ms, &output, &status, &error), ERROR_UNAVAILABLE);
        assert_true(clock_ms() - begun_ms < ms + IN_TIME_MS);
    }
    snprintf(stat_path, sizeof(stat_path), "/proc/%ld/stat", strtol((const char *)output.bytes, NULL, 10));
    for (int i = 0; i < 500; i++) {
        file = fopen(stat_path, "r");
        if (!file)
            break;
        *line = '\0';
        if (!fgets(line, sizeof(line), file))
            *line = '\0';
        fclose(file);
        if (!*line || strstr(line, ") Z"))
            break;
        usleep(10000);
    }
    assert_true(!*line || !file || strstr(line, ") Z"));
    buffer_finish(&output);
}

/* Tried once, then remembered; not with another QEMU, and not when told to try again. */
static void test_memory(void **state)
{
    struct accelerator_settings settings = {
        .search_path = scratch, .kvm_device = "/dev/null", .memory = memory, .timeout_ms = IN_TIME_MS};
    struct accelerator tcg;

    (void)state;
    make_program("exit 33");
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_true(tcg.works);
    assert_true(accelerator_recall(memory, "tcg", program, &tcg));
    assert_true(tcg.works);
    assert_false(accelerator_recall(memory, "kvm", program, &tcg));

    accelerator_remember(memory, "tcg", program, &(struct accelerator){.works = false, .text = "remembered"});
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_string_equal(tcg.text, "remembered");
    settings.again = true;
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_true(tcg.works);
    settings.again = false;

    accelerator_remember(memory, "tcg", program, &(struct accelerator){.works = false, .text = "of the old one"});
    make_program("echo other; exit 33");
    accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
    assert_true(tcg.works);
}

/* Whatever is in the file, the worst is that it is tried again. */
static void test_damaged_memory(void **state)
{
    static const char *const texts[] = {"", "no equals sign\n", "tcg-0 = yes\n", "\x01\x02",
                                        "tcg-0123456789abcdef = no x"};
    struct accelerator_settings settings = {
        .search_path = scratch, .kvm_device = "/dev/null", .memory = memory, .timeout_ms = IN_TIME_MS};
    struct accelerator tcg;

    (void)state;
    make_program("exit 33");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        FILE *file = fopen(memory, "w");

        assert_non_null(file);
        fputs(texts[i], file);
        fclose(file);
        accelerator_try(&settings, ACCELERATOR_TCG, &tcg);
        assert_true(tcg.works);
        assert_true(accelerator_recall(memory, "tcg", program, &tcg));
    }
}

static void test_choice(void **state)
{
    struct accelerator_settings settings = {.search_path = scratch, .kvm_device = "/dev/null", .timeout_ms = IN_TIME_MS};
    struct error error = ERROR_INIT;
    const char *name;
    char note[ACCELERATOR_TEXT];

    (void)state;
    assert_int_equal(accelerator_find(&settings, NULL, &name, note, &error), 0);
    assert_string_equal(name, "tcg");
    assert_non_null(strstr(note, "/dev/null is not a device of KVM"));
    assert_int_equal(accelerator_find(&settings, "auto", &name, note, &error), 0);
    assert_string_equal(name, "tcg");
    assert_int_equal(accelerator_find(&settings, "tcg", &name, note, &error), 0);
    assert_string_equal(note, "");
    assert_int_equal(accelerator_find(&settings, "kqemu", &name, note, &error), 0);
    assert_string_equal(name, "tcg");
    assert_non_null(strstr(note, "KQEMU is history"));
    assert_int_equal(accelerator_find(&settings, "kvm", &name, note, &error), ERROR_UNSUPPORTED);
    assert_int_equal(accelerator_find(&settings, "warp", &name, note, &error), ERROR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_that_are_none), cmocka_unit_test(test_fifo),
        cmocka_unit_test(test_forbidden),             cmocka_unit_test(test_qemu_that_misbehaves),
        cmocka_unit_test(test_process_group_is_ended), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_damaged_memory),        cmocka_unit_test(test_choice),
    };

    return cmocka_run_group_tests_name("vm_accelerator", tests, make_scratch, remove_scratch);
}
