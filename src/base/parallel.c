/* Threads that share one piece of work. */
#include "base/parallel.h"

#include <pthread.h>
#include <unistd.h>

#define COUNT_MAX 64

struct share {
    void (*run)(void *user);
    void *user;
};

static void *share_main(void *argument)
{
    struct share *share = argument;

    share->run(share->user);
    return NULL;
}

unsigned parallel_count(unsigned count)
{
    if (count == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        count = online < 1 ? 1 : (unsigned)online;
    }
    return count > COUNT_MAX ? COUNT_MAX : count;
}

void parallel_run(unsigned count, void (*run)(void *user), void *user)
{
    pthread_t threads[COUNT_MAX];
    struct share share = {run, user};
    unsigned started = 0;

    if (count > COUNT_MAX)
        count = COUNT_MAX;
    while (started + 1 < count && !pthread_create(&threads[started], NULL, share_main, &share))
        started++;
    run(user);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}
