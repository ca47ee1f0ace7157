/* Time: monotonic for waiting, wall clock for what people and expiries read. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds and microseconds of CLOCK_MONOTONIC. */
uint64_t clock_ms(void);
uint64_t clock_us(void);

void clock_sleep_ms(uint64_t ms); /* at least so long, unless a signal comes */

/* Seconds since the epoch. */
int64_t clock_wall(void);

/* RFC 3339 in UTC with seconds, "2026-11-21T08:30:00Z", exactly that form. TEXT holds TIME_TEXT. */
#define TIME_TEXT 21
char *time_format(int64_t seconds, char *text);
bool time_parse(const char *text, int64_t *seconds_out);

#endif
