/*
 * circular completion WORD...: what the last word can become, for the shells'
 * completion scripts. One candidate a line, a tab and its description; ":file"
 * and ":dir" ask the shell for paths.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/options.h"
#include "format/catalog.h"
#include "store/cache.h"

static bool begins(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

static void offer(const char *candidate, int length, const char *help, const char *word)
{
    if (begins(candidate, word))
        printf("%.*s\t%s\n", length, candidate, help);
}

/* Names of commands; FIRST is the word before, which two-word names share, or "". */
static void offer_commands(const char *first, const char *word)
{
    size_t skip = *first ? strlen(first) + 1 : 0;
    const char *last = "";

    for (const struct command *const *at = command_table; *at; at++) {
        const char *name = (*at)->name;
        int length;

        if ((*at)->hidden || (skip && (!begins(name, first) || name[skip - 1] != ' ')))
            continue;
        name += skip;
        length = (int)strcspn(name, " ");
        if (strlen(last) >= (size_t)length && !strncmp(name, last, (size_t)length) && name[length] == ' ')
            continue; /* another of the same first word */
        last = name;
        offer(name, length, name[length] ? "..." : (*at)->summary, word);
    }
}

/* Versions of "NAME@", names otherwise, of an archive's catalog. HEAD is the word up to them. */
static void offer_versions(const struct catalog *catalog, const char *head, int head_length, const char *rest)
{
    bool versions = strchr(rest, '@');

    for (size_t i = 0; i < catalog->version_count; i++) {
        const struct catalog_version *version = &catalog->versions[i];
        char candidate[2 * NAME_MAX_LENGTH + 2], size[SIZE_TEXT];

        if (!versions && catalog_find(catalog, version->name, NULL) != version)
            continue;
        snprintf(candidate, sizeof(candidate), "%s%s%s", version->name, versions ? "@" : "",
                 versions ? version->version : "");
        if (begins(candidate, rest))
            printf("%.*s%s\t%s\n", head_length, head, candidate, size_format(version->disk_size, size));
    }
}

/* Images of the archive that WORD begins with, from its catalog in the cache; nothing is fetched. */
static void offer_images(const char *word)
{
    cleanup(client_finish) struct client_options client = {0};
    cleanup(buffer_finish) struct buffer bytes = {0};
    const char *slash = strrchr(word, '/');
    auto_free char *archive = slash ? strndup(word, (size_t)(slash - word)) : NULL;
    struct catalog catalog;
    struct cache *cache;

    if (!archive || client_load(&client, NULL) || access(client.cache, R_OK) ||
        cache_open(client.cache, 0, &cache, NULL))
        return;
    if (!cache_read_metadata(cache, archive, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, &bytes, NULL) &&
        !catalog_parse(bytes.bytes, bytes.size, &catalog, NULL)) {
        offer_versions(&catalog, word, (int)(slash + 1 - word), slash + 1);
        catalog_finish(&catalog);
    }
    cache_close(cache);
}

/* KIND is a word of --help for a value or an argument. */
static void offer_value(const char *kind, const char *word)
{
    if (strstr(kind, "URL"))
        offer_images(word);
    if (strstr(kind, "COMMAND"))
        offer_commands("", word);
    if (strstr(kind, "DIR") || strstr(kind, "URL") || strstr(kind, "ARCHIVE"))
        puts(":dir");
    if (strstr(kind, "FILE") || strstr(kind, "PUB") || strstr(kind, "KEY") || strstr(kind, "BASE"))
        puts(":file");
}

static void offer_options(const struct option_set *sets, size_t set_count, const char *word)
{
    char spelling[64];

    for (size_t i = 0; i < set_count; i++)
        for (const struct option *option = sets[i].table; option->name; option++) {
            snprintf(spelling, sizeof(spelling), "--%s", option->name);
            offer(spelling, (int)strlen(spelling), option->help, word);
        }
}

/* The option that WORD spells, if it needs a value that is not in the same word. */
static const struct option *awaits_value(const struct option_set *sets, size_t set_count, const char *word)
{
    for (size_t i = 0; i < set_count; i++)
        for (const struct option *option = sets[i].table; option->name; option++) {
            bool is_letter = option->letter && word[0] == '-' && word[1] == option->letter && !word[2];

            if (option->value_name && (is_letter || (begins(word, "--") && !strcmp(word + 2, option->name))))
                return option;
        }
    return NULL;
}

/* Argument INDEX of every form of the command. */
static void offer_arguments(const struct command *command, int index, const char *word)
{
    for (const char *const *form = command->usage; form && *form; form++) {
        const char *at = *form;
        auto_free char *kind = NULL;

        for (int i = 0; i < index && *at; i++) {
            const char *next = at + strcspn(at, " ");

            if (!*next && strstr(at, "..."))
                break;
            at = next + (*next == ' ');
        }
        kind = strndup(at, strcspn(at, " "));
        if (kind)
            offer_value(kind, word);
    }
}

static void complete_command(const struct command *command, int count, char **words)
{
    struct option_set sets[OPTION_SETS_MAX];
    size_t set_count = option_sets_of(command, NULL, NULL, NULL, sets);
    const struct option *pending = NULL;
    const char *word = words[count - 1];
    int arguments = 0;

    for (int i = 0; i < count - 1; i++) {
        if (pending)
            pending = NULL;
        else if (words[i][0] == '-' && words[i][1])
            pending = awaits_value(sets, set_count, words[i]);
        else
            arguments++;
    }
    if (pending)
        offer_value(pending->value_name, word);
    else if (*word == '-')
        offer_options(sets, set_count, word);
    else
        offer_arguments(command, arguments, word);
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct command *command;
    int used = 0;

    (void)context;
    command = count ? command_find(count, arguments, &used) : NULL;
    if (command && count > used)
        complete_command(command, count - used, arguments + used);
    else if (count <= 1)
        offer_commands("", count ? arguments[0] : "");
    else if (count == 2)
        offer_commands(arguments[0], arguments[1]);
    return EXIT_OK;
}

static const char *const usage[] = {"[WORD...]", NULL};

const struct command command_completion = {
    .name = "completion",
    .usage = usage,
    .summary = "tell shells what the last word can become",
    .hidden = true,
    .run = run,
};
