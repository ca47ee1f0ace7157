/* The program: one table of commands, and the way from the command line into one of them. */
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cmd/options.h"

/* To add a command: cmd_<verb>.c, a line here, one in meson.build, and its manual page. */
extern const struct command command_ls, command_info, command_mount, command_umount, command_boot;
extern const struct command command_vm_start, command_vm_list, command_vm_info, command_vm_stop, command_vm_console;
extern const struct command command_vm_ssh, command_vm_update, command_vm_rollback, command_vm_reset, command_vm_delete;
extern const struct command command_pull, command_verify, command_accel, command_stats, command_menu;
extern const struct command command_vtpm_new, command_vtpm_info, command_vtpm_reset;
extern const struct command command_cache_info, command_cache_prune, command_cache_verify;
extern const struct command command_mirror_test;
extern const struct command command_key_new, command_key_show;
extern const struct command command_profile_record, command_profile_add, command_pack;
extern const struct command command_publish, command_renew, command_unlist, command_gc, command_serve;
extern const struct command command_help, command_completion, command_httpstorged;
extern const struct command command_httpfuse_kvm, command_httpfuse_qemu, command_httpfuse_kqemu, command_httpfuse_hvm;
extern const struct command command_qemu_knoppix, command_knoppix_u, command_knoppix_hvm, command_xen_vtpm;
extern const struct command command_umlknx, command_tpmd;

const struct command *const command_table[] = {
    /* of those who use archives */
    &command_menu, &command_ls, &command_info, &command_mount, &command_umount, &command_boot,
    &command_vm_start, &command_vm_list, &command_vm_info, &command_vm_stop, &command_vm_console, &command_vm_ssh,
    &command_vm_update, &command_vm_rollback, &command_vm_reset, &command_vm_delete,
    &command_vtpm_new, &command_vtpm_info, &command_vtpm_reset,
    &command_accel, &command_pull, &command_verify, &command_stats,
    &command_cache_info, &command_cache_prune, &command_cache_verify,
    &command_mirror_test,
    /* of those who publish them */
    &command_key_new, &command_key_show,
    &command_publish, &command_renew, &command_unlist, &command_gc, &command_serve,
    &command_profile_record, &command_profile_add, &command_pack,
    /* of both, and hidden ones */
    &command_help, &command_completion, &command_httpstorged,
    &command_httpfuse_kvm, &command_httpfuse_qemu, &command_httpfuse_kqemu, &command_httpfuse_hvm,
    &command_qemu_knoppix, &command_knoppix_u, &command_knoppix_hvm, &command_xen_vtpm, &command_umlknx, &command_tpmd,
    NULL,
};

const struct command *command_find(int count, char **words, int *used_out)
{
    for (const struct command *const *at = command_table; *at; at++) {
        const char *name = (*at)->name, *space = strchr(name, ' ');
        size_t first = space ? (size_t)(space - name) : strlen(name);

        if (strlen(words[0]) != first || strncmp(words[0], name, first))
            continue;
        *used_out = space ? 2 : 1;
        if (!space || (count > 1 && !strcmp(words[1], space + 1)))
            return *at;
    }
    return NULL;
}

/* A hidden command that the program was called as, like httpstorged. */
static const struct command *find_alias(const char *program)
{
    for (const struct command *const *at = command_table; *at; at++)
        if ((*at)->hidden && !strcmp((*at)->name, program))
            return *at;
    return NULL;
}

/* "new or show" if WORD is the first of two-word names. False if it is not. */
static bool list_second_words(const char *word, char *text, size_t size)
{
    size_t length = strlen(word), used = 0;

    for (const struct command *const *at = command_table; *at; at++) {
        const char *name = (*at)->name;

        if (strncmp(name, word, length) || name[length] != ' ' || used >= size)
            continue;
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", name + length + 1);
    }
    return used > 0;
}

static int run_words(struct context *context, int count, char **words);

static int unknown_command(struct context *context, int count, char **words)
{
    const char *candidates[64], *near;
    size_t candidate_count = 0;
    char seconds[200];

    if (words[0][0] == '-')
        return report_usage(context, "options come after the command; '%s' is not one of circular itself", words[0]);
    if (list_second_words(words[0], seconds, sizeof(seconds))) {
        if (count > 1 && (!strcmp(words[1], "--help") || !strcmp(words[1], "-h")))
            return run_words(context, 2, (char *[]){(char[]){"help"}, words[0], NULL});
        if (count < 2 || words[1][0] == '-')
            return report_usage(context, "%s needs one of: %s", words[0], seconds);
        return report_usage(context, "%s has no '%s', only: %s", words[0], words[1], seconds);
    }
    for (const struct command *const *at = command_table; *at && candidate_count < 64; at++)
        if (!(*at)->hidden)
            candidates[candidate_count++] = (*at)->name;
    near = suggest(words[0], candidates, candidate_count);
    return report_usage(context, "unknown command '%s'%s%s%s", words[0], near ? "; did you mean " : "",
                        near ? near : "", near ? "?" : "");
}

static void set_log(const struct context *context)
{
    static const enum log_level levels[] = {LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG};
    enum log_level level = levels[context->verbose < 2 ? context->verbose : 2];

    log_set_sink(report_log, (void *)(uintptr_t)context, context->quiet ? LOG_LEVEL_ERROR : level);
}

/* Is --json among WORDS? Asked when they could not all be parsed: the fault may stand before it. */
static bool json_is_wanted(const struct command *command, int count, char **words)
{
    for (int i = 0; command->json && i < count && strcmp(words[i], "--"); i++)
        if (!strcmp(words[i], "--json"))
            return true;
    return false;
}

/* What the command is told by its words, into the tables' structs. */
static int parse(struct context *context, const struct option_set *sets, size_t set_count, int *argc, char **argv,
                 struct common_options *common)
{
    struct error error = ERROR_INIT;
    bool json;
    int result;

    if (context->command->unparsed) {
        common->help = *argc > 0 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"));
        return EXIT_OK;
    }
    json = json_is_wanted(context->command, *argc, argv); /* parsing moves the words */
    result = options_parse(sets, set_count, *argc, argv, argc, &error);
    context->json = common->json || (result && json);
    context->quiet = common->quiet;
    context->verbose = common->verbose;
    if (!result && !common->help)
        result = arguments_check(context->command, *argc, argv, &error);
    return result ? report_usage(context, "%s", error.message) : EXIT_OK;
}

static int run_command(struct context *context, const struct command *command, int argc, char **argv)
{
    struct option_set sets[OPTION_SETS_MAX];
    struct client_options client = {0};
    struct common_options common = {0};
    struct error configuration = ERROR_INIT;
    auto_free void *own = calloc(1, command->options_size + 1);
    size_t set_count = option_sets_of(command, own, &client, &common, sets);
    int status;

    if (!own)
        return report_memory(context);
    context->command = command;
    context->options = own;
    context->client = command->client ? &client : NULL;
    if (command->client)
        client_load(&client, &configuration);
    status = parse(context, sets, set_count, &argc, argv, &common);
    if (status == EXIT_OK && common.help) {
        help_print_command(stdout, command);
    } else if (status == EXIT_OK && configuration.code) {
        status = report_error(context, &configuration);
    } else if (status == EXIT_OK) {
        set_log(context);
        status = command->run(context, argc, argv);
        log_set_sink(NULL, NULL, LOG_LEVEL_ERROR);
    }
    options_finish(command->options, own);
    client_finish(&client);
    context->client = NULL;
    context->options = NULL;
    return status;
}

int command_run(const struct context *parent, int count, char **words)
{
    struct context context = *parent;
    struct option_set sets[OPTION_SETS_MAX];
    struct common_options common = {.quiet = parent->quiet, .verbose = parent->verbose};
    int used = 0, status;
    const struct command *command = command_find(count, words, &used);
    auto_free void *own = command ? calloc(1, command->options_size + 1) : NULL;
    size_t set_count;

    if (!own)
        return report_memory(parent);
    set_count = option_sets_of(command, own, parent->client, &common, sets);
    context.command = command;
    context.options = own;
    count -= used;
    status = parse(&context, sets, set_count, &count, words + used, &common);
    if (status == EXIT_OK)
        status = command->run(&context, count, words + used);
    options_finish(command->options, own);
    return status;
}

/* The words after the program's name, when it was not called by an alias. */
static int run_words(struct context *context, int count, char **words)
{
    static char help[] = "help";
    const struct command *command;
    char *help_words[] = {help, NULL};
    int used = 0;

    if (count == 0)
        return report_usage(context, "a command is missing");
    if (!strcmp(words[0], "--version") || !strcmp(words[0], "-V")) {
        puts("circular " CIRCULAR_VERSION);
        return EXIT_OK;
    }
    if (!strcmp(words[0], "--help") || !strcmp(words[0], "-h")) {
        words = help_words;
        count = 1;
    }
    command = command_find(count, words, &used);
    if (!command)
        return unknown_command(context, count, words);
    return run_command(context, command, count - used, words + used);
}

int command_run_words(const struct context *context, int count, char **words)
{
    struct context own = {.program = context->program};
    auto_free char **moved = calloc((size_t)count + 1, sizeof(*moved)); /* parsing moves them */

    if (!moved)
        return report_memory(context);
    memcpy(moved, words, (size_t)count * sizeof(*moved));
    return run_words(&own, count, moved);
}

static void on_broken_pipe(int signal_number)
{
    (void)signal_number;
}

/* Undo what whoever started this program may have left it: missing streams, signals that are ignored or blocked. */
static void begin_clean(void)
{
    struct sigaction broken_pipe = {.sa_handler = on_broken_pipe, .sa_flags = SA_RESTART};
    sigset_t none;
    int fd;

    /* Else the next file to be opened would be a stream. Writing to one that is missing still fails. */
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGCHLD, SIG_DFL); /* else children could not be waited for */
    /* Writes then fail with EPIPE. A handler, unlike SIG_IGN, is not handed on to programs that are started. */
    sigaction(SIGPIPE, &broken_pipe, NULL);
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    struct context context = {.program = slash ? slash + 1 : argc > 0 ? argv[0] : "circular"};
    const struct command *alias = find_alias(context.program);
    int status;

    begin_clean();
    setlocale(LC_CTYPE, "");
    if (alias)
        status = run_command(&context, alias, argc - 1, argv + 1);
    else
        status = run_words(&context, argc > 0 ? argc - 1 : 0, argv + 1);
    return report_finish(&context, status);
}
