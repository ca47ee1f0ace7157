/* Statistics in the text exposition format of Prometheus, version 0.0.4: base units, one family after the other. */
#include <inttypes.h>

#include "cmd/stats_print.h"

struct family {
    const char *name, *type, *help;
};

static void print_head(FILE *to, const struct family *family)
{
    fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name, family->type);
}

/* A label's value: backslash, quote and newline are escaped. */
static void print_label(FILE *to, const char *name, const char *value)
{
    fprintf(to, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            fputc('\\', to);
        if (*value == '\n')
            fputs("\\n", to);
        else
            fputc(*value, to);
    }
    fputc('"', to);
}

static void print_labelled(FILE *to, const char *name, const char *label, const char *value, uint64_t number)
{
    fprintf(to, "%s{", name);
    print_label(to, label, value);
    fprintf(to, "} %" PRIu64 "\n", number);
}

static void print_single(FILE *to, const struct family *family, uint64_t number)
{
    print_head(to, family);
    fprintf(to, "%s %" PRIu64 "\n", family->name, number);
}

static void print_us(FILE *to, uint64_t us)
{
    fprintf(to, "%" PRIu64 ".%06" PRIu64 "\n", us / 1000000, us % 1000000);
}

static void print_blocks(FILE *to, const struct statistics *s)
{
    static const struct family family = {"circular_blocks_total", "counter",
                                         "Blocks that readers asked for, by where they were found."};

    print_head(to, &family);
    print_labelled(to, family.name, "found", "memory", s->memory_hits);
    print_labelled(to, family.name, "found", "cache", s->cache_hits);
    print_labelled(to, family.name, "found", "network", s->misses);
}

static void print_totals(FILE *to, const struct statistics *s)
{
    const struct {
        struct family family;
        uint64_t number;
    } all[] = {
        {{"circular_reads_total", "counter", "Reads that were answered."}, s->reads},
        {{"circular_read_bytes_total", "counter", "Bytes that readers were given."}, s->read_bytes},
        {{"circular_failed_blocks_total", "counter", "Blocks that could not be delivered."}, s->failed},
        {{"circular_cache_corrupt_blocks_total", "counter", "Damaged blocks found in the cache folder."},
         s->cache_corrupt},
        {{"circular_fetched_blocks_total", "counter", "Blocks that were fetched, for readers or ahead of them."},
         s->fetched_blocks},
        {{"circular_fetched_block_bytes_total", "counter", "Compressed bytes of the fetched blocks."},
         s->fetched_bytes},
        {{"circular_resident_memory_bytes", "gauge", "Resident memory of the process."}, s->resident_bytes},
        {{"circular_held_block_bytes", "gauge", "Verified blocks in memory."}, s->held_bytes},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        print_single(to, &all[i].family, all[i].number);
}

static void print_classes(FILE *to, const struct statistics *s)
{
    static const struct family requests = {"circular_http_requests_total", "counter",
                                           "HTTP requests answered, by who wants the bytes."},
                               bytes = {"circular_http_received_bytes_total", "counter",
                                        "Bytes of HTTP bodies received, by who wants them."};

    print_head(to, &requests);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        print_labelled(to, requests.name, "class", statistics_class_name(i), s->classes[i].requests);
    print_head(to, &bytes);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        print_labelled(to, bytes.name, "class", statistics_class_name(i), s->classes[i].bytes);
}

static void print_waits(FILE *to, const struct statistics *s)
{
    static const struct family family = {"circular_wait_seconds", "histogram",
                                         "How long readers waited for blocks that had to be fetched."};
    uint64_t sum = 0;

    print_head(to, &family);
    for (unsigned i = 0; i + 1 < STATISTICS_BUCKETS; i++) {
        uint64_t us = UINT64_C(1) << (STATISTICS_BUCKET_SHIFT + i);

        sum += s->waits[i];
        fprintf(to, "%s_bucket{le=\"%" PRIu64 ".%06" PRIu64 "\"} %" PRIu64 "\n", family.name, us / 1000000,
                us % 1000000, sum);
    }
    sum += s->waits[STATISTICS_BUCKETS - 1];
    fprintf(to, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", family.name, sum, family.name);
    print_us(to, s->wait_us);
    fprintf(to, "%s_count %" PRIu64 "\n", family.name, sum);
}

static void print_waiting(FILE *to, const struct statistics *s)
{
    static const struct family readers = {"circular_waiting_readers", "gauge", "Readers that wait now."},
                               longest = {"circular_longest_wait_seconds", "gauge",
                                          "How long the first of them has been waiting."};
    uint64_t count = 0;

    for (size_t i = 0; i < s->waiting_count; i++)
        count += s->waiting[i].readers;
    print_single(to, &readers, count);
    print_head(to, &longest);
    fprintf(to, "%s ", longest.name);
    print_us(to, s->waiting_count ? s->waiting[0].age_ms * 1000 : 0);
}

static void print_mirrors(FILE *to, const struct statistics *s)
{
    static const struct {
        struct family family;
        size_t offset;
    } families[] = {
        {{"circular_mirror_requests_total", "counter", "Requests to a mirror."},
         offsetof(struct statistics_mirror, requests)},
        {{"circular_mirror_received_bytes_total", "counter", "Bytes received from a mirror."},
         offsetof(struct statistics_mirror, bytes)},
        {{"circular_mirror_errors_total", "counter", "Requests to a mirror that failed."},
         offsetof(struct statistics_mirror, errors)},
        {{"circular_mirror_corrupt_total", "counter", "Answers of a mirror that were not what they should be."},
         offsetof(struct statistics_mirror, bad_blocks)},
        {{"circular_mirror_missing_total", "counter", "Files that a mirror did not have."},
         offsetof(struct statistics_mirror, missing)},
        {{"circular_mirror_hedges_total", "counter", "Requests sent to a mirror because another one was slow."},
         offsetof(struct statistics_mirror, hedges)},
        {{"circular_mirror_hedges_won_total", "counter", "Of these requests, those that were answered first."},
         offsetof(struct statistics_mirror, hedges_won)},
        {{"circular_mirror_rate_bytes_per_second", "gauge", "Rate of a mirror, as measured lately."},
         offsetof(struct statistics_mirror, rate)},
    };
    static const struct family first_byte = {"circular_mirror_first_byte_seconds", "gauge",
                                             "Time to a mirror's first byte, as measured lately."},
                               usable = {"circular_mirror_up", "gauge",
                                         "1 for a mirror in use, 0 for one that rests, is unreachable or was dropped."};

    for (size_t f = 0; f < sizeof(families) / sizeof(families[0]) && s->mirror_count; f++) {
        print_head(to, &families[f].family);
        for (size_t i = 0; i < s->mirror_count; i++)
            print_labelled(to, families[f].family.name, "mirror", s->mirrors[i].mirror,
                           *(const uint64_t *)(const void *)((const char *)&s->mirrors[i] + families[f].offset));
    }
    if (!s->mirror_count)
        return;
    print_head(to, &first_byte);
    for (size_t i = 0; i < s->mirror_count; i++) {
        fprintf(to, "%s{", first_byte.name);
        print_label(to, "mirror", s->mirrors[i].mirror);
        fputs("} ", to);
        print_us(to, s->mirrors[i].first_byte_us);
    }
    print_head(to, &usable);
    for (size_t i = 0; i < s->mirror_count; i++)
        print_labelled(to, usable.name, "mirror", s->mirrors[i].mirror,
                       !strcmp(s->mirrors[i].state, STATISTICS_IN_USE));
}

static void print_info(FILE *to, const struct statistics *s)
{
    static const struct family info = {"circular_mount_info", "gauge", "Always 1; which archive or image it is."},
                               uptime = {"circular_uptime_seconds", "gauge", "Since the mount was begun."};

    print_head(to, &info);
    print_labelled(to, info.name, "source", s->source, 1);
    print_head(to, &uptime);
    fprintf(to, "%s ", uptime.name);
    print_us(to, s->uptime_ms * 1000);
}

void stats_print_prometheus(FILE *to, const struct statistics *statistics)
{
    print_info(to, statistics);
    print_blocks(to, statistics);
    print_totals(to, statistics);
    print_classes(to, statistics);
    print_waits(to, statistics);
    print_waiting(to, statistics);
    print_mirrors(to, statistics);
}
