/* From what a client was told to an open session. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/options.h"

#define TOKEN_MAX 8192

/* Proxy of the command line, else of environment or configuration; "none" is none. */
static const char *choose_proxy(const char *first, const char *second)
{
    const char *proxy = first ? first : second;

    return proxy && strcmp(proxy, "none") ? proxy : NULL;
}

/* The first line of a file that holds a bearer token, with nothing that could add a header of its own. */
static int read_token(const char *path, struct buffer *token, struct error *error)
{
    size_t length;

    if (file_read(AT_FDCWD, path, TOKEN_MAX, token, error))
        return error_prefix(error, "token");
    if (!buffer_append(token, "", 1))
        return error_set(error, ERROR_SYSTEM, "no memory for the token in %s", path);
    length = strcspn((char *)token->bytes, "\r\n");
    token->bytes[length] = '\0';
    for (size_t i = 0; i < length; i++)
        if (token->bytes[i] <= ' ' || token->bytes[i] >= 0x7f)
            return error_set(error, ERROR_INVALID, "%s holds no bearer token: byte %zu is none of a token's", path,
                             i + 1);
    if (!length)
        return error_set(error, ERROR_INVALID, "%s holds no bearer token: it is empty", path);
    return 0;
}

/* PATH, which may be NULL, is read long after, when a server would be blamed for what is wrong with it. */
static int check_file(const char *what, const char *path, struct error *error)
{
    auto_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;

    return !path || fd >= 0 ? 0 : error_set_errno(error, errno, "%s: cannot open %s", what, path);
}

static int check_ranges(const struct client_options *client, struct error *error)
{
    if (client->connections < 1 || client->connections > 1000)
        return error_set(error, ERROR_INVALID, "connections must be from 1 to 1000, not %llu",
                         (unsigned long long)client->connections);
    if (client->patience_ms > 86400000)
        return error_set(error, ERROR_INVALID, "patience can be a day at most");
    if (client->no_cache && client->offline)
        return error_set(error, ERROR_INVALID, "offline and no-cache together leave nothing to read from");
    return 0;
}

static int open_session(const struct client_options *client, const struct session_settings *common,
                        struct session **session_out, struct error *error)
{
    struct session_settings settings = *common;
    cleanup(buffer_finish) struct buffer token = {0};
    auto_free char *state = client_state_folder();
    auto_free char *configuration = client_configuration_folder();
    auto_free char *user_keys = configuration ? path_join(configuration, "keys.d") : NULL;
    const char *key_folders[] = {"/etc/circular/keys.d", user_keys};
    int result = check_ranges(client, error);

    if (result)
        return result;
    if (!state || !user_keys)
        return error_set(error, ERROR_SYSTEM, "no memory to open a session");
    if (check_file("authorities", client->ca_file, error) ||
        check_file("client certificate", client->client_certificate, error))
        return error ? error->code : ERROR_INVALID;
    if (client->token_file && read_token(client->token_file, &token, error))
        return error ? error->code : ERROR_INVALID;
    settings.state_path = state;
    settings.key_folders = key_folders;
    settings.key_folder_count = sizeof(key_folders) / sizeof(key_folders[0]);
    settings.http.bearer_token = client->token_file ? (const char *)token.bytes : NULL;
    return session_open(&settings, session_out, error);
}

int client_session(const struct context *context, struct session **session_out, struct error *error)
{
    const struct client_options *client = context->client;
    struct error local = ERROR_INIT;
    struct error *here = error ? error : &local;
    struct session_settings settings = {
        .cache_path = client->no_cache ? NULL : client->cache,
        .cache_optional = client->cache == client->default_cache && !client->offline,
        .cache_max_bytes = client->max_size,
        .keys = client->keys.items,
        .key_count = client->keys.count,
        .mirrors = client->mirrors.items,
        .mirror_count = client->mirrors.count,
        .patience_ms = (unsigned)client->patience_ms,
        .insecure = client->insecure,
        .offline = client->offline,
        .http = {
            .connections_per_host = (unsigned)client->connections,
            .no_readers = client->no_readers,
            .rate_limit = client->limit_rate,
            .ca_file = client->ca_file,
            .client_certificate = client->client_certificate,
            .proxy = choose_proxy(client->proxy, client->http_proxy),
            .https_proxy = choose_proxy(client->proxy, client->https_proxy),
            .no_proxy = client->no_proxy,
        },
    };
    int result = open_session(client, &settings, session_out, here);

    if (result)
        report_error(context, here);
    return result;
}
