/* The command line: what is understood, what is refused and with which words; configuration files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/options.h"

struct options {
    bool foreground, force;
    const char *output;
    struct text_list seeds;
    uint64_t size, wait_ms, jobs;
    unsigned loud;
};

static const struct option table[] = {
    {"foreground", 'f', OPTION_FLAG, NULL, "f", offsetof(struct options, foreground)},
    {"force", 0, OPTION_FLAG, NULL, "f", offsetof(struct options, force)},
    {"output", 'o', OPTION_TEXT, "FILE", "o", offsetof(struct options, output)},
    {"seed", 's', OPTION_LIST, "FILE", "s", offsetof(struct options, seeds)},
    {"block-size", 0, OPTION_SIZE, "SIZE", "b", offsetof(struct options, size)},
    {"wait", 0, OPTION_DURATION, "TIME", "w", offsetof(struct options, wait_ms)},
    {"jobs", 'j', OPTION_NUMBER, "COUNT", "j", offsetof(struct options, jobs)},
    {"loud", 'l', OPTION_COUNT, NULL, "l", offsetof(struct options, loud)},
    {0},
};

/* Split WORDS at blanks and parse them; "''" is an empty word. The arguments are left in *ARGUMENTS. */
static int parse(const char *words, struct options *options, char **arguments, int *count, struct error *error)
{
    static char text[512];
    struct option_set set = {"Options", table, options};
    int argc = 0;

    *options = (struct options){0};
    snprintf(text, sizeof(text), "%s", words);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        arguments[argc++] = strcmp(word, "''") ? word : word + 2;
    return options_parse(&set, 1, argc, arguments, count, error);
}

static void options_are_read_in_every_spelling(void **state)
{
    char *arguments[32];
    struct options options;
    int count;

    (void)state;
    assert_int_equal(parse("a --output x -s one b -ssecond --seed=third --block-size 64K -fj4 --wait=5m -ll - -- -f",
                           &options, arguments, &count, NULL), 0);
    assert_int_equal(count, 4);
    assert_string_equal(arguments[0], "a");
    assert_string_equal(arguments[1], "b");
    assert_string_equal(arguments[2], "-");
    assert_string_equal(arguments[3], "-f");
    assert_true(options.foreground);
    assert_false(options.force);
    assert_string_equal(options.output, "x");
    assert_int_equal(options.seeds.count, 3);
    assert_string_equal(options.seeds.items[2], "third");
    assert_int_equal(options.size, 65536);
    assert_int_equal(options.wait_ms, 300000);
    assert_int_equal(options.jobs, 4);
    assert_int_equal(options.loud, 2);
    options_finish(table, &options);
}

static void what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *words, *message;
    } cases[] = {
        {"--foregruond", "unknown option --foregruond; did you mean --foreground?"},
        {"--fore", "unknown option --fore; did you mean --foreground?"},
        {"--ouput=3", "unknown option --ouput; did you mean --output?"},
        {"--bloc", "unknown option --bloc; did you mean --block-size?"},
        {"--zzz", "unknown option --zzz"},
        {"-fx", "unknown option -x"},
        {"--output", "--output needs a value, FILE"},
        {"-o", "-o needs a value, FILE"},
        {"--output=", "--output: the value is empty"},
        {"--seed ''", "--seed: the value is empty"},
        {"--foreground=yes", "--foreground takes no value"},
        {"--block-size 64Q", "--block-size: '64Q' is not a size (such as 4096, 64K or 2G)"},
        {"--block-size -1", "--block-size: '-1' is not a size (such as 4096, 64K or 2G)"},
        {"--wait soon", "--wait: 'soon' is not a time (such as 500ms, 60s, 5m or 90d)"},
        {"-j many", "-j: 'many' is not a number"},
        {"-j 99999999999999999999", "-j: '99999999999999999999' is not a number"},
        {"-j 0x10", "-j: '0x10' is not a number"},
    };
    char *arguments[32];
    struct options options;
    int count;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error = ERROR_INIT;

        assert_int_equal(parse(cases[i].words, &options, arguments, &count, &error), ERROR_INVALID);
        assert_string_equal(error.message, cases[i].message);
        options_finish(table, &options);
    }
}

static void arguments_are_counted_against_the_forms(void **state)
{
    static const char *const mount[] = {"URL/NAME[@VERSION] DIR", "URL DIR", NULL};
    static const char *const some[] = {"FILE... DIR", NULL};
    static const char *const maybe[] = {"[COMMAND]", NULL};
    static const struct {
        const char *const *usage;
        int count;
        const char *message; /* NULL: it fits */
    } cases[] = {
        {mount, 2, NULL},
        {mount, 0, "URL/NAME[@VERSION] is missing"},
        {mount, 1, "DIR is missing"},
        {mount, 3, "'c' is one argument too many"},
        {some, 1, "DIR is missing"},
        {some, 4, NULL},
        {maybe, 0, NULL},
        {maybe, 1, NULL},
        {maybe, 2, "'b' is one argument too many"},
        {NULL, 0, NULL},
        {NULL, 1, "takes no arguments, but got 'a'"},
    };
    static char a[] = "a", b[] = "b", c[] = "c", d[] = "d";
    char *arguments[] = {a, b, c, d};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct command command = {.name = "x", .usage = cases[i].usage};
        struct error error = ERROR_INIT;
        int result = arguments_check(&command, cases[i].count, arguments, &error);

        assert_int_equal(result, cases[i].message ? ERROR_INVALID : 0);
        assert_string_equal(error.message, cases[i].message ? cases[i].message : "");
    }
}

static void near_words_are_suggested(void **state)
{
    static const char *const words[] = {"mount", "umount", "publish", "pull", "ls", "gc", "verify"};
    static const struct {
        const char *word, *meant;
    } cases[] = {
        {"muont", "mount"}, {"unmount", "umount"}, {"pubish", "publish"}, {"verfiy", "verify"}, {"sl", "ls"},
        {"pul", "pull"},    {"publ", "publish"},   {"xyzzy", NULL},       {"", NULL},           {"boot", NULL},
        {"0123456789012345678901234567890123456789012345678901234567890123456789", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *found = suggest(cases[i].word, words, sizeof(words) / sizeof(words[0]));

        if (cases[i].meant)
            assert_string_equal(found, cases[i].meant);
        else
            assert_null(found);
    }
}

static void every_error_has_its_exit_status(void **state)
{
    (void)state;
    assert_int_equal(exit_status_of(0), 0);
    assert_int_equal(exit_status_of(ERROR_INVALID), 2);
    assert_int_equal(exit_status_of(ERROR_NOT_FOUND), 3);
    assert_int_equal(exit_status_of(ERROR_UNAVAILABLE), 4);
    assert_int_equal(exit_status_of(ERROR_CORRUPT), 5);
    assert_int_equal(exit_status_of(ERROR_UNTRUSTED), 6);
    assert_int_equal(exit_status_of(ERROR_ROLLED_BACK), 7);
    assert_int_equal(exit_status_of(ERROR_EXPIRED), 8);
    assert_int_equal(exit_status_of(ERROR_CANCELLED), 130);
    assert_int_equal(exit_status_of(ERROR_NO_SPACE), 1);
    assert_int_equal(exit_status_of(ERROR_SYSTEM), 1);
    assert_int_equal(exit_status_of(-999), 1);
    assert_int_equal(exit_status_of(999), 1);
}

/* A folder with configuration files; removed by remove_folder. */
struct folder {
    char path[64];
    int fd;
};

static void make_folder(struct folder *folder)
{
    snprintf(folder->path, sizeof(folder->path), "/tmp/test-cmd-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    folder->fd = file_open_folder(folder->path, false, NULL);
    assert_true(folder->fd >= 0);
}

static void put(const struct folder *folder, const char *name, const char *text)
{
    assert_int_equal(file_write_atomic(folder->fd, name, text, strlen(text), 0, NULL), 0);
}

static void remove_folder(struct folder *folder, const char *const *names)
{
    for (; *names; names++)
        assert_int_equal(unlinkat(folder->fd, *names, 0), 0);
    close(folder->fd);
    assert_int_equal(rmdir(folder->path), 0);
}

static void later_configuration_files_win_and_lists_grow(void **state)
{
    static const char *const names[] = {"10-a.conf", "20-b.conf", "30-c.conf.old", NULL};
    struct client_options options = {0};
    struct error error = ERROR_INIT;
    struct folder folder;

    (void)state;
    make_folder(&folder);
    put(&folder, "20-b.conf", "patience = 5s\nkey = second.pub\noffline = yes");
    put(&folder, "10-a.conf", "# first\n\npatience=9s\n  key = first.pub \r\ncache = /a folder\nmax-size = 1G\n");
    put(&folder, "30-c.conf.old", "not a configuration file\n");
    assert_int_equal(client_read_folder(&options, folder.path, &error), 0);
    assert_int_equal(options.patience_ms, 5000);
    assert_int_equal(options.max_size, GIB);
    assert_true(options.offline);
    assert_string_equal(options.cache, "/a folder");
    assert_int_equal(options.keys.count, 2);
    assert_string_equal(options.keys.items[0], "first.pub");
    assert_string_equal(options.keys.items[1], "second.pub");
    client_finish(&options);
    remove_folder(&folder, names);
    assert_int_equal(client_read_folder(&options, "/tmp/there is no such folder", &error), 0);
}

static void a_bad_configuration_file_is_named_with_its_line(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"patience = 60s\n\npatiance = 1s\n", "line 3: unknown word 'patiance'; did you mean patience?"},
        {"patience 60s\n", "line 1: not of the form 'word = value'"},
        {"cache =\n", "line 1: no value for 'cache'"},
        {"= x\n", "line 1: no word before '='"},
        {"#\nmax-size = huge", "line 2: max-size: 'huge' is not a size (such as 4096, 64K or 2G)"},
        {"offline = true\n", "line 1: offline: 'true' is neither yes nor no"},
        {"insecure = yes\n", "line 1: insecure is for the command line only"},
        {"cache = /a\033[2J\n", "line 1: the control character 0x1b"},
    };
    static const char *const names[] = {"a.conf", NULL};
    struct folder folder;

    (void)state;
    make_folder(&folder);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client_options options = {0};
        struct error error = ERROR_INIT;
        char message[512];

        put(&folder, "a.conf", cases[i].text);
        assert_int_equal(client_read_folder(&options, folder.path, &error), ERROR_INVALID);
        snprintf(message, sizeof(message), "%s/a.conf: %s", folder.path, cases[i].message);
        assert_string_equal(error.message, message);
        client_finish(&options);
    }
    remove_folder(&folder, names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read_in_every_spelling),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(arguments_are_counted_against_the_forms),
        cmocka_unit_test(near_words_are_suggested),
        cmocka_unit_test(every_error_has_its_exit_status),
        cmocka_unit_test(later_configuration_files_win_and_lists_grow),
        cmocka_unit_test(a_bad_configuration_file_is_named_with_its_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
