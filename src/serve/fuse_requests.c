/*
 * The requests of the kernel and their answers, from whatever thread has the
 * result. Each is answered once, interrupted ones at once.
 */
#include "serve/fuse_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "serve/claim.h"

#define FOREVER 86400.0 /* seconds; nothing under a mount ever changes */

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

/* --- requests that wait --- */

/* The beginning of whatever waits: interrupts are answered, the result then goes to nobody. */
struct pending {
    fuse_req_t request;
    struct fuse_server *server;
    struct claim claim;
};

static void on_pending_interrupt(fuse_req_t request, void *user)
{
    struct pending *pending = user;

    if (claim_interrupt(&pending->claim))
        fuse_reply_err(request, EINTR);
}

/* SIZE bytes that begin with a struct pending, on the heap; NULL: has been answered. */
static void *pending_create(size_t size, fuse_req_t request)
{
    struct pending *pending = calloc(1, size);

    if (!pending) {
        fuse_reply_err(request, ENOMEM);
        return NULL;
    }
    pending->request = request;
    pending->server = server_of(request);
    claim_start(&pending->claim);
    fuse_req_interrupt_func(request, on_pending_interrupt, pending);
    if (claim_started(&pending->claim))
        fuse_reply_err(request, EINTR);
    return pending;
}

/* True if the caller is to answer, and then to leave the gate. */
static bool pending_claim(struct pending *pending)
{
    if (!claim_take(&pending->claim))
        return false;
    /* Waits for an interrupt that is just being handled. */
    fuse_req_interrupt_func(pending->request, NULL, NULL);
    return gate_enter(pending->request);
}

/* --- opening --- */

struct opening {
    struct pending pending;
    struct fuse_file_info file;
    uint64_t node;
};

/* A file that the kernel had open is not any more. */
static void note_closed(struct fuse_server *server)
{
    if (atomic_fetch_sub(&server->open_count, 1) == 1 && server->ends_unused)
        eventfd_write(server->ended_fd, 1);
}

/* Counted first: its release may come before the reply returns. */
static int reply_open(struct fuse_server *server, fuse_req_t request, struct fuse_file_info *file,
                      struct circular_disk *disk)
{
    int result;

    file->fh = (uint64_t)(uintptr_t)disk;
    file->keep_cache = 1;
    /* Nothing is ever written; and who is killed while he has a file of his own mount open would wait for himself. */
    file->noflush = 1;
    atomic_fetch_add(&server->open_count, 1);
    result = fuse_reply_open(request, file);
    if (result)
        note_closed(server);
    return result;
}

/* What waits for nobody is not interrupted: as with any file system, programs do not expect EINTR from open. */
static bool open_at_once(fuse_req_t request, uint64_t number, struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    struct circular_disk *disk = view_try_hold(server->view, &number);

    if (!disk)
        return false;
    if (reply_open(server, request, file, disk)) /* the caller has gone: nobody will release */
        view_release(server->view, number);
    return true;
}

static void on_opened(void *user, struct circular_disk *disk, int code)
{
    auto_free struct opening *opening = user;
    struct fuse_server *server = opening->pending.server;
    fuse_req_t request = opening->pending.request;
    bool taken = false;

    if (pending_claim(&opening->pending)) {
        if (disk) /* fails if the caller has gone: then nobody will release */
            taken = !reply_open(server, request, &opening->file, disk);
        else
            fuse_reply_err(request, errno_of(code));
        gate_leave(server);
    }
    if (disk && !taken)
        view_release(server->view, opening->node);
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
    if (open_at_once(request, number, file))
        return;
    opening = pending_create(sizeof(*opening), request);
    if (!opening)
        return;
    opening->file = *file;
    opening->node = number;
    view_hold(view, number, on_opened, opening);
}

static void on_release(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);

    (void)file;
    fuse_reply_err(request, 0);
    view_release(server->view, number);
    note_closed(server);
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

static void release_disk(void *user, uint64_t node)
{
    view_release(((struct fuse_server *)user)->view, node);
}

struct read_host fuse_read_host(struct fuse_server *server)
{
    return (struct read_host){watch_request, answer_read, release_disk, server};
}

static void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *node = view_node(server->view, number);
    struct read_source source = {disk_of(file), node->extents, number};

    if (offset < 0 || (uint64_t)offset >= node->size || size == 0) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    size = min_u64(min_u64(size, READ_SIZE_MAX), node->size - (uint64_t)offset);
    view_hold_again(server->view, number);
    /* A direct reader would see the early failure; the page cache asks again. */
    reads_start(server->reads, request, &source, size, (uint64_t)offset, !(file->flags & O_DIRECT));
}

/* --- seeking --- */

struct seek {
    struct pending pending;
    struct circular_disk *disk;
    uint64_t node;
    uint64_t offset;
    bool data;
};

static void seek_errand(void *argument)
{
    auto_free struct seek *seek = argument;
    struct fuse_server *server = seek->pending.server;
    fuse_req_t request = seek->pending.request;
    int64_t found = circular_seek(seek->disk, seek->offset, seek->data, NULL);

    if (pending_claim(&seek->pending)) {
        if (found < 0)
            fuse_reply_err(request, errno_of((int)found));
        else if (seek->data && (uint64_t)found >= circular_size(seek->disk))
            fuse_reply_err(request, ENXIO);
        else
            fuse_reply_lseek(request, found);
        gate_leave(server);
    }
    view_release(server->view, seek->node);
}

static void on_lseek(fuse_req_t request, fuse_ino_t number, off_t offset, int whence,
                     struct fuse_file_info *file)
{
    struct fuse_server *server = server_of(request);
    const struct view_node *node = view_node(server->view, number);
    struct seek *seek;

    (void)file; /* the kernel holds it open until this is answered */
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    if (offset < 0 || (uint64_t)offset >= node->size) {
        fuse_reply_err(request, ENXIO);
        return;
    }
    if (node->extents) { /* is taken for all data */
        fuse_reply_lseek(request, whence == SEEK_DATA ? offset : (off_t)node->size);
        return;
    }
    seek = pending_create(sizeof(*seek), request);
    if (!seek)
        return;
    seek->disk = view_hold_again(server->view, number);
    seek->node = number;
    seek->offset = (uint64_t)offset;
    seek->data = whence == SEEK_DATA;
    if (errands_run(server->errands, seek_errand, seek))
        return;
    if (pending_claim(&seek->pending)) {
        fuse_reply_err(request, ENOMEM);
        gate_leave(server);
    }
    view_release(server->view, number);
    free(seek);
}

const struct fuse_lowlevel_ops fuse_operations = {
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
    .getxattr = fuse_on_getxattr,
};
