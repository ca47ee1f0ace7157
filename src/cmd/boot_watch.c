/* Waiting for a machine in the foreground, and what may happen to it meanwhile: see boot_watch.h. */
#include "cmd/boot_watch.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/process.h"
#include "cmd/boot_mend.h"
#include "cmd/signals.h"
#include "vm/qemu.h"

enum { POLLED_SIGNALS, POLLED_MACHINE, POLLED_NETWORK, POLLED_DISK, POLLED_CDROM, POLLED_COUNT };
enum { PART_COUNT = 2 };

#define END_MS 10000 /* for the machine to end when it was told to; one that waits for its disk might never */

/* A machine that is watched. */
struct watched {
    struct boot_watch *watch;
    struct boot_part parts[PART_COUNT];
    int process, network; /* readable when it has ended; -1: there is none */
    bool ending;          /* it was told to end: then all may end that is its own, without a word */
    uint64_t kill_ms;     /* when it is killed if it has not ended; 0: never */
};

/* The guest's card is plugged into nothing then, and another network would not know it. */
static void lose_network(const struct context *context, struct watched *watched)
{
    struct error error = ERROR_INIT;

    boot_reap(&watched->network);
    if (watched->ending)
        return;
    error_set(&error, ERROR_UNAVAILABLE,
              "the network of the machine has ended: the guest has none until it is booted again");
    report_error(context, &error);
}

static void lose_disk(struct watched *watched, struct boot_part *part)
{
    boot_part_lose(part);
    watched->watch->disk_lost |= part->disk == watched->watch->disk;
    if (watched->ending)
        boot_part_abandon(part);
}

static void abandon_parts(struct watched *watched)
{
    for (size_t i = 0; i < PART_COUNT; i++)
        boot_part_abandon(&watched->parts[i]);
}

/* Nothing is lost with it: what it writes is thrown away. */
static void kill_machine(const struct context *context, struct watched *watched)
{
    watched->kill_ms = 0;
    report_line(context, "the machine has not ended within %u s and is killed", END_MS / 1000);
    fflush(stdout);
    kill(watched->watch->machine, SIGKILL);
}

/* Do what is due. Returns for how long nothing is, in milliseconds for poll. */
static int do_due(const struct context *context, struct watched *watched)
{
    uint64_t wait_ms = UINT64_MAX;

    if (watched->kill_ms && watched->kill_ms <= clock_ms())
        kill_machine(context, watched);
    if (watched->kill_ms)
        wait_ms = watched->kill_ms - min_u64(watched->kill_ms, clock_ms());

    for (size_t i = 0; i < PART_COUNT; i++) {
        struct boot_part *part = &watched->parts[i];

        if (part->next_ms && part->next_ms <= clock_ms())
            boot_part_due(context, watched->watch, part);
        if (part->next_ms)
            wait_ms = min_u64(wait_ms, part->next_ms - min_u64(part->next_ms, clock_ms()));
    }
    return wait_ms == UINT64_MAX ? -1 : (int)wait_ms;
}

/* Wait for whatever comes first, and act upon it. False: the machine has ended. */
static bool watch_once(const struct context *context, struct watched *watched, int signals)
{
    struct boot_part *parts = watched->parts;
    int wait_ms = do_due(context, watched), number;
    struct pollfd polled[POLLED_COUNT] = {
        [POLLED_SIGNALS] = {.fd = signals, .events = POLLIN},
        [POLLED_MACHINE] = {.fd = watched->process, .events = POLLIN},
        [POLLED_NETWORK] = {.fd = watched->network, .events = POLLIN},
    };

    for (size_t i = 0; i < PART_COUNT; i++)
        polled[POLLED_DISK + i] = (struct pollfd){
            .fd = parts[i].answer >= 0 ? parts[i].answer : parts[i].disk->server_fd, .events = POLLIN};
    number = signals_wait_among(polled, POLLED_COUNT, wait_ms);
    if (number) {
        kill(watched->watch->machine, number == SIGHUP ? SIGTERM : number);
        if (!watched->ending)
            watched->kill_ms = clock_ms() + END_MS;
        watched->ending = true;
        abandon_parts(watched);
        return true;
    }
    if (polled[POLLED_MACHINE].revents)
        return false;
    if (polled[POLLED_NETWORK].revents)
        lose_network(context, watched);
    for (size_t i = 0; i < PART_COUNT; i++)
        if (polled[POLLED_DISK + i].revents && parts[i].answer >= 0)
            boot_part_answered(context, watched->watch, &parts[i]);
        else if (polled[POLLED_DISK + i].revents)
            lose_disk(watched, &parts[i]);
    return true;
}

/* Until the machine has ended, whose process is PROCESS. */
static void watch_all(const struct context *context, struct boot_watch *watch, int signals, int process, int network)
{
    const bool iso = watch->request->plan.disk_is_iso;
    struct watched watched = {
        .watch = watch,
        .parts = {{BOOT_PART_NONE,
                   .title = iso ? "CD-ROM" : "disk",
                   .node = iso ? QEMU_NODE_DISK : NULL,
                   .disk = watch->disk,
                   .wish = watch->wish},
                  {BOOT_PART_NONE,
                   .title = "CD-ROM",
                   .node = QEMU_NODE_CDROM,
                   .disk = &watch->request->iso_disk,
                   .wish = {.text = watch->request->iso_url}}},
        .process = process,
        .network = network,
    };

    for (size_t i = 0; i < PART_COUNT; i++)
        boot_part_tell_unwatched(context, &watched.parts[i]);
    while (watch_once(context, &watched, signals))
        ;
    abandon_parts(&watched);
    if (watched.network >= 0)
        close(watched.network);
}

int boot_watch(const struct context *context, struct boot_watch *watch, int signals)
{
    const struct hypervisor *hypervisor = watch->request->hypervisor;
    auto_close int process = process_open(watch->machine);
    int status;

    if (process >= 0)
        watch_all(context, watch, signals, process, process_open(hypervisor->network ? hypervisor->network() : 0));
    while (waitpid(watch->machine, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
