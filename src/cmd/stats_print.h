/* Statistics of a mount as text: for people, and for Prometheus. */
#ifndef CMD_STATS_PRINT_H
#define CMD_STATS_PRINT_H

#include <stdio.h>

#include "format/statistics.h"

/* What a terminal can show; 0: as wide as it needs. */
struct stats_look {
    unsigned columns;
    bool utf8;
};

/*
 * Lines for people. BEFORE (NULL: none) is of INTERVAL_MS earlier: rates are then shown too. Each line ends with
 * LINE_END.
 */
void stats_print(FILE *to, const struct statistics *now, const struct statistics *before, uint64_t interval_ms,
                 const struct stats_look *look, const char *line_end);

/* One line of what happened since BEFORE. */
void stats_print_brief(FILE *to, const struct statistics *now, const struct statistics *before, uint64_t interval_ms);

/* The text exposition format, version 0.0.4. */
void stats_print_prometheus(FILE *to, const struct statistics *statistics);

#endif
