/* Choosing one line of a list, on the whole screen or, without one, by its number. */
#ifndef CMD_MENU_SCREEN_H
#define CMD_MENU_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define MENU_LINE 400

struct menu_list {
    const char *title, *subtitle; /* UTF-8, without control characters; may be long */
    const char *heading;          /* over the lines; NULL: none */
    const char *enter, *leave;    /* what Enter and Escape do: "run", "leave" */
    size_t count;
    size_t start; /* the line that is chosen at first */
    /* The line of INDEX into TEXT, which holds MENU_LINE. */
    void (*describe)(void *user, size_t index, char *text);
    bool (*can_choose)(void *user, size_t index); /* NULL: any */
    /* Find out a little more while nobody presses a key. False: there is nothing left. NULL: nothing. */
    bool (*work)(void *user);
    void *user;
};

/* True if there is a terminal that can be drawn on. */
bool menu_screen_is_possible(void);

/*
 * CANCELLED: the person wants to leave. UNSUPPORTED: the terminal's type is not known here, nothing was drawn.
 * The terminal is as before when this returns.
 */
int menu_screen_choose(const struct menu_list *list, size_t *index_out, struct error *error);

/* The same with a numbered list and one line of standard input. */
int menu_plain_choose(const struct menu_list *list, size_t *index_out, struct error *error);

#endif
