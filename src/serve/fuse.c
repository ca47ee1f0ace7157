/*
 * The FUSE server: low-level requests in, replies from whatever thread the
 * library finishes a read on. Threads that serve the kernel never wait for the
 * network: reads are asynchronous, opening and seeking are errands.
 */
#include "serve/fuse.h"

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "serve/errand.h"
#include "serve/mountpoint.h"
#include "serve/reads.h"
#include "serve/view.h"

#define FOREVER     86400.0 /* seconds; nothing under a mount ever changes */
#define THREADS_MIN 4
#define THREADS_MAX 8

struct server_thread {
    struct fuse_server *server;
    pthread_t thread;
    struct fuse_buf buffer;
    bool started;
};

struct fuse_server {
    struct fuse_session *session;
    struct view *view;
    struct errands *errands;
    uid_t uid;
    gid_t gid;
    int ended_fd;
    bool mounted;
    struct server_thread threads[THREADS_MAX];
    struct reads *reads;
    pthread_rwlock_t gate; /* held shared for each answer from a thread that is not one of THREADS */
    bool closed;           /* under GATE: the session is being unmounted, nothing may be sent */
};

static int errno_of(int code)
{
    switch (code) {
    case ERROR_NOT_FOUND:
        return ENOENT;
    case ERROR_INVALID:
        return EINVAL;
    case ERROR_CANCELLED:
        return EINTR;
    default:
        return EIO;
    }
}

static struct fuse_server *server_of(fuse_req_t request)
{
    return fuse_req_userdata(request);
}

/*
 * Before and after an answer. False: the server is closing and the request is gone; its caller gets an error from
 * the kernel.
 */
static bool gate_enter(fuse_req_t request)
{
    struct fuse_server *server = server_of(request);

    pthread_rwlock_rdlock(&server->gate);
    if (!server->closed)
        return true;
    fuse_reply_none(request);
    pthread_rwlock_unlock(&server->gate);
    return false;
}

static void gate_leave(struct fuse_server *server)
{
    pthread_rwlock_unlock(&server->gate);
}

/* --- folders and attributes --- */

static void fill_attributes(const struct fuse_server *server, const struct view_node *node, struct stat *stat)
{
    *stat = (struct stat){
        .st_ino = node->number,
        .st_mode = node->folder ? S_IFDIR | 0555 : S_IFREG | 0444,
        .st_nlink = node->folder ? 2 : 1,
        .st_uid = server->uid,
        .st_gid = server->gid,
        .st_size = (off_t)node->size,
        .st_blocks = (blkcnt_t)divide_up(node->data_size, 512),
        .st_blksize = PIECE_SIZE,
        .st_atim.tv_sec = node->time,
        .st_mtim.tv_sec = node->time,
        .st_ctim.tv_sec = node->time,
    };
}

static void on_init(void *user, struct fuse_conn_info *connection)
{
    (void)user;
    /* With ASYNC_DIO the kernel waits for a direct read where not even SIGKILL can end it. */
    connection->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                    FUSE_CAP_SPLICE_MOVE | FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_DIO);
    connection->want |= connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS);
    connection->max_read = READ_SIZE_MAX;
    connection->max_readahead = READ_SIZE_MAX;
    connection->max_background = 1024;
    connection->congestion_threshold = 1024;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *node = view_find(server->view, parent, name);
    struct fuse_entry_param entry = {.attr_timeout = FOREVER, .entry_timeout = FOREVER};

    if (node) {
        entry.ino = node->number;
        fill_attributes(server, node, &entry.attr);
    }
    /* Number 0: does not exist, and the kernel may remember that. Nodes live as long as the view, so that
     * forgetting (libfuse's default) has nothing to do. */
    fuse_reply_entry(request, &entry);
}

static void on_getattr(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *node = view_node(server->view, number);
    struct stat stat;

    (void)file;
    if (!node) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    fill_attributes(server, node, &stat);
    fuse_reply_attr(request, &stat, FOREVER);
}

static void on_opendir(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file)
{
    const struct view_node *node = view_node(server_of(request)->view, number);

    if (!node || !node->folder) {
        fuse_reply_err(request, ENOTDIR);
        return;
    }
    file->cache_readdir = 1;
    file->keep_cache = 1;
    fuse_reply_open(request, file);
}

/* The entry at POSITION: 0 and 1 are "." and "..", then the children. NULL: the end. */
static const struct view_node *entry_at(const struct view *view, const struct view_node *folder,
                                        uint64_t position, const char **name_out)
{
    const struct view_node *node;

    if (position < 2) {
        *name_out = position ? ".." : ".";
        return position ? view_node(view, folder->parent) : folder;
    }
    if (position - 2 >= folder->child_count)
        return NULL;
    node = view_node(view, folder->first_child + position - 2);
    *name_out = node->name;
    return node;
}

static void on_readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                       struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *folder = view_node(server->view, number), *node;
    auto_free char *bytes = malloc(size);
    size_t used = 0;
    const char *name;

    (void)file;
    if (!bytes || !folder || !folder->folder) {
        fuse_reply_err(request, bytes ? ENOTDIR : ENOMEM);
        return;
    }
    for (uint64_t at = (uint64_t)offset; (node = entry_at(server->view, folder, at, &name)); at++) {
        struct stat stat;
        size_t length;

        fill_attributes(server, node, &stat);
        length = fuse_add_direntry(request, bytes + used, size - used, name, &stat, (off_t)(at + 1));
        if (length > size - used)
            break;
        used += length;
    }
    fuse_reply_buf(request, bytes, used);
}

static void on_statfs(fuse_req_t request, fuse_ino_t number)
{
    uint64_t files, size;

    (void)number;
    view_measure(server_of(request)->view, &files, &size);
    fuse_reply_statfs(request, &(struct statvfs){
                                   .f_bsize = 4096,
                                   .f_frsize = 4096,
                                   .f_blocks = divide_up(size, 4096),
                                   .f_files = files,
                                   .f_namemax = 255,
                                   .f_flag = ST_RDONLY,
                               });
}

/* --- opening --- */

struct opening {
    fuse_req_t request;
    struct fuse_file_info file;
    uint64_t node;
    struct view *view;
};

static void on_opened(void *user, struct circular_disk *disk, int code)
{
    auto_free struct opening *opening = user;
    struct fuse_server *server = server_of(opening->request);

    if (!gate_enter(opening->request)) {
        if (disk)
            view_release(opening->view, opening->node);
        return;
    }
    if (!disk) {
        fuse_reply_err(opening->request, errno_of(code));
        gate_leave(server);
        return;
    }
    opening->file.keep_cache = 1;
    opening->file.fh = (uint64_t)(uintptr_t)disk;
    /* A caller that was interrupted meanwhile will never release. */
    if (fuse_reply_open(opening->request, &opening->file))
        view_release(opening->view, opening->node);
    gate_leave(server);
}

static void on_open(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file)
{
    struct view *view = server_of(request)->view;
    const struct view_node *node = view_node(view, number);
    struct opening *opening;

    if (!node || node->folder) {
        fuse_reply_err(request, node ? EISDIR : ENOENT);
        return;
    }
    if ((file->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(request, EROFS);
        return;
    }
    opening = malloc(sizeof(*opening));
    if (!opening) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    *opening = (struct opening){request, *file, number, view};
    view_hold(view, number, on_opened, opening);
}

static void on_release(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);

    (void)file;
    fuse_reply_err(request, 0);
    view_release(server->view, number);
}

static struct circular_disk *disk_of(const struct fuse_file_info *file)
{
    return (struct circular_disk *)(uintptr_t)file->fh;
}

/* --- reading --- */

static void on_interrupt(fuse_req_t request, void *user)
{
    (void)request;
    reads_interrupt(user);
}

static void watch_request(void *request, struct read *read)
{
    fuse_req_interrupt_func(request, read ? on_interrupt : NULL, read);
}

static void answer_read(void *request, int code, const void *bytes, size_t size)
{
    struct fuse_server *server = server_of(request);

    if (!gate_enter(request))
        return;
    if (code)
        fuse_reply_err(request, errno_of(code));
    else
        fuse_reply_buf(request, bytes, size);
    gate_leave(server);
}

static void release_node(void *user, uint64_t node)
{
    view_release(((struct fuse_server *)user)->view, node);
}

static void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *node = view_node(server->view, number);

    if (offset < 0 || (uint64_t)offset >= node->size || size == 0) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    size = min_u64(min_u64(size, READ_SIZE_MAX), node->size - (uint64_t)offset);
    view_hold_again(server->view, number);
    /* A direct reader would see the early failure; the page cache asks again. */
    reads_start(server->reads, request, disk_of(file), number, size, (uint64_t)offset, !(file->flags & O_DIRECT));
}

/* --- seeking --- */

struct seek {
    fuse_req_t request;
    struct circular_disk *disk;
    uint64_t offset;
    bool data;
};

static void seek_errand(void *argument)
{
    auto_free struct seek *seek = argument;
    struct fuse_server *server = server_of(seek->request);
    int64_t found = circular_seek(seek->disk, seek->offset, seek->data, NULL);

    if (!gate_enter(seek->request))
        return;
    if (found < 0)
        fuse_reply_err(seek->request, errno_of((int)found));
    else if (seek->data && (uint64_t)found >= circular_size(seek->disk))
        fuse_reply_err(seek->request, ENXIO);
    else
        fuse_reply_lseek(seek->request, found);
    gate_leave(server);
}

/* The kernel holds the file open until this is answered, so the disk stays held. */
static void on_lseek(fuse_req_t request, fuse_ino_t number, off_t offset, int whence,
                     struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *node = view_node(server->view, number);
    struct seek *seek;

    if (offset < 0 || (uint64_t)offset >= node->size || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
        fuse_reply_err(request, whence == SEEK_DATA || whence == SEEK_HOLE ? ENXIO : EINVAL);
        return;
    }
    seek = malloc(sizeof(*seek));
    if (!seek) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    *seek = (struct seek){request, disk_of(file), (uint64_t)offset, whence == SEEK_DATA};
    if (!errands_run(server->errands, seek_errand, seek)) {
        free(seek);
        fuse_reply_err(request, ENOMEM);
    }
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = on_lookup,
    .getattr = on_getattr,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .statfs = on_statfs,
    .open = on_open,
    .release = on_release,
    .read = on_read,
    .lseek = on_lseek,
};

/* --- threads --- */

static void *serve_main(void *argument)
{
    struct server_thread *thread = argument;
    struct fuse_server *server = thread->server;
    int got;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    for (;;) {
        /* fuse_server_close ends this thread here, where it owns nothing but its buffer. */
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
        got = fuse_session_receive_buf(server->session, &thread->buffer);
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
        if (got == -EINTR || got == -EAGAIN)
            continue;
        if (got <= 0)
            break;
        fuse_session_process_buf(server->session, &thread->buffer);
    }
    if (got < 0)
        log_error("cannot read from /dev/fuse: %s", strerror(-got));
    eventfd_write(server->ended_fd, 1);
    return NULL;
}

static int start_threads(struct fuse_server *server, struct error *error)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long count = processors < THREADS_MIN ? THREADS_MIN : processors > THREADS_MAX ? THREADS_MAX : processors;

    for (long i = 0; i < count; i++) {
        struct server_thread *thread = &server->threads[i];

        thread->server = server;
        if (pthread_create(&thread->thread, NULL, serve_main, thread))
            return error_set(error, ERROR_SYSTEM, "cannot start a thread");
        thread->started = true;
    }
    return 0;
}

static void stop_threads(struct fuse_server *server)
{
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        struct server_thread *thread = &server->threads[i];

        if (thread->started) {
            pthread_cancel(thread->thread);
            pthread_join(thread->thread, NULL);
        }
        free(thread->buffer.mem);
    }
}

/* --- mounting --- */

/* What libfuse said last, for the error message; mounting is done one at a time. */
static char last_words[256];

__attribute__((format(printf, 2, 0))) static void on_libfuse_log(enum fuse_log_level level, const char *format,
                                                                 va_list arguments)
{
    char line[256];

    vsnprintf(line, sizeof(line), format, arguments);
    line[strcspn(line, "\n")] = '\0';
    if (level <= FUSE_LOG_ERR)
        memcpy(last_words, line, sizeof(line));
    log_debug("libfuse: %s", line);
}

static int add_options(struct fuse_args *arguments, const struct fuse_settings *settings)
{
    char text[1200];
    char *list = NULL;
    int result;

    snprintf(text, sizeof(text), "fsname=%s", settings->source);
    result = fuse_opt_add_opt_escaped(&list, text) || fuse_opt_add_opt(&list, "subtype=circular") ||
             fuse_opt_add_opt(&list, "ro,nosuid,nodev,default_permissions") ||
             fuse_opt_add_opt(&list, "max_read=1048576");
    if (!result && settings->allow_other)
        result = fuse_opt_add_opt(&list, "allow_other");
    result = result || fuse_opt_add_arg(arguments, "circular") || fuse_opt_add_arg(arguments, "-o") ||
             fuse_opt_add_arg(arguments, list);
    free(list);
    return result;
}

static int mount_session(struct fuse_server *server, const struct fuse_settings *settings, struct error *error)
{
    struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);

    fuse_set_log_func(on_libfuse_log);
    if (!add_options(&arguments, settings))
        server->session = fuse_session_new(&arguments, &operations, sizeof(operations), server);
    fuse_opt_free_args(&arguments);
    if (!server->session)
        return error_set(error, ERROR_SYSTEM, "libfuse: %s", last_words);
    if (fuse_session_mount(server->session, settings->folder))
        return error_set(error, ERROR_SYSTEM, "cannot mount at %s%s%s", settings->folder,
                         *last_words ? ": " : "", last_words);
    server->mounted = true;
    return 0;
}

static struct fuse_server *server_create(void)
{
    struct fuse_server *server = calloc(1, sizeof(*server));

    if (!server)
        return NULL;
    pthread_rwlock_init(&server->gate, NULL);
    server->uid = geteuid();
    server->gid = getegid();
    server->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->errands = errands_create();
    return server;
}

int fuse_server_open(const struct fuse_settings *settings, struct fuse_server **server_out, struct error *error)
{
    struct fuse_server *server;
    int result = mountpoint_check_host(error);

    if (result)
        return result;
    server = server_create();
    if (!server || !server->errands || server->ended_fd < 0)
        result = error_set(error, ERROR_SYSTEM, "no memory or descriptors to serve %s", settings->folder);
    else if (settings->disk)
        result = view_of_disk(settings->disk, &server->view, error);
    else
        result = view_of_archive(settings->archive, server->errands, &server->view, error);
    if (!result)
        result = mount_session(server, settings, error);
    if (!result)
        result = reads_create(&(struct read_host){watch_request, answer_read, release_node, server}, &server->reads,
                              error);
    if (!result)
        result = start_threads(server, error);
    if (result) {
        fuse_server_close(server, 0);
        return result;
    }
    *server_out = server;
    return 0;
}

int fuse_server_ended(const struct fuse_server *server)
{
    return server->ended_fd;
}

static void server_destroy(struct fuse_server *server)
{
    reads_destroy(server->reads);
    if (server->session)
        fuse_session_destroy(server->session);
    view_destroy(server->view);
    errands_destroy(server->errands);
    if (server->ended_fd >= 0)
        close(server->ended_fd);
    pthread_rwlock_destroy(&server->gate);
    free(server);
}

static void unmount(struct fuse_server *server)
{
    pthread_rwlock_wrlock(&server->gate);
    server->closed = true;
    pthread_rwlock_unlock(&server->gate);
    /* Closes /dev/fuse, which fails every request that is still waiting. */
    if (server->mounted)
        fuse_session_unmount(server->session);
}

bool fuse_server_close(struct fuse_server *server, uint64_t timeout_ms)
{
    if (!server)
        return true;
    stop_threads(server);
    if (server->reads)
        reads_stop(server->reads);
    unmount(server);
    if (server->reads && !reads_wait(server->reads, timeout_ms))
        return false;
    if (server->errands && !errands_wait(server->errands, timeout_ms))
        return false;
    server_destroy(server);
    return true;
}
