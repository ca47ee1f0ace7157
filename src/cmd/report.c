/*
 * What goes to standard output and standard error: lines for people, errors and
 * their exit status, the log. Control characters never reach the terminal: part
 * of what is printed comes from servers.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "cmd/options.h"

enum exit_status exit_status_of(int error_code)
{
    static const enum exit_status statuses[] = {
        [0] = EXIT_OK,
        [-ERROR_INVALID] = EXIT_USAGE,
        [-ERROR_NOT_FOUND] = EXIT_NOT_FOUND,
        [-ERROR_CORRUPT] = EXIT_INTEGRITY,
        [-ERROR_UNAVAILABLE] = EXIT_NETWORK,
        [-ERROR_UNTRUSTED] = EXIT_SIGNATURE,
        [-ERROR_ROLLED_BACK] = EXIT_ROLLBACK,
        [-ERROR_EXPIRED] = EXIT_EXPIRED,
        [-ERROR_EXISTS] = EXIT_SYSTEM,
        [-ERROR_BUSY] = EXIT_SYSTEM,
        [-ERROR_NO_SPACE] = EXIT_SYSTEM,
        [-ERROR_CHANGED] = EXIT_INTEGRITY,
        [-ERROR_UNSUPPORTED] = EXIT_SYSTEM,
        [-ERROR_CANCELLED] = EXIT_CANCELLED,
        [-ERROR_SYSTEM] = EXIT_SYSTEM,
    };

    if (error_code > 0 || error_code < ERROR_SYSTEM)
        return EXIT_SYSTEM;
    return statuses[-error_code];
}

void report_escaped(FILE *to, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    for (; *at; at++) {
        if (*at < 0x20 || *at == 0x7f)
            fprintf(to, "\\x%02x", *at);
        else if (*at == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f) /* U+0080 to U+009F are control characters too */
            fprintf(to, "\\x%02x", *++at);
        else
            fputc(*at, to);
    }
}

char *report_escape(const char *text)
{
    char *escaped = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&escaped, &size);

    if (!memory)
        return NULL;
    report_escaped(memory, text);
    fclose(memory);
    return escaped;
}

static bool is_insecure(const struct context *context)
{
    return context && context->client && context->client->insecure;
}

/* COMMAND, if not NULL, is named too. */
static void print_prefix(const struct context *context, const struct command *command)
{
    if (!command || !command->hidden)
        fputs("circular", stderr);
    if (command)
        fprintf(stderr, "%s%s", command->hidden ? "" : " ", command->name);
    fputs(is_insecure(context) ? " (insecure): " : ": ", stderr);
}

/* Bytes of the UTF-8 character at AT; 0 if it is none (RFC 3629: no surrogates, nothing over-long). */
static int utf8_length(const unsigned char *at)
{
    int length = *at < 0x80 ? 1 : *at < 0xc2 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf5 ? 4 : 0;

    for (int i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f) || (*at == 0xf0 && at[1] < 0x90) ||
        (*at == 0xf4 && at[1] > 0x8f))
        return 0;
    return length;
}

/* Paths may hold any bytes; what is not UTF-8 becomes U+FFFD, so that the document can be read. */
static void print_json_string(FILE *to, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    fputc('"', to);
    while (*at) {
        int length = utf8_length(at);

        if (*at == '"' || *at == '\\')
            fprintf(to, "\\%c", *at);
        else if (*at < 0x20 || *at == 0x7f)
            fprintf(to, "\\u%04x", *at);
        else if (length)
            fwrite(at, 1, (size_t)length, to);
        else
            fputs("\xef\xbf\xbd", to);
        at += length ? length : 1;
    }
    fputc('"', to);
}

static void print_json_error(const struct context *context, int status, const char *word, const char *message)
{
    progress_pause();
    fprintf(stderr, "{\"error\": \"%s\", \"exit_status\": %d, \"message\": ", word, status);
    print_json_string(stderr, message);
    fputs(is_insecure(context) ? ", \"insecure\": true}\n" : "}\n", stderr);
    progress_resume();
}

int report_error(const struct context *context, const struct error *error)
{
    int status = exit_status_of(error->code);

    if (context->json) {
        print_json_error(context, status, error_word(error->code), error->message);
        return status;
    }
    progress_pause();
    print_prefix(context, NULL);
    report_escaped(stderr, error->message);
    fputc('\n', stderr);
    progress_resume();
    return status;
}

int report_memory(const struct context *context)
{
    struct error error = ERROR_INIT;

    error_set(&error, ERROR_SYSTEM, "no memory for this command");
    return report_error(context, &error);
}

int report_usage(const struct context *context, const char *format, ...)
{
    const struct command *command = context->command;
    auto_free char *words = NULL;
    va_list arguments;

    va_start(arguments, format);
    words = text_format_list(format, arguments);
    va_end(arguments);
    if (!words)
        return report_memory(context);
    if (context->json) {
        print_json_error(context, EXIT_USAGE, "usage", words);
        return EXIT_USAGE;
    }
    progress_pause();
    print_prefix(context, command);
    report_escaped(stderr, words);
    fprintf(stderr, " (see '%s%s%s --help')\n", command && command->hidden ? "" : "circular",
            command && !command->hidden ? " " : "", command ? command->name : "");
    progress_resume();
    return EXIT_USAGE;
}

void report_line(const struct context *context, const char *format, ...)
{
    auto_free char *line = NULL;
    va_list arguments;

    if (context->quiet || context->json)
        return;
    va_start(arguments, format);
    line = text_format_list(format, arguments);
    va_end(arguments);
    if (!line)
        return;
    progress_pause();
    if (is_insecure(context))
        fputs("[insecure] ", stdout);
    report_escaped(stdout, line);
    fputc('\n', stdout);
    progress_resume();
}

void report_log(void *user, enum log_level level, const char *line)
{
    static const char *const words[] = {"error: ", "warning: ", "", ""};

    progress_pause();
    print_prefix(user, NULL);
    fputs(words[level], stderr);
    report_escaped(stderr, line);
    fputc('\n', stderr);
    progress_resume();
}

int report_finish(const struct context *context, int status)
{
    struct error error = ERROR_INIT;

    errno = 0;
    if (!fflush(stdout) && !ferror(stdout))
        return status;
    if (errno == EPIPE) /* nobody reads on (`circular ls URL | head -1`): not worth a message */
        return status ? status : EXIT_SYSTEM;
    if (errno)
        error_set_errno(&error, errno, "cannot write to standard output");
    else
        error_set(&error, ERROR_SYSTEM, "cannot write to standard output");
    report_error(context, &error);
    return status ? status : EXIT_SYSTEM;
}

static void emit_begin(struct emit *emit, const char *key)
{
    if (emit->depth)
        printf("%s\n%*s", emit->filled ? "," : "", (int)emit->depth * 2, "");
    emit->filled = true;
    if (key) {
        print_json_string(stdout, key);
        fputs(": ", stdout);
    }
}

void emit_open(struct emit *emit, const char *key, char bracket)
{
    emit_begin(emit, key);
    putchar(bracket);
    emit->depth++;
    emit->filled = false;
}

void emit_close(struct emit *emit, char bracket)
{
    emit->depth--;
    if (emit->filled)
        printf("\n%*s", (int)emit->depth * 2, "");
    putchar(bracket);
    emit->filled = true;
    if (!emit->depth)
        putchar('\n');
}

void emit_text(struct emit *emit, const char *key, const char *value)
{
    emit_begin(emit, key);
    if (value)
        print_json_string(stdout, value);
    else
        fputs("null", stdout);
}

void emit_number(struct emit *emit, const char *key, uint64_t value)
{
    emit_begin(emit, key);
    printf("%llu", (unsigned long long)value);
}

void emit_bool(struct emit *emit, const char *key, bool value)
{
    emit_begin(emit, key);
    fputs(value ? "true" : "false", stdout);
}
