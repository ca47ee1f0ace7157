/* For the tests of the HTTP client: a liar with three files, a client, and fetches that are waited for. */
#ifndef NET_HTTP_FIXTURE_H
#define NET_HTTP_FIXTURE_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/latch.h"
#include "liar.h"
#include "net/http.h"

#define SIZE 300000 /* of the file "big" */
#define NO_RULE NULL

static struct liar liar;
static struct http_client *client;
static uint8_t *content;

static inline int set_up(void **state)
{
    struct http_settings settings = {.stall_timeout_ms = 3000};

    (void)state;
    content = malloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        content[i] = (uint8_t)(i * 7 + i / 256);
    liar_start(&liar, NULL);
    liar_put(&liar, "big", content, SIZE);
    liar_put(&liar, "small", content, 10);
    liar_put(&liar, "empty", content, 0);
    return http_client_create(&settings, &client, NULL);
}

static inline int tear_down(void **state)
{
    (void)state;
    http_client_destroy(client);
    liar_finish(&liar);
    free(content);
    return 0;
}

static inline int reset(void **state)
{
    (void)state;
    liar_reset(&liar);
    return 0;
}

/* A fetch that is waited for. */
struct answer {
    struct latch latch;
    struct buffer body;
    struct error error;
    char reason[200];
    long status;
    uint64_t retry_after_ms;
    int code;
    int times;
};

static inline void on_done(void *user, const struct http_response *response)
{
    struct answer *answer = user;

    answer->code = response->code;
    answer->error = response->error;
    snprintf(answer->reason, sizeof(answer->reason), "%s", response->reason);
    answer->status = response->status;
    answer->retry_after_ms = response->retry_after_ms;
    answer->times++;
    buffer_append(&answer->body, response->bytes, response->size);
    latch_set(&answer->latch, 0, NULL);
}

static inline void begin(struct http_client *with, const struct http_request *request, const char *base,
                         const char *path, struct answer *answer)
{
    struct http_request copy = *request;
    char url[300];

    memset(answer, 0, sizeof(*answer));
    latch_init(&answer->latch);
    snprintf(url, sizeof(url), "%s%s", base, path);
    copy.url = url;
    copy.done = on_done;
    copy.user = answer;
    http_fetch(with, &copy);
}

static inline int finish(struct answer *answer)
{
    latch_wait(&answer->latch, NULL);
    assert_int_equal(answer->times, 1);
    latch_finish(&answer->latch);
    buffer_finish(&answer->body);
    return answer->code;
}

static inline int get(struct http_client *with, const char *base, const char *path, struct answer *answer)
{
    struct http_request request = {.size_limit = SIZE};

    begin(with, &request, base, path, answer);
    return finish(answer);
}

#define assert_says(error, text)                                                                                \
    do {                                                                                                        \
        if (!strstr((error).message, text))                                                                     \
            fail_msg("\"%s\" is not in \"%s\"", text, (error).message);                                         \
    } while (0)

struct tally {
    atomic_int left, good, cancelled;
    struct latch latch;
};

static inline void on_tally(void *user, const struct http_response *response)
{
    struct tally *tally = user;

    tally->good += response->code == 0;
    tally->cancelled += response->code == ERROR_CANCELLED;
    if (--tally->left == 0)
        latch_set(&tally->latch, 0, NULL);
}

static inline void fetch_many(struct http_client *with, struct tally *tally, int count, enum priority priority,
                       const void *owner)
{
    char url[100];

    snprintf(url, sizeof(url), "%s/big", liar.url);
    tally->left = count;
    latch_init(&tally->latch);
    for (int i = 0; i < count; i++)
        http_fetch(with, &(struct http_request){.url = url, .priority = priority, .size_limit = SIZE,
                                                .done = on_tally, .user = tally, .owner = owner});
}

static inline struct http_client *make(const struct http_settings *settings)
{
    struct http_client *with;

    assert_int_equal(http_client_create(settings, &with, NULL), 0);
    return with;
}

#endif
