/* The menu without a screen: a numbered list, and a number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cmd/menu_screen.h"

static void print(const struct menu_list *list)
{
    char line[MENU_LINE];

    printf("%s\n%s\n\n", list->title, list->subtitle);
    if (list->heading)
        printf("     %s\n", list->heading);
    for (size_t i = 0; i < list->count; i++) {
        list->describe(list->user, i, line);
        if (!list->can_choose || list->can_choose(list->user, i))
            printf("%3zu  %s\n", i + 1, line);
        else
            printf("  -  %s\n", line);
    }
}

/* 1 to the count of LIST; 0: it is no such number. */
static size_t parse(const struct menu_list *list, const char *text)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    end += strspn(end, " \t\r\n");
    if (*text == '-' || *end || end == text || number > list->count)
        return 0;
    return !list->can_choose || (number && list->can_choose(list->user, number - 1)) ? number : 0;
}

int menu_plain_choose(const struct menu_list *list, size_t *index_out, struct error *error)
{
    auto_free char *line = NULL;
    size_t size = 0, number;

    while (list->work && list->work(list->user))
        ;
    print(list);
    for (;;) {
        printf("\nNumber to %s, nothing to leave: ", list->enter);
        fflush(stdout);
        if (getline(&line, &size, stdin) <= 0 || line[strspn(line, " \t\r\n")] == '\0') {
            putchar('\n');
            return error_set(error, ERROR_CANCELLED, "nothing was chosen");
        }
        number = parse(list, line);
        if (number)
            break;
        printf("That is none of the numbers above.\n");
    }
    *index_out = number - 1;
    return 0;
}
