/* circular key new, key show: minisign-compatible keys. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/options.h"
#include "trust/keys.h"

#define PASSWORD_MAX 1024
#define KEY_FILE_MAX 4096

struct new_options {
    bool no_password;
};

static const struct option new_table[] = {
    {"no-password", 'W', OPTION_FLAG, NULL, "do not encrypt the secret key, and do not ask",
     offsetof(struct new_options, no_password)},
    {0},
};

static void print_key(const struct context *context, const struct public_key *key, const char *public_path,
                      const char *secret_path, const char *kind)
{
    char number[KEY_NUMBER_TEXT], text[PUBLIC_KEY_TEXT];
    struct emit emit = {0};

    key_number_format(key->number, number);
    public_key_base64(key, text);
    if (!context->json) {
        if (kind)
            report_line(context, "kind        %s", kind);
        report_line(context, "number      %s", number);
        report_line(context, "public key  %s", text);
        return;
    }
    emit_open(&emit, NULL, '{');
    if (kind)
        emit_text(&emit, "kind", kind);
    emit_text(&emit, "number", number);
    emit_text(&emit, "public_key", text);
    if (public_path)
        emit_text(&emit, "public_file", public_path);
    if (secret_path)
        emit_text(&emit, "secret_file", secret_path);
    emit_close(&emit, '}');
}

/* Ask twice. An empty password means none, as in minisign. */
static int ask_new_password(const char *base, char password[PASSWORD_MAX], struct error *error)
{
    char again[PASSWORD_MAX], what[256];
    int result;

    *password = '\0';
    if (!password_can_be_asked()) {
        log_warning("there is no terminal to ask for a password: %s.sec is not encrypted", base);
        return 0;
    }
    snprintf(what, sizeof(what), "%.200s.sec (empty: none)", base);
    result = ask_password(NULL, what, password, PASSWORD_MAX, error);
    if (result || !*password)
        return result;
    result = ask_password(NULL, "it once more", again, sizeof(again), error);
    if (!result && strcmp(password, again))
        result = error_set(error, ERROR_INVALID, "the two passwords differ; no key was made");
    explicit_bzero(again, sizeof(again));
    return result;
}

/* Before a password is asked for; key_pair_write makes sure of it. */
static int refuse_existing(const char *path, struct error *error)
{
    return access(path, F_OK) ? 0 : error_set(error, ERROR_EXISTS, "%s exists already", path);
}

static int run_new(const struct context *context, int count, char **arguments)
{
    const struct new_options *options = context->options;
    const char *base = arguments[0];
    char password[PASSWORD_MAX] = "", secret_path[PATH_MAX], public_path[PATH_MAX];
    struct error error = ERROR_INIT;
    struct public_key key;
    int result = 0;

    (void)count;
    if (strlen(base) + sizeof(".sec") > PATH_MAX || !*base || base[strlen(base) - 1] == '/')
        return report_usage(context, "'%.200s' is no name for a pair of files", base);
    snprintf(secret_path, sizeof(secret_path), "%s.sec", base);
    snprintf(public_path, sizeof(public_path), "%s.pub", base);
    if (refuse_existing(secret_path, &error) || refuse_existing(public_path, &error))
        return report_error(context, &error);
    if (!options->no_password)
        result = ask_new_password(base, password, &error);
    if (!result)
        result = key_pair_write(base, *password ? password : NULL, &key, &error);
    explicit_bzero(password, sizeof(password));
    if (result)
        return report_error(context, &error);
    if (!context->json) {
        report_line(context, "secret key  %s (whoever has it can publish in your name)", secret_path);
        report_line(context, "public key  %s (give it to those who shall trust you)", public_path);
    }
    print_key(context, &key, public_path, secret_path, NULL);
    return EXIT_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && !strcmp(text + length - end_length, end);
}

static int run_show(const struct context *context, int count, char **arguments)
{
    cleanup(buffer_finish) struct buffer text = {0};
    const char *path = arguments[0], *kind = "public";
    struct error error = ERROR_INIT;
    struct public_key public;
    struct secret_key secret;

    (void)count;
    if (file_read(AT_FDCWD, path, KEY_FILE_MAX, &text, &error))
        return report_error(context, &error);
    if (public_key_parse((const char *)text.bytes, text.size, &public, &error)) {
        explicit_bzero(text.bytes, text.size);
        error_prefix(&error, "%s", path);
        if (ends_with(path, ".pub") || secret_key_load(path, ask_password, NULL, &secret, &error))
            return report_error(context, &error);
        secret_key_public(&secret, &public);
        secret_key_wipe(&secret);
        kind = "secret";
    }
    print_key(context, &public, NULL, NULL, kind);
    return EXIT_OK;
}

static const char *const new_usage[] = {"BASE", NULL};
static const char *const show_usage[] = {"FILE", NULL};

const struct command command_key_new = {
    .name = "key new",
    .usage = new_usage,
    .summary = "make a pair of keys, BASE.sec and BASE.pub, as minisign does",
    .options = new_table,
    .options_size = sizeof(struct new_options),
    .json = true,
    .run = run_new,
};

const struct command command_key_show = {
    .name = "key show",
    .usage = show_usage,
    .summary = "show the number and the public half of a key",
    .json = true,
    .run = run_show,
};
