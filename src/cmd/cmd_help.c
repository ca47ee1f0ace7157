/* circular help [COMMAND]: what there is. */
#include <stdio.h>
#include <string.h>

#include "cmd/options.h"

static int print_overview(void)
{
    puts("Usage: circular COMMAND [OPTION]... [ARGUMENT]...\n"
         "The Internet as a bootable disk, the local disk as its cache.\n"
         "\nCommands:");
    for (const struct command *const *at = command_table; *at; at++)
        if (!(*at)->hidden)
            printf("  %-15s %s\n", (*at)->name, (*at)->summary);
    puts("\n'circular COMMAND --help' tells the options of a command, circular(1) everything.\n"
         "'circular --version' tells the version.");
    return EXIT_OK;
}

/* All commands whose name is, or begins with, the words. */
static int run(const struct context *context, int count, char **arguments)
{
    char name[64];
    size_t length;
    int found = 0;

    if (count == 0)
        return print_overview();
    snprintf(name, sizeof(name), "%s%s%s", arguments[0], count > 1 ? " " : "", count > 1 ? arguments[1] : "");
    length = strlen(name);
    for (const struct command *const *at = command_table; *at; at++) {
        if (strncmp((*at)->name, name, length) || ((*at)->name[length] && (*at)->name[length] != ' '))
            continue;
        if (found++)
            puts("");
        help_print_command(stdout, *at);
    }
    return found ? EXIT_OK : report_usage(context, "there is no command '%s'", name);
}

static const char *const usage[] = {"[COMMAND...]", NULL};

const struct command command_help = {
    .name = "help",
    .usage = usage,
    .summary = "tell what commands there are, or about one of them",
    .run = run,
};
