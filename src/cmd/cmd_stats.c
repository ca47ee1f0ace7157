/* circular stats: what a running mount has done and does. */
#include <errno.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/cmd.h"
#include "cmd/running.h"
#include "cmd/signals.h"
#include "cmd/stats_print.h"

#define INTERVAL_DEFAULT_MS 1000
#define INTERVAL_MIN_MS     100

#define SCREEN_ENTER "\033[?1049h\033[?25l"
#define SCREEN_LEAVE "\033[?25h\033[?1049l"

struct stats_options {
    bool prometheus, watch;
    uint64_t interval_ms;
};

static const struct option stats_table[] = {
    {"prometheus", 0, OPTION_FLAG, NULL, "print them in the text format of Prometheus",
     offsetof(struct stats_options, prometheus)},
    {"watch", 'w', OPTION_FLAG, NULL, "show them again and again until q or Ctrl-C is pressed",
     offsetof(struct stats_options, watch)},
    {"interval", 'n', OPTION_POSITIVE_DURATION, "TIME", "with --watch: how often, 1s unless told otherwise",
     offsetof(struct stats_options, interval_ms)},
    {0},
};

/* The mount is opened each time, so that it can be unmounted while it is watched. */
static int take_sample(const char *path, struct statistics *statistics_out, struct buffer *text_out,
                       struct error *error)
{
    struct running running = {.fd = -1};
    int result = running_open(path, &running, error);

    if (!result)
        result = running_statistics(&running, statistics_out, text_out, error);
    running_close(&running);
    return result;
}

static struct stats_look look_of_terminal(unsigned *rows_out)
{
    struct stats_look look = {.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8")};
    struct winsize size;

    *rows_out = 0;
    if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size)) {
        look.columns = size.ws_col;
        *rows_out = size.ws_row;
    }
    return look;
}

static int print_once(const struct context *context, const char *path)
{
    const struct stats_options *options = context->options;
    auto_free struct statistics *statistics = malloc(sizeof(*statistics));
    cleanup(buffer_finish) struct buffer text = {0};
    struct stats_look look = {.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8")};
    struct error error = ERROR_INIT;

    if (!statistics)
        return report_memory(context);
    if (take_sample(path, statistics, &text, &error))
        return report_error(context, &error);
    if (context->json)
        fwrite(text.bytes, 1, text.size, stdout);
    else if (options->prometheus)
        stats_print_prometheus(stdout, statistics);
    else
        stats_print(stdout, statistics, NULL, 0, &look, "\n");
    return EXIT_OK;
}

/* A watch, and what it changes about the terminal. */
struct watch {
    const struct context *context;
    const char *path;
    uint64_t interval_ms;
    bool screen; /* standard output is a terminal that is drawn on */
    bool keys;   /* standard input is one, and has been changed */
    struct termios saved;
    int signals;
    struct statistics *now, *before;
    uint64_t now_ms, before_ms; /* when they were taken; 0: not yet */
};

/* Only where TERM says that it understands more than text. */
static bool can_draw(void)
{
    const char *term = getenv("TERM");

    return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

static int watch_begin(struct watch *watch, struct error *error)
{
    struct termios raw;

    watch->now = calloc(1, sizeof(*watch->now));
    watch->before = calloc(1, sizeof(*watch->before));
    if (!watch->now || !watch->before)
        return error_set(error, ERROR_SYSTEM, "no memory for statistics");
    watch->signals = signals_open(error);
    if (watch->signals < 0 || (watch->screen && signals_add(SIGWINCH)))
        return watch->signals < 0 ? watch->signals : error_set(error, ERROR_SYSTEM, "cannot wait for signals");
    if (!watch->screen)
        return 0;
    watch->keys = isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &watch->saved);
    if (watch->keys) {
        raw = watch->saved;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    fputs(SCREEN_ENTER, stdout);
    return 0;
}

static void watch_end(struct watch *watch)
{
    if (watch->keys)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &watch->saved);
    if (watch->screen) {
        fputs(SCREEN_LEAVE, stdout);
        fflush(stdout);
    }
    free(watch->now);
    free(watch->before);
}

static int watch_sample(struct watch *watch, struct buffer *text, struct error *error)
{
    struct statistics *oldest = watch->before;

    watch->before = watch->now;
    watch->now = oldest;
    watch->before_ms = watch->now_ms;
    watch->now_ms = clock_ms();
    return take_sample(watch->path, watch->now, text, error);
}

/* The whole page in memory first, cut to the terminal's height; then over what is there, which does not flicker. */
static void draw(const struct watch *watch)
{
    const struct statistics *before = watch->before_ms ? watch->before : NULL;
    auto_free char *page = NULL;
    size_t size = 0;
    unsigned rows, row = 0;
    struct stats_look look = look_of_terminal(&rows);
    FILE *memory = open_memstream(&page, &size);
    const char *end;

    if (!memory)
        return;
    stats_print(memory, watch->now, before, watch->now_ms - watch->before_ms, &look, "\033[K\n");
    fputs("\033[K\n\033[2mq quits\033[0m\033[K\n", memory);
    fclose(memory);
    fputs("\033[H", stdout);
    for (const char *at = page; *at && (!rows || row < rows); at = end, row++) {
        end = strchr(at, '\n') + 1;
        /* A newline on the last row would scroll. */
        fwrite(at, 1, (size_t)(end - at) - (rows && row + 1 == rows), stdout);
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

static void show(const struct watch *watch, const struct buffer *text)
{
    if (watch->context->json) {
        fwrite(text->bytes, 1, text->size, stdout);
    } else if (watch->screen) {
        draw(watch);
        return;
    } else if (watch->before_ms) {
        stats_print_brief(stdout, watch->now, watch->before, watch->now_ms - watch->before_ms);
    }
    fflush(stdout);
}

/* Wait until it is time for the next sample. False: it was told to end. */
static bool pause_until(struct watch *watch, uint64_t until_ms)
{
    struct pollfd polled[2] = {{.fd = watch->signals, .events = POLLIN},
                               {.fd = watch->keys ? STDIN_FILENO : -1, .events = POLLIN}};
    uint64_t now_ms;

    while ((now_ms = clock_ms()) < until_ms) {
        char byte = 0;

        if (poll(polled, 2, (int)min_u64(until_ms - now_ms, 60000)) <= 0)
            continue;
        if (polled[0].revents && read(watch->signals, &byte, 1) == 1) {
            if (byte != SIGWINCH)
                return false;
            draw(watch);
        }
        if (polled[1].revents) {
            if (read(STDIN_FILENO, &byte, 1) <= 0)
                polled[1].fd = -1;
            else if (byte == 'q' || byte == 'Q' || byte == 3 || byte == 4)
                return false;
        }
    }
    return true;
}

static int watch_loop(struct watch *watch, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    uint64_t next_ms = clock_ms();
    int result;

    do {
        result = watch_sample(watch, &text, error);
        if (result)
            return result;
        show(watch, &text);
        if (ferror(stdout))
            return 0;
        next_ms = max_u64(next_ms + watch->interval_ms, watch->now_ms + INTERVAL_MIN_MS / 2);
    } while (pause_until(watch, next_ms));
    return 0;
}

static int run_watch(const struct context *context, const char *path)
{
    const struct stats_options *options = context->options;
    struct watch watch = {
        .context = context,
        .path = path,
        .interval_ms = options->interval_ms ? options->interval_ms : INTERVAL_DEFAULT_MS,
        .screen = !context->json && can_draw(),
    };
    struct error error = ERROR_INIT;
    int result;

    if (!watch.screen && !context->json && !context->quiet)
        fprintf(stderr, "circular stats: this is no terminal that can be drawn on: a line each time\n");
    result = watch_begin(&watch, &error);
    if (!result)
        result = watch_loop(&watch, &error);
    watch_end(&watch); /* first: a mistake should be told on the terminal's usual screen */
    return result ? report_error(context, &error) : EXIT_OK;
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct stats_options *options = context->options;

    (void)count;
    if (options->prometheus && (options->watch || context->json))
        return report_usage(context, "--prometheus is for one look: not with --watch or --json");
    if (options->interval_ms && !options->watch)
        return report_usage(context, "--interval is for --watch");
    if (options->interval_ms && options->interval_ms < INTERVAL_MIN_MS)
        return report_usage(context, "--interval can be 100ms at least");
    return options->watch ? run_watch(context, arguments[0]) : print_once(context, arguments[0]);
}

const struct command command_stats = {
    .name = "stats",
    .usage = (const char *const[]){"DIR", NULL},
    .summary = "tell what a running mount has done, and what its readers wait for",
    .options = stats_table,
    .options_size = sizeof(struct stats_options),
    .json = true,
    .run = run,
};
