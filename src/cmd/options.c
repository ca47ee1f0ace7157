/* Parsing the command line by tables. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "cmd/options.h"

#define CANDIDATES_MAX 64

static const struct option common_table[] = {
    {"help", 'h', OPTION_FLAG, NULL, "show this help", offsetof(struct common_options, help)},
    {"quiet", 'q', OPTION_FLAG, NULL, "print errors and nothing else", offsetof(struct common_options, quiet)},
    {"verbose", 'v', OPTION_COUNT, NULL, "say what is done; twice: each request",
     offsetof(struct common_options, verbose)},
    {0},
};

static const struct option common_json_table[] = {
    {"help", 'h', OPTION_FLAG, NULL, "show this help", offsetof(struct common_options, help)},
    {"json", 0, OPTION_FLAG, NULL, "print the result, and errors, as JSON", offsetof(struct common_options, json)},
    {"quiet", 'q', OPTION_FLAG, NULL, "print errors and nothing else", offsetof(struct common_options, quiet)},
    {"verbose", 'v', OPTION_COUNT, NULL, "say what is done; twice: each request",
     offsetof(struct common_options, verbose)},
    {0},
};

size_t option_sets_of(const struct command *command, void *own, struct client_options *client,
                      struct common_options *common, struct option_set sets[OPTION_SETS_MAX])
{
    size_t count = 0;

    if (command->options)
        sets[count++] = (struct option_set){"Options", command->options, own};
    if (command->client)
        sets[count++] = (struct option_set){"Client options", client_option_table, client};
    sets[count++] = (struct option_set){"Common options", command->json ? common_json_table : common_table, common};
    return count;
}

const struct option *option_find(const struct option *table, const char *name)
{
    for (; table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

static bool takes_value(const struct option *option)
{
    return option->kind != OPTION_FLAG && option->kind != OPTION_COUNT;
}

static bool number_parse(const char *text, uint64_t *value_out)
{
    char *end;

    if (*text < '0' || *text > '9' || strlen(text) > 18)
        return false;
    *value_out = strtoull(text, &end, 10);
    return *end == '\0';
}

static int list_add(struct text_list *list, const char *text, struct error *error)
{
    const char **items = reallocarray(list->items, list->count + 1, sizeof(*items));

    if (!items)
        return error_set(error, ERROR_SYSTEM, "no memory for the options");
    items[list->count++] = text;
    list->items = items;
    return 0;
}

static int flag_store(bool *flag, const char *text, struct error *error)
{
    if (strcmp(text, "yes") && strcmp(text, "no"))
        return error_set(error, ERROR_INVALID, "'%s' is neither yes nor no", text);
    *flag = !strcmp(text, "yes");
    return 0;
}

static int number_store(enum option_kind kind, uint64_t *value, const char *text, struct error *error)
{
    bool size = kind == OPTION_SIZE || kind == OPTION_POSITIVE_SIZE;
    bool duration = kind == OPTION_DURATION || kind == OPTION_POSITIVE_DURATION;

    if (size && !size_parse(text, value))
        return error_set(error, ERROR_INVALID, "'%s' is not a size (such as 4096, 64K or 2G)", text);
    if (duration && !duration_parse(text, value))
        return error_set(error, ERROR_INVALID, "'%s' is not a time (such as 500ms, 60s, 5m or 90d)", text);
    if (!size && !duration && !number_parse(text, value))
        return error_set(error, ERROR_INVALID, "'%s' is not a number", text);
    if (*value == 0 && kind >= OPTION_POSITIVE_SIZE)
        return error_set(error, ERROR_INVALID, "'%s' is not more than 0", text);
    return 0;
}

int option_store(const struct option *option, void *base, const char *text, struct error *error)
{
    void *value = (char *)base + option->offset;

    switch (option->kind) {
    case OPTION_FLAG:
        return flag_store(value, text, error);
    case OPTION_COUNT:
        ++*(unsigned *)value;
        return 0;
    case OPTION_TEXT:
        if (!*text)
            return error_set(error, ERROR_INVALID, "the value is empty");
        *(const char **)value = text;
        return 0;
    case OPTION_LIST:
        if (!*text)
            return error_set(error, ERROR_INVALID, "the value is empty");
        return list_add(value, text, error);
    default:
        return number_store(option->kind, value, text, error);
    }
}

void options_finish(const struct option *table, void *base)
{
    for (; table && table->name; table++) {
        struct text_list *list = (void *)((char *)base + table->offset);

        if (table->kind == OPTION_LIST) {
            free(list->items);
            *list = (struct text_list){0};
        }
    }
}

static int unknown_option(const struct option_set *sets, size_t set_count, const char *name, struct error *error)
{
    const char *candidates[CANDIDATES_MAX];
    const char *near;
    size_t count = 0;

    for (size_t i = 0; i < set_count; i++)
        for (const struct option *o = sets[i].table; o->name && count < CANDIDATES_MAX; o++)
            candidates[count++] = o->name;
    near = suggest(name, candidates, count);
    if (near)
        return error_set(error, ERROR_INVALID, "unknown option --%.100s; did you mean --%s?", name, near);
    return error_set(error, ERROR_INVALID, "unknown option --%.100s", name);
}

/* The state of one parse. */
struct parse {
    const struct option_set *sets;
    size_t set_count;
    int argc;
    char **argv;
    int at; /* the next word */
};

static int store(const struct option *option, const struct option_set *set, const char *spelling,
                 const char *text, struct error *error)
{
    if (option->kind == OPTION_FLAG) {
        *(bool *)((char *)set->base + option->offset) = true;
        return 0;
    }
    if (option_store(option, set->base, text, error))
        return error_prefix(error, "%s", spelling);
    return 0;
}

/* VALUE is what was attached to the option, or NULL. */
static int take_option(struct parse *parse, const struct option *option, const struct option_set *set,
                       const char *spelling, const char *value, struct error *error)
{
    if (!takes_value(option)) {
        if (value)
            return error_set(error, ERROR_INVALID, "%s takes no value", spelling);
    } else if (!value) {
        if (parse->at >= parse->argc)
            return error_set(error, ERROR_INVALID, "%s needs a value, %s", spelling, option->value_name);
        value = parse->argv[parse->at++];
    }
    return store(option, set, spelling, value, error);
}

static int take_long(struct parse *parse, const char *word, struct error *error)
{
    const char *equals = strchr(word, '=');
    auto_free char *name = equals ? strndup(word, (size_t)(equals - word)) : strdup(word);
    char spelling[64];

    if (!name)
        return error_set(error, ERROR_SYSTEM, "no memory for the options");
    for (size_t i = 0; i < parse->set_count; i++) {
        const struct option *option = option_find(parse->sets[i].table, name);

        if (!option)
            continue;
        snprintf(spelling, sizeof(spelling), "--%s", option->name);
        return take_option(parse, option, &parse->sets[i], spelling, equals ? equals + 1 : NULL, error);
    }
    return unknown_option(parse->sets, parse->set_count, name, error);
}

static const struct option *find_letter(const struct parse *parse, char letter, const struct option_set **set_out)
{
    for (size_t i = 0; i < parse->set_count; i++)
        for (const struct option *o = parse->sets[i].table; o->name; o++)
            if (o->letter == letter) {
                *set_out = &parse->sets[i];
                return o;
            }
    return NULL;
}

static int take_letters(struct parse *parse, const char *letters, struct error *error)
{
    for (const char *at = letters; *at; at++) {
        const struct option_set *set;
        const struct option *option = find_letter(parse, *at, &set);
        char spelling[] = {'-', *at, '\0'};
        bool attached = option && takes_value(option) && at[1];
        int result;

        if (!option)
            return error_set(error, ERROR_INVALID, "unknown option -%c", *at);
        result = take_option(parse, option, set, spelling, attached ? at + 1 : NULL, error);
        if (result || attached)
            return result;
    }
    return 0;
}

int options_parse(const struct option_set *sets, size_t set_count, int argc, char **argv, int *count_out,
                  struct error *error)
{
    struct parse parse = {sets, set_count, argc, argv, 0};
    bool only_arguments = false;
    int count = 0;

    while (parse.at < argc) {
        char *word = argv[parse.at++];
        int result = 0;

        if (only_arguments || word[0] != '-' || !word[1])
            argv[count++] = word;
        else if (!strcmp(word, "--"))
            only_arguments = true;
        else if (word[1] == '-')
            result = take_long(&parse, word + 2, error);
        else
            result = take_letters(&parse, word + 1, error);
        if (result)
            return result;
    }
    *count_out = count;
    return 0;
}

/* The words of one argument form: how few and how many it takes. */
static void form_bounds(const char *form, int *least_out, int *most_out)
{
    *least_out = *most_out = 0;
    for (const char *at = form; *at;) {
        size_t length = strcspn(at, " ");
        bool repeats = length > 3 && !strncmp(at + length - 3, "...", 3);

        if (length && *at != '[')
            ++*least_out;
        if (repeats || (*at == '[' && length > 4 && !strncmp(at + length - 4, "...]", 4)))
            *most_out = 1000000;
        else if (length)
            ++*most_out;
        at += length + (at[length] == ' ');
    }
}

/* The word of FORM for argument INDEX. */
static const char *form_word(const char *form, int index, int *length_out)
{
    for (; index > 0; index--) {
        form += strcspn(form, " ");
        form += *form == ' ';
    }
    *length_out = (int)strcspn(form, " ");
    return form;
}

int arguments_check(const struct command *command, int count, char **arguments, struct error *error)
{
    const char *shortest = NULL;
    int fewest = 0, least, most, length;

    for (const char *const *form = command->usage; form && *form; form++) {
        form_bounds(*form, &least, &most);
        if (count >= least && count <= most)
            return 0;
        if (!shortest || least < fewest) {
            shortest = *form;
            fewest = least;
        }
    }
    if (!shortest)
        return count ? error_set(error, ERROR_INVALID, "takes no arguments, but got '%s'", arguments[0]) : 0;
    if (count >= fewest)
        return error_set(error, ERROR_INVALID, "'%s' is one argument too many", arguments[count - 1]);
    shortest = form_word(shortest, count, &length);
    return error_set(error, ERROR_INVALID, "%.*s is missing", length, shortest);
}
