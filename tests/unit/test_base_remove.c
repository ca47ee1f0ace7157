/* Folders removed with all in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static void a_folder_is_removed_with_all_in_it_and_nothing_else(void **state)
{
    char folder[] = "/tmp/test-base-XXXXXX";
    struct buffer buffer = {0};
    struct error error = ERROR_INIT;
    char deep[128] = "kept/";
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    fd = file_open_folder(folder, false, &error);
    assert_int_equal(file_write_atomic(fd, "other/file", "here", 4, FILE_MAKE_FOLDERS, &error), 0);
    assert_int_equal(file_write_atomic(fd, "gone/a/b/file", "1", 1, FILE_MAKE_FOLDERS, &error), 0);
    assert_int_equal(file_write_atomic(fd, "gone/.hidden", "2", 1, 0, &error), 0);
    assert_int_equal(symlinkat("../other", fd, "gone/link"), 0);
    assert_int_equal(file_empty_folder(fd, "gone", &error), 0);
    assert_int_equal(unlinkat(fd, "gone", AT_REMOVEDIR), 0);
    assert_int_equal(file_read(fd, "other/file", 4, &buffer, &error), 0);
    assert_int_equal(file_remove(fd, "gone", &error), 0); /* nothing there */
    assert_int_equal(file_empty_folder(fd, "gone", &error), 0);

    /* What cannot be removed does not save the rest. */
    for (int i = 0; i < 40; i++)
        strcat(deep, "d/");
    assert_int_equal(file_make_folders(fd, deep, 0700, &error), 0);
    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "kept/%d/file", i);
        assert_int_equal(file_write_atomic(fd, name, "", 0, FILE_MAKE_FOLDERS, &error), 0);
    }
    assert_int_equal(file_remove(fd, "kept", &error), ERROR_INVALID);
    assert_non_null(strstr(error.message, "32 folders deep"));
    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "kept/%d", i);
        assert_int_equal(faccessat(fd, name, F_OK, 0), -1);
    }
    assert_int_equal(renameat(fd, "kept/d/d/d/d/d/d/d/d/d/d", fd, "shallower"), 0);
    assert_int_equal(file_remove(fd, "shallower", &error), 0);
    assert_int_equal(file_remove(fd, "kept", &error), 0);
    assert_int_equal(file_remove(AT_FDCWD, folder, &error), 0);
    assert_int_equal(access(folder, F_OK), -1);
    buffer_finish(&buffer);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_is_removed_with_all_in_it_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
