/* The menu, for commands that were not told which image they shall use. */
#ifndef CMD_MENU_H
#define CMD_MENU_H

#include "cmd/cmd.h"

/*
 * Have a person choose an image of the archive URL (NULL: the configured one). *LOCATION_OUT: "URL/NAME@VERSION", heap;
 * NULL: none was chosen. Exit status; prints what is wrong.
 */
int menu_choose(const struct context *context, const char *url, char **location_out);

#endif
