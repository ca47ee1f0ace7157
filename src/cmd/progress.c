/*
 * How far a long job is: a bar on a terminal, a plain line every few seconds
 * elsewhere. Also where Ctrl-C becomes a polite request to stop.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/text.h"
#include "cmd/options.h"

#define DRAW_INTERVAL_MS 200
#define LINE_INTERVAL_MS 3000
#define RATE_WINDOW_MS   4000
#define BAR_WIDTH_MAX    30

struct progress_bar {
    struct progress progress; /* first: progress_end gets this pointer */
    const struct context *context;
    char *label;
    bool terminal;
    bool drawn;          /* the bar is on the terminal's line */
    uint64_t started_ms; /* of the first update */
    uint64_t first_bytes;
    uint64_t printed_ms;
    uint64_t sampled_ms; /* when SAMPLED_BYTES were done */
    uint64_t sampled_bytes;
    double rate; /* bytes a second, smoothed; 0: not known yet */
    struct sigaction old_interrupt, old_terminate;
};

/* The one bar that may be on the terminal. The lock is a leaf; who prints holds it. */
static struct {
    pthread_mutex_t lock;
    struct progress_bar *bar;
} shown = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Never forgotten: what comes after an interrupted job is to stop too. */
static atomic_int interrupted; /* lock-free, as a signal handler needs it */

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void hide(struct progress_bar *bar)
{
    if (bar->drawn)
        fputs("\r\033[K", stderr);
    bar->drawn = false;
}

void progress_pause(void)
{
    pthread_mutex_lock(&shown.lock);
    if (shown.bar)
        hide(shown.bar);
}

void progress_resume(void)
{
    pthread_mutex_unlock(&shown.lock);
}

/* The rate over the last seconds, so that it neither jumps nor remembers a long stall for ever. */
static void measure(struct progress_bar *bar, uint64_t now, uint64_t done)
{
    uint64_t elapsed = now - bar->sampled_ms;
    double latest, weight;

    if (elapsed < DRAW_INTERVAL_MS || done < bar->sampled_bytes)
        return;
    latest = (double)(done - bar->sampled_bytes) * 1000 / (double)elapsed;
    weight = elapsed >= RATE_WINDOW_MS ? 1 : (double)elapsed / RATE_WINDOW_MS;
    if (now - bar->started_ms < RATE_WINDOW_MS)
        bar->rate = (double)(done - bar->first_bytes) * 1000 / (double)(now - bar->started_ms);
    else
        bar->rate += (latest - bar->rate) * weight;
    bar->sampled_ms = now;
    bar->sampled_bytes = done;
}

static void time_left(const struct progress_bar *bar, uint64_t done, uint64_t total, char *text, size_t size)
{
    double seconds = bar->rate >= 1 && total > done ? (double)(total - done) / bar->rate : -1;
    unsigned long whole = (unsigned long)seconds;

    if (seconds < 0 || seconds > 359999)
        text[0] = '\0';
    else if (whole >= 3600)
        snprintf(text, size, "  %lu:%02lu:%02lu left", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(text, size, "  %lu:%02lu left", whole / 60, whole % 60);
}

/* "42 %  1.2 GiB of 3.0 GiB  120 MiB/s  0:12 left" */
static void describe(const struct progress_bar *bar, uint64_t done, uint64_t total, char *text, size_t size)
{
    char done_text[SIZE_TEXT], total_text[SIZE_TEXT], rate_text[SIZE_TEXT], left[32];

    size_format(done, done_text);
    size_format((uint64_t)bar->rate, rate_text);
    time_left(bar, done, total, left, sizeof(left));
    if (total)
        snprintf(text, size, "%3u %%  %s of %s  %s/s%s", (unsigned)((double)done / (double)total * 100), done_text,
                 size_format(total, total_text), rate_text, left);
    else
        snprintf(text, size, "%s  %s/s", done_text, rate_text);
}

static int terminal_width(void)
{
    struct winsize size;

    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80;
}

static void draw(struct progress_bar *bar, uint64_t done, uint64_t total)
{
    int width = terminal_width() - 1, bar_width, filled;
    char numbers[128], line[512] = "";

    describe(bar, done, total, numbers, sizeof(numbers));
    bar_width = width - (int)strlen(bar->label) - (int)strlen(numbers) - 5;
    if (bar_width > BAR_WIDTH_MAX)
        bar_width = BAR_WIDTH_MAX;
    if (total && bar_width >= 5) {
        filled = (int)((double)done / (double)total * bar_width);
        snprintf(line, sizeof(line), "%s [%.*s%*s] %s", bar->label, filled,
                 "##############################", bar_width - filled, "", numbers);
    } else {
        snprintf(line, sizeof(line), "%s  %s", bar->label, numbers);
    }
    fprintf(stderr, "\r%.*s\033[K", width, line);
    bar->drawn = true;
}

static void print_plain(const struct progress_bar *bar, uint64_t done, uint64_t total)
{
    char numbers[128];

    describe(bar, done, total, numbers, sizeof(numbers));
    fprintf(stderr, "circular: %s: %s\n", bar->label, numbers + strspn(numbers, " "));
}

static bool update(void *user, uint64_t done, uint64_t total)
{
    struct progress_bar *bar = user;
    uint64_t now = clock_ms();

    if (done > total && total)
        done = total;
    pthread_mutex_lock(&shown.lock);
    if (!bar->started_ms) {
        bar->started_ms = bar->sampled_ms = bar->printed_ms = now;
        bar->first_bytes = bar->sampled_bytes = done;
    }
    measure(bar, now, done);
    if (!bar->context->quiet && now - bar->printed_ms >= (bar->terminal ? DRAW_INTERVAL_MS : LINE_INTERVAL_MS)) {
        bar->printed_ms = now;
        if (bar->terminal)
            draw(bar, done, total);
        else
            print_plain(bar, done, total);
    }
    pthread_mutex_unlock(&shown.lock);
    return !interrupted;
}

static void catch_signal(int signal_number, struct sigaction *old)
{
    /* A second signal finds the default action again and ends the program. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

    sigaction(signal_number, NULL, old);
    if (old->sa_handler != SIG_IGN)
        sigaction(signal_number, &action, NULL);
}

struct progress *progress_begin(const struct context *context, const char *label)
{
    struct progress_bar *bar = calloc(1, sizeof(*bar));
    bool insecure = context->client && context->client->insecure;

    if (!bar || !(bar->label = text_format("%s%s", label, insecure ? " (insecure)" : ""))) {
        free(bar);
        return NULL;
    }
    bar->progress = (struct progress){.update = update, .user = bar};
    bar->context = context;
    bar->terminal = isatty(STDERR_FILENO);
    catch_signal(SIGINT, &bar->old_interrupt);
    catch_signal(SIGTERM, &bar->old_terminate);
    pthread_mutex_lock(&shown.lock);
    shown.bar = bar;
    pthread_mutex_unlock(&shown.lock);
    return &bar->progress;
}

void progress_end(struct progress *progress)
{
    struct progress_bar *bar;

    if (!progress)
        return;
    bar = progress->user;
    pthread_mutex_lock(&shown.lock);
    hide(bar);
    shown.bar = NULL;
    pthread_mutex_unlock(&shown.lock);
    sigaction(SIGINT, &bar->old_interrupt, NULL);
    sigaction(SIGTERM, &bar->old_terminate, NULL);
    free(bar->label);
    free(bar);
}
