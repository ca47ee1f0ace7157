/* For the tests of mirrors: two liars, a client, and fetches of one file whose bytes are known. */
#ifndef MIRRORS_FIXTURE_H
#define MIRRORS_FIXTURE_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/latch.h"
#include "base/log.h"
#include "liar.h"
#include "net/http.h"
#include "store/mirrors.h"

#define CONTENT "the bytes that are wanted"

static struct liar one, two;
static struct http_client *client;
static struct workers *workers;
static atomic_int wrong_bytes_warnings, damage_warnings;

static inline void count_warnings(void *user, enum log_level level, const char *line)
{
    (void)user;
    (void)level;
    if (strstr(line, "wrong bytes"))
        wrong_bytes_warnings++;
    if (strstr(line, "is damaged there"))
        damage_warnings++;
}

static inline int set_up_with(unsigned stall_timeout_ms)
{
    struct http_settings settings = {.stall_timeout_ms = stall_timeout_ms};

    log_set_sink(count_warnings, NULL, LOG_LEVEL_WARNING);
    liar_start(&one, NULL);
    liar_start(&two, NULL);
    liar_put(&one, "blocks/ab/x", CONTENT, sizeof(CONTENT) - 1);
    liar_put(&two, "blocks/ab/x", CONTENT, sizeof(CONTENT) - 1);
    liar_put(&two, "blocks/ab/only-two", CONTENT, sizeof(CONTENT) - 1);
    return http_client_create(&settings, &client, NULL) || workers_create(2, &workers, NULL);
}

static inline int tear_down(void **state)
{
    (void)state;
    http_client_destroy(client);
    workers_destroy(workers);
    liar_finish(&one);
    liar_finish(&two);
    return 0;
}

static inline int reset(void **state)
{
    (void)state;
    if (!one.pid)
        liar_restart(&one);
    liar_reset(&one);
    liar_reset(&two);
    wrong_bytes_warnings = damage_warnings = 0;
    return 0;
}

static inline struct mirrors *make(unsigned patience_ms, const char *first, const char *second)
{
    struct mirrors *mirrors;
    struct error error;

    assert_int_equal(mirrors_create(client, workers, patience_ms, &mirrors, &error), 0);
    assert_int_equal(mirrors_add(mirrors, first, &error), 0);
    if (second)
        assert_int_equal(mirrors_add(mirrors, second, &error), 0);
    return mirrors;
}

static inline int accept_content(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    (void)user;
    if (size == sizeof(CONTENT) - 1 && !memcmp(bytes, CONTENT, size))
        return 0;
    return error_set(error, ERROR_CORRUPT, "not the bytes that were wanted");
}

static inline int fetch(struct mirrors *mirrors, const char *path, unsigned patience_ms, struct error *error)
{
    struct mirrors_request request = {.path = path, .size_limit = 1000, .accept = accept_content,
                                      .patience_ms = patience_ms};

    *error = ERROR_INIT;
    return mirrors_fetch_wait(mirrors, &request, error);
}

#define assert_says(error, text)                                                                                \
    do {                                                                                                        \
        if (!strstr((error).message, text))                                                                     \
            fail_msg("\"%s\" is not in \"%s\"", text, (error).message);                                         \
    } while (0)

#endif
