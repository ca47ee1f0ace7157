/* circular serve: an archive, or a cache as a mirror, over HTTP. */
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/signals.h"
#include "format/name.h"
#include "serve/http_files.h"

#define THREADS_MAX 64

struct serve_options {
    const char *listen;
    uint64_t threads;
};

static const struct option serve_table[] = {
    {"listen", 'l', OPTION_TEXT, "ADDRESS", "listen on [ADDRESS]:PORT, :8080 unless told otherwise",
     offsetof(struct serve_options, listen)},
    {"threads", 0, OPTION_POSITIVE_NUMBER, "COUNT", "use so many threads, 8 unless told otherwise",
     offsetof(struct serve_options, threads)},
    {0},
};

static bool exists_below(const char *folder, const char *name)
{
    auto_free char *path = path_join(folder, name);

    return path && !access(path, F_OK);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void tell_end(const struct context *context, const struct http_server *server)
{
    uint64_t requests, bytes;
    char size[SIZE_TEXT];

    http_server_count(server, &requests, &bytes);
    report_line(context, "served %llu requests, %s", (unsigned long long)requests, size_format(bytes, size));
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct serve_options *options = context->options;
    struct http_server_settings settings = {
        .folder = arguments[0],
        .listen = options->listen ? options->listen : ":8080",
        .thread_count = (unsigned)options->threads,
    };
    struct http_server *server;
    struct error error = ERROR_INIT;
    int signals;

    (void)count;
    if (options->threads > THREADS_MAX)
        return report_usage(context, "--threads can be %d at most", THREADS_MAX);
    raise_descriptor_limit();
    signals = signals_open(&error);
    if (signals < 0 || http_server_open(&settings, &server, &error))
        return report_error(context, &error);
    if (!exists_below(arguments[0], ARCHIVE_CATALOG) && !exists_below(arguments[0], "archives"))
        log_warning("%s holds no archive yet: there is no " ARCHIVE_CATALOG, arguments[0]);
    report_line(context, "serving %s at %s/", arguments[0], http_server_url(server));
    fflush(stdout);
    signals_wait(signals, -1);
    tell_end(context, server);
    http_server_close(server);
    close(signals);
    return EXIT_OK;
}

const struct command command_serve = {
    .name = "serve",
    .usage = (const char *const[]){"DIR", NULL},
    .summary = "serve an archive, or a cache as a mirror, over HTTP",
    .options = serve_table,
    .options_size = sizeof(struct serve_options),
    .run = run,
};
