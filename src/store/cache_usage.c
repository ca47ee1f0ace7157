/* The cache's running estimate of what it holds, shared by processes through a file of 16 bytes: see cache_parts.h. */
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "store/cache_parts.h"

#define USAGE_SIZE 16
#define SCAN_SECONDS 86400
/* A larger number in the file is damage; with this bound no sum overflows. */
#define PLAUSIBLE_MAX (INT64_C(1) << 60)
/* Byte ranges of the usage file that are locked; they need not exist. */
#define COUNT_LOCK 0
#define PRUNE_LOCK 64
#define COUNT_TRIES 200

/*
 * Locks belong to the open file, so that closing another descriptor of it does not drop them. False only if another
 * process holds it; a file system without locks is taken as one that nobody shares.
 */
static bool lock_byte(int fd, off_t byte, short type, bool wait)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    while (fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock))
        if (errno != EINTR)
            return errno != EAGAIN && errno != EACCES;
    return true;
}

/* It is held for microseconds, unless its holder lost the processor, or was stopped: then do not wait for it. */
static bool lock_count(int fd)
{
    static const struct timespec pause = {.tv_nsec = 100000};

    for (int i = 0; i < COUNT_TRIES; i++) {
        if (lock_byte(fd, COUNT_LOCK, F_WRLCK, false))
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static void load(struct usage *usage)
{
    uint8_t bytes[USAGE_SIZE] = {0};

    if (file_pread_full(usage->fd, bytes, sizeof(bytes), 0, NULL) < 0)
        return;
    usage->shared = (int64_t)load_le64(bytes);
    usage->scanned = (int64_t)load_le64(bytes + 8);
    if (usage->shared < 0 || usage->shared > PLAUSIBLE_MAX)
        usage->shared = usage->scanned = 0;
}

/* Under the lock. If another process keeps the file locked, or it cannot be written, the next merge does it. */
static void merge(struct usage *usage)
{
    uint8_t bytes[USAGE_SIZE];
    int64_t scanned = usage->scanned;
    int64_t sum;

    if (usage->fd < 0 || !lock_count(usage->fd))
        return;
    load(usage);
    if (scanned > usage->scanned)
        usage->scanned = scanned;
    sum = usage->shared + usage->pending;
    store_le64(bytes, (uint64_t)sum);
    store_le64(bytes + 8, (uint64_t)usage->scanned);
    if (!file_pwrite_full(usage->fd, bytes, sizeof(bytes), 0, NULL)) {
        usage->shared = sum;
        usage->pending = 0;
    }
    lock_byte(usage->fd, COUNT_LOCK, F_UNLCK, false);
}

void usage_open(struct usage *usage, int root_fd, uint64_t max_bytes)
{
    pthread_mutex_init(&usage->lock, NULL);
    /* A few processes that each keep one batch to themselves must not be far over the maximum together. */
    usage->batch = (int64_t)(max_bytes ? min_u64(max_u64(max_bytes / 256, 4096), 4 * MIB) : 4 * MIB);
    usage->fd = openat(root_fd, "usage", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (usage->fd >= 0)
        load(usage);
}

void usage_close(struct usage *usage)
{
    if (usage->pending)
        merge(usage);
    if (usage->fd >= 0)
        close(usage->fd);
    pthread_mutex_destroy(&usage->lock);
}

int64_t usage_add(struct usage *usage, int64_t delta)
{
    int64_t sum;

    pthread_mutex_lock(&usage->lock);
    usage->pending += delta;
    if (usage->pending >= usage->batch || usage->pending <= -usage->batch)
        merge(usage);
    sum = usage->shared + usage->pending;
    pthread_mutex_unlock(&usage->lock);
    return sum;
}

bool usage_reserve(struct usage *usage, int64_t charge, uint64_t max_bytes)
{
    bool fits;

    usage_add(usage, charge);
    if (!max_bytes)
        return true;
    pthread_mutex_lock(&usage->lock);
    /* With much that could not be merged, others do not know of it, nor this process of theirs. */
    fits = usage->shared + usage->pending <= (int64_t)max_bytes &&
           (usage->fd < 0 || usage->pending < usage->batch + charge);
    if (!fits)
        usage->pending -= charge;
    pthread_mutex_unlock(&usage->lock);
    return fits;
}

int64_t usage_refresh(struct usage *usage)
{
    int64_t sum;

    pthread_mutex_lock(&usage->lock);
    merge(usage);
    if (usage->fd >= 0)
        load(usage); /* also if another process held the lock */
    sum = usage->shared + usage->pending;
    pthread_mutex_unlock(&usage->lock);
    return sum;
}

void usage_correct(struct usage *usage, int64_t before, uint64_t total)
{
    pthread_mutex_lock(&usage->lock);
    /* As a difference, so that what others added in the meantime stays. */
    usage->pending += (int64_t)min_u64(total, PLAUSIBLE_MAX) - before;
    usage->scanned = clock_wall();
    merge(usage);
    pthread_mutex_unlock(&usage->lock);
}

bool usage_is_stale(struct usage *usage)
{
    int64_t now = clock_wall();
    bool stale;

    pthread_mutex_lock(&usage->lock);
    stale = usage->shared + usage->pending < 0 || usage->scanned > now || now - usage->scanned > SCAN_SECONDS;
    pthread_mutex_unlock(&usage->lock);
    return stale;
}

bool usage_lock_prune(struct usage *usage, bool wait)
{
    return usage->fd < 0 || lock_byte(usage->fd, PRUNE_LOCK, F_WRLCK, wait);
}

void usage_unlock_prune(struct usage *usage)
{
    if (usage->fd >= 0)
        lock_byte(usage->fd, PRUNE_LOCK, F_UNLCK, false);
}
