/*
 * The log: library code reports what a person may want to know; src/cmd decides
 * where it goes. Nothing is printed until a sink is set.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* LINE has no newline. May be called from any thread, one call at a time. */
typedef void log_sink(void *user, enum log_level level, const char *line);

/* Process-wide; set once before threads start. NULL drops everything. */
void log_set_sink(log_sink *sink, void *user, enum log_level most_verbose);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Warn only the first time FLAG (an atomic_flag) is met. */
#define log_warning_once(flag, ...)              \
    do {                                         \
        if (!atomic_flag_test_and_set(flag))     \
            log_warning(__VA_ARGS__);            \
    } while (0)

#endif
