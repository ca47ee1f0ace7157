/*
 * A disk that machines share: see shared_disk.h. Two processes take part: the
 * command, and a child of it that mounts, or finds that it is mounted, and then
 * lives on as the server or ends.
 */
#include "cmd/shared_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "base/log.h"
#include "cmd/daemon.h"
#include "cmd/inquiry.h"
#include "cmd/machine_options.h"
#include "cmd/options.h"
#include "cmd/private.h"
#include "cmd/signals.h"
#include "cmd/volume.h"
#include "image/archive.h"
#include "serve/mountpoint.h"

#define LOOK_MS   1000 /* how often the server looks for users */
#define SERVED_MS 10000 /* that its server is given to say anything, when a machine shall have the disk */

#define DISKS "disks"
#define USERS SHARED_DISK_USERS
#define START "start"
#define MOUNT "mnt"

/* What a disk is told apart by. Two archives may well have the same image; each has its own sources. */
static void key_of(const struct shared_disk *disk, char key[33])
{
    struct hash *hash = hash_create();
    struct digest digest = {0};
    char text[DIGEST_TEXT];
    const char *parts[] = {disk->archive, disk->name, disk->version};

    if (hash) {
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
            hash_update(hash, parts[i], strlen(parts[i]) + 1);
        hash_update(hash, &disk->image_id, sizeof(disk->image_id));
        hash_update(hash, &disk->variant, sizeof(disk->variant));
        hash_final(hash, &digest);
        hash_destroy(hash);
    }
    snprintf(key, 33, "%.32s", digest_format(&digest, text));
}

static int find_variant(const struct context *context, const struct shared_disk_wish *wish, struct digest *variant_out,
                        struct error *error)
{
    *variant_out = wish->again ? wish->again->variant : (struct digest){0};
    if (wish->again)
        return 0;
    if (wish->alone && getrandom(variant_out, sizeof(*variant_out), 0) != sizeof(*variant_out))
        return error_set_errno(error, errno, "cannot choose a name for a mount");
    return wish->as_told && !wish->alone ? client_difference(context->client, variant_out, error) : 0;
}

/* Make the folder and fill in paths. */
static int place(struct shared_disk *disk, struct error *error)
{
    char parent[PATH_MAX], key[33];
    int result = private_runtime_folder(parent, error);

    if (result)
        return result;
    key_of(disk, key);
    if (snprintf(disk->folder, PATH_MAX, "%s/" DISKS "/%s", parent, key) >= PATH_MAX ||
        snprintf(disk->path, PATH_MAX, "%s/" MOUNT "/%s", disk->folder, disk->name) >= PATH_MAX)
        return error_set(error, ERROR_SYSTEM, "the path of the folder %s is too long", parent);
    return 0;
}

/* Lock FILE of the disk's folder, which may be taken away meanwhile. Returns the descriptor or an error code. */
static int lock(const struct shared_disk *disk, const char *file, bool shared, struct error *error)
{
    auto_free char *path = path_join(disk->folder, file);

    for (;;) {
        auto_close int fd = -1;
        struct stat locked, there;
        int result = file_make_folders(AT_FDCWD, disk->folder, 0700, error);

        if (result)
            return result;
        fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            return error_set_errno(error, errno, "cannot write in %s", disk->folder);
        result = file_lock(fd, shared, false, error);
        if (result)
            return result;
        if (!fstat(fd, &locked) && !stat(path, &there) && locked.st_ino == there.st_ino)
            return steal_fd(&fd);
    }
}

/* Is something mounted for the disk whose folder this is, and does its server live? 0, or as inquire() says. */
static int check_served(const char *folder)
{
    auto_free char *mount_point = path_join(folder, MOUNT);
    struct mount_entry mounted = {0};
    int result = ERROR_NOT_FOUND;

    if (mount_point && !mount_find(mount_point, &mounted, NULL))
        result = inquire(mount_point, NULL, SERVED_MS, NULL, 0);
    mount_entry_finish(&mounted);
    return result;
}

bool shared_disk_is_alive(const struct shared_disk *disk)
{
    return check_served(disk->folder) != ERROR_NOT_FOUND;
}

int shared_disk_fetched(const struct shared_disk *disk, uint64_t *bytes_out, uint64_t *requests_out)
{
    char text[64] = "";
    int result = ERROR_NOT_FOUND;

    if (*disk->folder)
        result = inquire(disk->path, FUSE_ATTRIBUTE_PREFIX VOLUME_FETCHED, INQUIRY_MS, text, sizeof(text));
    return result || sscanf(text, "%" SCNu64 " %" SCNu64, bytes_out, requests_out) == 2 ? result : ERROR_NOT_FOUND;
}

/* In the server: until nobody uses the disk, somebody unmounts it, or a signal comes. Returns with USERS locked. */
static void serve(const struct volume *volume, int users, int signals)
{
    struct pollfd polled[] = {{.fd = signals, .events = POLLIN},
                              {.fd = fuse_server_ended(volume->server), .events = POLLIN}};

    for (;;) {
        int count = poll(polled, 2, LOOK_MS);

        if (count > 0)
            return;
        if (!file_lock(users, false, true, NULL))
            return;
    }
}

/* Nobody uses the mount in FOLDER, whose USERS is locked by us alone, if it can be: it is taken away. */
static void remove_unused(const char *folder, int users)
{
    static const char *const names[] = {MOUNT, START, USERS};
    auto_free char *mount_point = path_join(folder, MOUNT);
    auto_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct mount_entry mounted = {0};
    struct stat locked, there;

    if (fd < 0 || !mount_point || file_lock(users, false, true, NULL) || fstat(users, &locked) ||
        fstatat(fd, USERS, &there, AT_SYMLINK_NOFOLLOW) || locked.st_ino != there.st_ino)
        return;
    if (!mount_find(mount_point, &mounted, NULL)) /* its server was killed */
        mountpoint_release(mount_point, true, NULL);
    mount_entry_finish(&mounted);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlinkat(fd, names[i], i ? 0 : AT_REMOVEDIR);
    rmdir(folder);
}

/* Remove what servers that were killed have left. */
static void clean(void)
{
    char parent[PATH_MAX];
    auto_free char *disks = private_runtime_folder(parent, NULL) ? NULL : path_join(parent, DISKS);
    DIR *stream = disks ? opendir(disks) : NULL;
    const struct dirent *entry;

    while (stream && (entry = readdir(stream))) {
        auto_free char *folder = *entry->d_name == '.' ? NULL : path_join(disks, entry->d_name);
        auto_free char *path = folder ? path_join(folder, USERS) : NULL;
        auto_close int users = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;

        /* A server that lives holds it. */
        if (users >= 0 && !file_lock(users, false, true, NULL) && check_served(folder) == ERROR_NOT_FOUND)
            remove_unused(folder, users);
    }
    if (stream)
        closedir(stream);
}

/* Tell the command where the disk is, and wait until it uses it, or has ended. Nonzero: it has ended before. */
static int tell(int channel, const struct shared_disk *disk)
{
    char byte;

    if (send(channel, disk, sizeof(*disk), MSG_NOSIGNAL) != sizeof(*disk))
        return -1;
    while (recv(channel, &byte, 1, 0) < 0 && errno == EINTR)
        ;
    return 0;
}

static int mount_disk(struct shared_disk *disk, struct volume *volume, struct error *error)
{
    auto_free char *folder = path_join(disk->folder, MOUNT), *absolute = NULL;
    int result;

    if (!folder)
        return error_set(error, ERROR_SYSTEM, "no memory to mount a disk");
    result = mountpoint_check_host(error);
    /* It may be that of a server that was killed. */
    if (!result && mkdir(folder, 0700) && errno != EEXIST)
        mountpoint_release(folder, true, NULL);
    if (!result)
        result = mountpoint_prepare(folder, &absolute, error);
    return result ? result : volume_mount(volume, absolute, false, error);
}

/* The command may be started in another folder the next time. */
static int keep_archive(const char *archive, struct shared_disk *disk, struct error *error)
{
    auto_free char *absolute = location_is_http(archive) || strstr(archive, "://") ? strdup(archive)
                                                                                   : realpath(archive, NULL);

    if (!absolute && archive[0] == '/') /* it is away: what is in the cache can be served until it is back */
        absolute = strdup(archive);
    if (!absolute)
        return error_set_errno(error, errno, "cannot use the archive %s", archive);
    if (strlen(absolute) >= sizeof(disk->archive))
        return error_set(error, ERROR_INVALID, "the archive's address is too long");
    strcpy(disk->archive, absolute);
    return 0;
}

/* The archive of TEXT is out of reach: a machine that cannot even begin from the cache would only wait. */
static int check_cached(const struct context *context, const char *text)
{
    struct volume volume = {.prefetch = PREFETCH_NONE};
    struct circular_error reason = {0};
    struct error error = ERROR_INIT;
    char sector[512];
    int status = volume_open(context, text, false, &volume);

    if (status == EXIT_OK && circular_pread(volume.disk, sector, sizeof(sector), 0, &reason) < 0) {
        error_set(&error, ERROR_UNAVAILABLE, "the archive cannot be reached, and the disk's beginning is not in the "
                  "cache: %s", reason.message);
        status = report_error(context, &error);
    }
    volume_close(&volume);
    return status;
}

/* TEXT is no image, for the reason in ERROR. Is it an archive? */
static bool is_archive(const struct context *context, const char *text, const struct error *error)
{
    const char *slash = strrchr(text, '/');
    struct error other = ERROR_INIT;
    struct opened opened = {0};
    bool is = (error->code == ERROR_INVALID || error->code == ERROR_NOT_FOUND) && !strchr(slash ? slash : text, '@') &&
              open_try(context, text, false, &opened, &other) == EXIT_OK;

    open_finish(&opened);
    return is;
}

/* The version that WISH names, with no thread and no connection left afterwards. */
static int resolve(const struct context *context, const struct shared_disk_wish *wish, struct shared_disk *disk)
{
    struct opened opened = {0};
    const struct location *location = &opened.location;
    const struct catalog_version *version;
    struct manifest manifest;
    struct error error = ERROR_INIT;
    bool offline = context->client->offline;
    int status = open_try(context, wish->text, true, &opened, &error);

    if (status == EXIT_OK && !offline && archive_is_offline(opened.archive)) { /* it was waited for long enough */
        open_finish(&opened);
        context->client->offline = true;
        status = resolve(context, wish, disk);
        context->client->offline = false; /* it may come back while the machine runs */
        return status;
    }
    if (status == EXIT_OK)
        archive_find(opened.archive, location->name, location->version, &version, &error);
    if (wish->or_archive && is_archive(context, wish->text, &error)) {
        open_finish(&opened);
        return SHARED_DISK_ARCHIVE;
    }
    if (status == EXIT_OK && !error.code && !archive_manifest(opened.archive, version, &manifest, &error))
        keep_archive(location->archive, disk, &error);
    if (error.code)
        status = report_error(context, &error);
    if (status == EXIT_OK) {
        snprintf(disk->name, sizeof(disk->name), "%s", version->name);
        snprintf(disk->version, sizeof(disk->version), "%s", version->version);
        snprintf(disk->architecture, sizeof(disk->architecture), "%s", manifest.architecture);
        disk->image_id = manifest.disks[0].image;
        disk->size_bytes = manifest.disks[0].disk_size;
        disk->stored_bytes = version->stored_size;
    }
    open_finish(&opened);
    return status == EXIT_OK && offline ? check_cached(context, wish->text) : status;
}

/* The same for a plain file, which stays open: what it is, only its server says. */
static int resolve_file(const struct context *context, const struct shared_disk_wish *wish, struct shared_disk *disk,
                        struct volume *volume)
{
    const char *path;
    int status;

    context->client->patience_ms = MACHINE_PATIENCE_MS;
    volume_limit_memory();
    status = volume_open(context, wish->text, false, volume);
    if (status != EXIT_OK)
        return status;
    path = plain_path(volume->plain);
    snprintf(disk->path, sizeof(disk->path), "%s", path ? path : "");
    snprintf(disk->archive, sizeof(disk->archive), "%s", plain_shown(volume->plain));
    snprintf(disk->name, sizeof(disk->name), "%s", plain_name(volume->plain));
    plain_identify(volume->plain, &disk->image_id);
    disk->size_bytes = disk->stored_bytes = plain_size(volume->plain);
    disk->plain = true;
    disk->iso = volume->iso;
    return EXIT_OK;
}

static int check_expected(const struct context *context, const struct shared_disk *disk,
                          const struct shared_disk_wish *wish)
{
    const struct digest *expected = wish->again ? &wish->again->image_id : disk->plain ? NULL : wish->expected;
    struct error error = ERROR_INIT;

    if (!expected || digest_equal(expected, &disk->image_id))
        return EXIT_OK;
    if (disk->plain)
        error_set(&error, ERROR_CHANGED, "%s is not the file any more that the machine was started with",
                  disk->archive);
    else
        error_set(&error, ERROR_CORRUPT, "%s@%s of %s is not the image that the machine was made from", disk->name,
                  disk->version, disk->archive);
    return report_error(context, &error);
}

static int open_published(const struct context *context, const struct shared_disk *disk, struct volume *volume)
{
    auto_free char *text = location_format(disk->archive, disk->name, disk->version);

    if (!text)
        return report_memory(context);
    context->client->patience_ms = MACHINE_PATIENCE_MS;
    volume_limit_memory();
    return volume_open(context, text, false, volume);
}

/* Under the lock START: mount the disk and tell the command. */
static int become_server(const struct context *context, struct shared_disk *disk, struct volume *volume, int channel,
                         int start, int users)
{
    struct error error = ERROR_INIT;
    int status = disk->plain ? EXIT_OK : open_published(context, disk, volume), signals = -1;

    /* Not before: opening may take as long as a machine has patience, and ends with whoever asked for it. */
    if (status == EXIT_OK && (signals = signals_open(&error)) < 0)
        status = report_error(context, &error);
    if (status == EXIT_OK && mount_disk(disk, volume, &error))
        status = report_error(context, &error);
    close(start);
    if (status != EXIT_OK)
        return status;
    disk->fresh = true;
    daemon_leave(context);
    prctl(PR_SET_PDEATHSIG, 0);
    if (tell(channel, disk))
        return status;
    close(channel);
    serve(volume, users, signals);
    return status;
}

/* In the child: find out what is wanted; then find it mounted, or mount it. */
static int find_or_mount(const struct context *context, const struct shared_disk_wish *wish, struct volume *volume,
                         struct shared_disk *disk, int *users, int channel)
{
    struct error error = ERROR_INIT;
    int start, status, served;

    if (find_variant(context, wish, &disk->variant, &error))
        return report_error(context, &error);
    status = volume_is_file(wish->text, volume) ? resolve_file(context, wish, disk, volume)
                                                : resolve(context, wish, disk);
    if (status == EXIT_OK)
        status = check_expected(context, disk, wish);
    if (status != EXIT_OK)
        return status;
    if (*disk->path) { /* a file that is here */
        tell(channel, disk);
        return EXIT_OK;
    }
    if (!wish->again) /* it looks at all mounts, of which one may hang */
        clean();
    /* In this order: a server that ends holds USERS until its mount has gone. */
    if (place(disk, &error) || (*users = lock(disk, USERS, true, &error)) < 0 ||
        (start = lock(disk, START, false, &error)) < 0)
        return report_error(context, &error);
    served = check_served(disk->folder);
    if (served == ERROR_NOT_FOUND)
        return become_server(context, disk, volume, channel, start, *users);
    close(start);
    if (served) {
        error_set(&error, ERROR_SYSTEM,
                  "%s, the mount of this disk that machines share, gives no answer: the process that serves it is "
                  "stopped or hangs",
                  disk->path);
        return report_error(context, &error);
    }
    tell(channel, disk);
    return EXIT_OK;
}

/* In the child. Returns its exit status. */
static int find_or_serve(const struct context *context, const struct shared_disk_wish *wish, int channel)
{
    struct volume volume = {.sha256 = wish->sha256, .file = wish->file};
    struct shared_disk disk = SHARED_DISK_INIT;
    struct error error = ERROR_INIT;
    int users = -1, status;

    if (wish->published && volume_is_file(wish->text, &volume)) {
        error_set(&error, ERROR_UNSUPPORTED,
                  "a machine that keeps its state is made from a published disk, and %s is a "
                  "plain file; '--iso' gives it one as a CD-ROM",
                  wish->text);
        return report_error(context, &error);
    }
    status = find_or_mount(context, wish, &volume, &disk, &users, channel);
    volume_close(&volume);
    if (disk.fresh)
        remove_unused(disk.folder, users);
    return status;
}

/* CHILD has ended without an answer. Returns its exit status; what it has not said itself is printed. */
static int wait_for_status(const struct context *context, pid_t child)
{
    struct error error = ERROR_INIT;
    int status = 0;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            break;
    if (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_OK)
        return WEXITSTATUS(status);
    if (WIFSIGNALED(status))
        error_set(&error, ERROR_SYSTEM, "the process that mounts the disk was ended by a signal: %s",
                  strsignal(WTERMSIG(status)));
    else
        error_set(&error, ERROR_SYSTEM, "the process that mounts the disk has ended without a word");
    return report_error(context, &error);
}

/* Watch the process that serves DISK. Only what it says itself while it serves is its number, and not another's. */
static void watch_server(struct shared_disk *disk)
{
    char text[24] = "";

    disk->server_fd = -1;
    if (!inquire(disk->path, FUSE_ATTRIBUTE_PREFIX VOLUME_PROCESS, INQUIRY_MS, text, sizeof(text)) && *text)
        disk->server_fd = process_open((pid_t)strtol(text, NULL, 10));
    if (disk->server_fd >= 0 && !shared_disk_is_alive(disk)) {
        close(disk->server_fd);
        disk->server_fd = -1;
    }
}

/* The child's answer; with the lock in hand the child may go its way. */
static int take_answer(const struct context *context, int channel, pid_t child, struct shared_disk *disk_out)
{
    struct error error = ERROR_INIT;
    ssize_t got;
    int users;

    while ((got = recv(channel, disk_out, sizeof(*disk_out), 0)) < 0 && errno == EINTR)
        ;
    disk_out->use_fd = disk_out->server_fd = -1;
    if (got != sizeof(*disk_out))
        return wait_for_status(context, child);
    if (*disk_out->folder) {
        users = lock(disk_out, USERS, true, &error);
        if (users < 0)
            return report_error(context, &error);
        disk_out->use_fd = users;
        watch_server(disk_out);
    }
    if (send(channel, "", 1, MSG_NOSIGNAL) == 1)
        return EXIT_OK;
    error_set(&error, ERROR_SYSTEM, "the process that mounts the disk has ended at once");
    return report_error(context, &error);
}

int shared_disk_open(const struct context *context, const struct shared_disk_wish *wish,
                     struct shared_disk *disk_out)
{
    struct error error = ERROR_INIT;
    int ends[2], status;
    pid_t child;

    *disk_out = (struct shared_disk)SHARED_DISK_INIT;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        error_set_errno(&error, errno, "cannot make a socket");
        return report_error(context, &error);
    }
    fflush(NULL);
    child = signals_fork();
    if (child == 0) {
        inquiry_keep_only(ends[1]);
        setsid();
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* until it serves */
        status = find_or_serve(context, wish, ends[1]);
        fflush(NULL);
        _exit(status);
    }
    close(ends[1]);
    if (child < 0) {
        error_set_errno(&error, errno, "cannot start a background process");
        status = report_error(context, &error);
    } else {
        status = take_answer(context, ends[0], child, disk_out);
    }
    close(ends[0]);
    return status;
}

int shared_disk_open_again(const struct context *context, const struct shared_disk *disk,
                           const struct shared_disk_wish *wish, struct shared_disk *disk_out)
{
    auto_free char *text = disk->plain ? NULL : location_format(disk->archive, disk->name, disk->version);
    struct shared_disk_wish same = {
        .text = disk->plain ? wish->text : text, .sha256 = wish->sha256, .file = disk->plain, .again = disk};

    return same.text ? shared_disk_open(context, &same, disk_out) : report_memory(context);
}

void shared_disk_close(struct shared_disk *disk)
{
    if (disk->use_fd >= 0)
        close(disk->use_fd);
    if (disk->server_fd >= 0)
        close(disk->server_fd);
    disk->use_fd = disk->server_fd = -1;
}
