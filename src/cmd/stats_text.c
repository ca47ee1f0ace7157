/* Statistics for people: what a mount has done, where time went, and who waits for what. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "cmd/options.h"
#include "cmd/stats_print.h"
#include "store/mirrors.h"

#define BAR_WIDTH 24

/* Where lines go. */
struct page {
    FILE *to;
    const struct stats_look *look;
    const char *line_end;
};

/* TEXT, which is printable, cut to the terminal's width; what is not ASCII in it takes one column. */
static void print_cut(const struct page *page, const char *text)
{
    unsigned columns = 0;

    for (; *text; text++) {
        if (((unsigned char)*text & 0xc0) != 0x80 && page->look->columns && ++columns > page->look->columns)
            return;
        fputc(*text, page->to);
    }
}

__attribute__((format(printf, 2, 3))) static void line(struct page *page, const char *format, ...)
{
    auto_free char *text = NULL;
    auto_free char *escaped = NULL;
    va_list arguments;

    va_start(arguments, format);
    text = text_format_list(format, arguments);
    va_end(arguments);
    escaped = text ? report_escape(text) : NULL;
    if (escaped)
        print_cut(page, escaped);
    fputs(page->line_end, page->to);
}

#define TIME_WORDS 24

/* "640 us", "12 ms", "3.1 s", "4 min 10 s", "2 h 5 min" into TEXT. Returns TEXT. */
static const char *duration(uint64_t us, char text[TIME_WORDS])
{
    uint64_t s = us / 1000000;

    if (us < 1000)
        snprintf(text, TIME_WORDS, "%" PRIu64 " us", us);
    else if (us < 1000000)
        snprintf(text, TIME_WORDS, "%" PRIu64 " ms", us / 1000);
    else if (s < 60)
        snprintf(text, TIME_WORDS, "%" PRIu64 ".%" PRIu64 " s", s, us / 100000 % 10);
    else if (s < 3600)
        snprintf(text, TIME_WORDS, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(text, TIME_WORDS, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    return text;
}

static uint64_t sum_waits(const struct statistics *s)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < STATISTICS_BUCKETS; i++)
        sum += s->waits[i];
    return sum;
}

/* So many microseconds at most waited PERCENT of the readers; UINT64_MAX: longer than all limits. */
static uint64_t wait_percentile(const struct statistics *s, unsigned percent)
{
    uint64_t wanted = divide_up(sum_waits(s) * percent, 100), sum = 0;

    for (unsigned i = 0; i + 1 < STATISTICS_BUCKETS; i++) {
        sum += s->waits[i];
        if (sum >= wanted)
            return UINT64_C(1) << (STATISTICS_BUCKET_SHIFT + i);
    }
    return UINT64_MAX;
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    return whole ? (unsigned)((double)part * 100 / (double)whole + 0.5) : 0;
}

/* ", 1.2 MiB a second" if there was a sample before; TEXT holds 48. */
static const char *rate(uint64_t now, uint64_t before, uint64_t interval_ms, char text[48])
{
    char size[SIZE_TEXT];

    *text = '\0';
    if (interval_ms && now >= before)
        snprintf(text, 48, ", %s a second", size_format((now - before) * 1000 / interval_ms, size));
    return text;
}

static void print_reads(struct page *page, const struct statistics *s, const struct statistics *before,
                        uint64_t interval_ms)
{
    uint64_t asked = s->memory_hits + s->cache_hits + s->misses;
    char size[SIZE_TEXT], speed[48];

    line(page, "read      %s in %" PRIu64 " reads%s", size_format(s->read_bytes, size), s->reads,
         rate(s->read_bytes, before ? before->read_bytes : 0, before ? interval_ms : 0, speed));
    line(page, "blocks    %" PRIu64 " from memory (%u %%), %" PRIu64 " from the cache (%u %%), %" PRIu64
         " waited for (%u %%)", s->memory_hits, percent(s->memory_hits, asked), s->cache_hits,
         percent(s->cache_hits, asked), s->misses, percent(s->misses, asked));
    line(page, "fetched   %s in %" PRIu64 " blocks%s", size_format(s->fetched_bytes, size), s->fetched_blocks,
         rate(s->fetched_bytes, before ? before->fetched_bytes : 0, before ? interval_ms : 0, speed));
}

static void print_classes(struct page *page, const struct statistics *s)
{
    char size[SIZE_TEXT];
    const char *title = "requests";

    for (int i = 0; i < PRIORITY_COUNT; i++) {
        if (!s->classes[i].requests)
            continue;
        line(page, "%-8s  %-9s %8" PRIu64 ", %s", title, statistics_class_name(i), s->classes[i].requests,
             size_format(s->classes[i].bytes, size));
        title = "";
    }
}

static void print_faults(struct page *page, const struct statistics *s)
{
    char resident[SIZE_TEXT], held[SIZE_TEXT];

    line(page, "failed    %" PRIu64 " blocks; %" PRIu64 " damaged in the cache", s->failed, s->cache_corrupt);
    line(page, "memory    %s, of it %s of blocks", size_format(s->resident_bytes, resident),
         size_format(s->held_bytes, held));
}

static void print_bar(struct page *page, unsigned bucket, const struct statistics *s, uint64_t most)
{
    char limit[TIME_WORDS], bar[BAR_WIDTH * 3 + 1] = "";
    bool last = bucket + 1 == STATISTICS_BUCKETS;
    uint64_t length = most ? divide_up(s->waits[bucket] * BAR_WIDTH, most) : 0;

    for (uint64_t i = 0; i < length; i++)
        strcat(bar, page->look->utf8 ? "\xe2\x96\x88" : "#");
    duration(UINT64_C(1) << (STATISTICS_BUCKET_SHIFT + bucket - last), limit);
    line(page, "   %s %8s %8" PRIu64 "  %s", last ? "over " : "up to", limit, s->waits[bucket], bar);
}

static void print_waits(struct page *page, const struct statistics *s)
{
    unsigned first = 0, last = STATISTICS_BUCKETS - 1;
    uint64_t most = 0, p95 = wait_percentile(s, 95);
    char median[TIME_WORDS], high[TIME_WORDS], all[TIME_WORDS];

    if (!sum_waits(s))
        return;
    duration(wait_percentile(s, 50), median);
    duration(min_u64(p95, UINT64_C(1) << (STATISTICS_BUCKET_SHIFT + STATISTICS_BUCKETS - 2)), high);
    line(page, "waits     half of them up to %s, 95 %% %s %s, together %s", median,
         p95 == UINT64_MAX ? "over" : "up to", high, duration(s->wait_us, all));
    while (!s->waits[first])
        first++;
    while (!s->waits[last])
        last--;
    for (unsigned i = first; i <= last; i++)
        most = max_u64(most, s->waits[i]);
    for (unsigned i = first; i <= last; i++)
        print_bar(page, i, s, most);
}

static void print_mirror(struct page *page, const struct statistics_mirror *m)
{
    char size[SIZE_TEXT], speed[SIZE_TEXT], first[TIME_WORDS], slow[TIME_WORDS], most[TIME_WORDS + 16] = "";
    const char *because = strcmp(m->state, mirror_state_name(MIRROR_IN_USE)) ? ": " : ", its last fault: ";

    line(page, "mirror    %s, %s%s%s", m->mirror, m->state, *m->reason ? because : "", m->reason);
    line(page,
         "          %" PRIu64 " requests, %s; %" PRIu64 " failed, %" PRIu64 " missing, %" PRIu64 " wrong; %" PRIu64
         " hedged, %" PRIu64 " won",
         m->requests, size_format(m->bytes, size), m->errors, m->missing, m->bad_blocks, m->hedges, m->hedges_won);
    if (m->slow_us) /* not before readers have waited a few times */
        snprintf(most, sizeof(most), " 95 %% within %s,", duration(m->slow_us, slow));
    if (m->first_byte_us || m->rate)
        line(page, "          first byte after %s,%s %s a second", duration(m->first_byte_us, first), most,
             size_format(m->rate, speed));
}

/* "block ab12cd34..." for a block, else the path. */
static const char *describe_what(const char *what, char text[96])
{
    if (strncmp(what, "blocks/", 7) || strlen(what) < 22)
        snprintf(text, 96, "%s", what);
    else
        snprintf(text, 96, "block %.12s...", what + 10);
    return text;
}

static void print_waiting(struct page *page, const struct statistics *s)
{
    char age[TIME_WORDS], what[96], readers[40];

    if (!s->waiting_count)
        line(page, "waiting   nobody");
    for (size_t i = 0; i < s->waiting_count; i++) {
        const struct statistics_wait *w = &s->waiting[i];

        *readers = '\0';
        if (w->readers > 1)
            snprintf(readers, sizeof(readers), " (%" PRIu64 " readers)", w->readers);
        line(page, "%-8s  %s for %s%s%s%s%s%s", i ? "" : "waiting", duration(w->age_ms * 1000, age),
             describe_what(w->what, what), readers, *w->mirror ? " from " : "", w->mirror, *w->reason ? ": " : "",
             w->reason);
    }
}

void stats_print(FILE *to, const struct statistics *now, const struct statistics *before, uint64_t interval_ms,
                 const struct stats_look *look, const char *line_end)
{
    struct page page = {to, look, line_end};
    char age[TIME_WORDS];

    line(&page, "%s", now->source);
    line(&page, "process   %" PRIu64 ", for %s", now->process, duration(now->uptime_ms * 1000, age));
    print_waiting(&page, now);
    print_reads(&page, now, before, interval_ms);
    print_classes(&page, now);
    print_faults(&page, now);
    for (size_t i = 0; i < now->mirror_count; i++)
        print_mirror(&page, &now->mirrors[i]);
    print_waits(&page, now);
}

void stats_print_brief(FILE *to, const struct statistics *now, const struct statistics *before, uint64_t interval_ms)
{
    char clock[16] = "", read[SIZE_TEXT], fetched[SIZE_TEXT], age[TIME_WORDS], what[96];
    struct tm tm;
    time_t seconds = time(NULL);

    if (localtime_r(&seconds, &tm))
        strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    if (!interval_ms)
        interval_ms = 1;
    fprintf(to, "%s read %s/s, fetched %s/s, waited %" PRIu64 ", failed %" PRIu64, clock,
            size_format((now->read_bytes - min_u64(before->read_bytes, now->read_bytes)) * 1000 / interval_ms, read),
            size_format((now->fetched_bytes - min_u64(before->fetched_bytes, now->fetched_bytes)) * 1000 / interval_ms,
                        fetched),
            now->misses - min_u64(before->misses, now->misses), now->failed - min_u64(before->failed, now->failed));
    if (now->waiting_count) {
        fprintf(to, ", waiting %s for ", duration(now->waiting[0].age_ms * 1000, age));
        report_escaped(to, describe_what(now->waiting[0].what, what));
        fputs(*now->waiting[0].mirror ? " from " : "", to);
        report_escaped(to, now->waiting[0].mirror);
        fputs(*now->waiting[0].reason ? ": " : "", to);
        report_escaped(to, now->waiting[0].reason);
    }
    fputc('\n', to);
}
