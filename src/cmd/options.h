/* Parsing the command line by tables, and what can be said from the tables alone. */
#ifndef CMD_OPTIONS_H
#define CMD_OPTIONS_H

#include <stdio.h>

#include "base/log.h"
#include "cmd/cmd.h"

/* A table and the struct that it fills. */
struct option_set {
    const char *title; /* heading in --help */
    const struct option *table;
    void *base;
};

/* The options that every command has. */
struct common_options {
    bool help, json, quiet;
    unsigned verbose;
};

/* The sets of a command, in the order of --help: its own, the client's, the common ones. Bases may be NULL. */
#define OPTION_SETS_MAX 3
size_t option_sets_of(const struct command *command, void *own, struct client_options *client,
                      struct common_options *common, struct option_set sets[OPTION_SETS_MAX]);

/*
 * Parse ARGC words of ARGV (without the program's and command's names). Options may stand anywhere before "--":
 * --name value, --name=value, -n value, -nvalue, -ab. The COUNT_OUT others are moved to the front, in order.
 * Values point into ARGV. ERROR_INVALID with what is wrong and, if there is one near, what may have been meant.
 */
int options_parse(const struct option_set *sets, size_t set_count, int argc, char **argv, int *count_out,
                  struct error *error);

/* Store TEXT as the value of one option; flags take "yes" and "no". TEXT must outlive BASE. ERROR_INVALID. */
int option_store(const struct option *option, void *base, const char *text, struct error *error);

/* Release the lists of a table's struct. */
void options_finish(const struct option *table, void *base);

const struct option *option_find(const struct option *table, const char *name);

/* Does the number of arguments fit any form of the command? ERROR_INVALID says what is missing or too much. */
int arguments_check(const struct command *command, int count, char **arguments, struct error *error);

/* The word of CANDIDATES (COUNT) that WORD is probably a misspelling of; NULL: none is near. */
const char *suggest(const char *word, const char *const *candidates, size_t count);

/* The text of `circular COMMAND --help`. */
void help_print_command(FILE *to, const struct command *command);

/* Configuration files: each *.conf of FOLDER, by name. A folder that is not there is no error. ERROR_INVALID names
 * file and line. */
int client_read_folder(struct client_options *options, const char *folder, struct error *error);
/* Defaults, configuration files, environment. Release with client_finish, also after a failure. */
int client_load(struct client_options *options, struct error *error);
void client_finish(struct client_options *options);
/*
 * What the command line has changed of what client_load gives, as a digest: zeros if it is nothing. How long is waited
 * does not count.
 */
int client_difference(const struct client_options *options, struct digest *digest_out, struct error *error);
/* As client_load, and the cache is PATH unless that is NULL. A folder that is not there is NOT_FOUND, not made. */
int client_find_cache(const char *path, struct client_options *options, struct error *error);
#define CLIENT_CACHE_HELP "look at this folder, not at the configured one"

/* The sink of the log: lines on standard error. USER is the context. */
void report_log(void *user, enum log_level level, const char *line);
/* Flush standard output. STATUS, or EXIT_SYSTEM with a message if what was printed could not be written. */
int report_finish(const struct context *context, int status);
/* TEXT with control characters escaped; report_escape: on the heap, NULL: no memory. */
void report_escaped(FILE *to, const char *text);
char *report_escape(const char *text);

/*
 * Around whatever is printed while a bar may be drawn: take it off the terminal's line, and let no thread draw it
 * (or print something else) until progress_resume.
 */
void progress_pause(void);
void progress_resume(void);

#endif
