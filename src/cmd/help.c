/* --help, from the tables. */
#include <string.h>

#include "cmd/options.h"

#define LINE_WIDTH  79
#define HELP_COLUMN 28

static void print_usage(FILE *to, const struct command *command)
{
    static const char *const none[] = {"", NULL};
    const char *lead = "Usage:";

    for (const char *const *form = command->usage ? command->usage : none; *form; form++) {
        if (command->hidden)
            fprintf(to, "%-6s %s [OPTION]... %s\n", lead, command->name, *form);
        else
            fprintf(to, "%-6s circular %s [OPTION]...%s%s\n", lead, command->name, **form ? " " : "", *form);
        lead = "";
    }
}

/* Print TEXT in words from COLUMN on, further lines indented to HELP_COLUMN. */
static void print_wrapped(FILE *to, int column, const char *text)
{
    if (column > HELP_COLUMN - 2) {
        fputc('\n', to);
        column = 0;
    }
    fprintf(to, "%*s", HELP_COLUMN - column, "");
    column = HELP_COLUMN;
    while (*text) {
        int length = (int)strcspn(text, " ");

        if (column > HELP_COLUMN && column + 1 + length > LINE_WIDTH) {
            fprintf(to, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += fprintf(to, "%s%.*s", column > HELP_COLUMN ? " " : "", length, text);
        text += length;
        text += *text == ' ';
    }
    fputc('\n', to);
}

static void print_option(FILE *to, const struct option *option)
{
    int column = fprintf(to, option->letter ? "  -%c, " : "      ", option->letter);

    column += fprintf(to, "--%s", option->name);
    if (option->value_name)
        column += fprintf(to, " %s", option->value_name);
    print_wrapped(to, column, option->help);
}

void help_print_command(FILE *to, const struct command *command)
{
    struct option_set sets[OPTION_SETS_MAX];
    size_t count = option_sets_of(command, NULL, NULL, NULL, sets);

    print_usage(to, command);
    fprintf(to, "%c%s.\n", command->summary[0] & ~0x20, command->summary + 1);
    for (size_t i = 0; i < count; i++) {
        fprintf(to, "\n%s:\n", sets[i].title);
        for (const struct option *option = sets[i].table; option->name; option++)
            print_option(to, option);
    }
}
