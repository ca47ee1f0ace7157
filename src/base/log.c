/* The log: formats a line and hands it to the sink, one at a time. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

static struct {
    pthread_mutex_t lock; /* a leaf: nothing else is locked under it */
    log_sink *sink;
    void *user;
    enum log_level most_verbose;
} the_log = {.lock = PTHREAD_MUTEX_INITIALIZER};

void log_set_sink(log_sink *sink, void *user, enum log_level most_verbose)
{
    pthread_mutex_lock(&the_log.lock);
    the_log.sink = sink;
    the_log.user = user;
    the_log.most_verbose = most_verbose;
    pthread_mutex_unlock(&the_log.lock);
}

void log_write(enum log_level level, const char *format, ...)
{
    char line[2048];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);

    pthread_mutex_lock(&the_log.lock);
    if (the_log.sink && level <= the_log.most_verbose)
        the_log.sink(the_log.user, level, line);
    pthread_mutex_unlock(&the_log.lock);
}
