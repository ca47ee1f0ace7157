/* A latch: see latch.h. */
#include "base/latch.h"

void latch_init(struct latch *latch)
{
    pthread_mutex_init(&latch->lock, NULL);
    pthread_cond_init(&latch->changed, NULL);
    latch->set = false;
    latch->code = 0;
    latch->error = ERROR_INIT;
}

void latch_finish(struct latch *latch)
{
    pthread_cond_destroy(&latch->changed);
    pthread_mutex_destroy(&latch->lock);
}

void latch_set(void *user, int code, const struct error *error)
{
    struct latch *latch = user;

    pthread_mutex_lock(&latch->lock);
    latch->code = code;
    if (code)
        error_copy(&latch->error, error);
    latch->set = true;
    /* Under the lock: the waiter may release the latch as soon as it is unlocked. */
    pthread_cond_signal(&latch->changed);
    pthread_mutex_unlock(&latch->lock);
}

int latch_wait(struct latch *latch, struct error *error)
{
    pthread_mutex_lock(&latch->lock);
    while (!latch->set)
        pthread_cond_wait(&latch->changed, &latch->lock);
    pthread_mutex_unlock(&latch->lock);
    if (latch->code)
        error_copy(error, &latch->error);
    return latch->code;
}
