/* Reads of a plain file by URL while its server fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/workers.h"
#include "liar.h"
#include "plain/plain.h"

#define SLICE    ((size_t)128 * KIB)
#define SIZE     (40 * SLICE)
#define STALL_MS 3000 /* longer than a busy machine keeps the server from answering */

struct fixture {
    struct liar liar;
    struct http_client *client;
    struct workers *workers;
    struct plain *plain;
    uint8_t *bytes;
};

static void say_nothing(void *user, enum log_level level, const char *line)
{
    (void)user, (void)level, (void)line;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct http_settings http = {.stall_timeout_ms = STALL_MS};
    struct plain_settings settings = {.cache_fd = -1, .patience_ms = STALL_MS};
    struct error error = ERROR_INIT;
    char url[128];

    *state = f;
    log_set_sink(say_nothing, NULL, LOG_LEVEL_WARNING);
    f->bytes = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        f->bytes[i] = (uint8_t)(i * 7 + i / 251);
    liar_start(&f->liar, NULL);
    liar_put(&f->liar, "disk.img", f->bytes, SIZE);
    snprintf(url, sizeof(url), "%s/disk.img", f->liar.url);
    if (http_client_create(&http, &f->client, &error) || workers_create(2, &f->workers, &error))
        fail_msg("%s", error.message);
    settings.http = f->client;
    settings.workers = f->workers;
    if (plain_open(url, &settings, &f->plain, &error))
        fail_msg("%s", error.message);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    plain_close(f->plain);
    http_client_destroy(f->client);
    workers_destroy(f->workers);
    liar_finish(&f->liar);
    log_set_sink(NULL, NULL, LOG_LEVEL_WARNING);
    free(f->bytes);
    free(f);
    return 0;
}

static void read_well(struct fixture *f, uint64_t offset, size_t size)
{
    struct error error = ERROR_INIT;
    uint8_t *bytes = malloc(size);

    if (plain_read(f->plain, bytes, size, offset, &error) != (ssize_t)size)
        fail_msg("%s", error.message);
    assert_memory_equal(bytes, f->bytes + offset, size);
    free(bytes);
}

/* What is read ahead may have hung for long when a reader comes, whose patience begins then. */
static void a_reader_of_what_hangs_has_its_own_patience(void **state)
{
    struct fixture *f = *state;
    long before = liar_count(&f->liar, "total");
    uint64_t until = clock_ms() + 20000;

    liar_tell(&f->liar, "/disk.img bytes=262144-", "hang", 1);
    for (uint64_t at = 0; at < SLICE; at += SLICE / 4)
        read_well(f, at, SLICE / 4);
    while (liar_count(&f->liar, "total") < before + 4 && clock_ms() < until)
        clock_sleep_ms(5);
    assert_true(liar_count(&f->liar, "total") >= before + 4); /* it has been read ahead */
    clock_sleep_ms(STALL_MS * 6 / 10);
    read_well(f, 2 * SLICE, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_reader_of_what_hangs_has_its_own_patience, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
