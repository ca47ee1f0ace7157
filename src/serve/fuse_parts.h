/*
 * What the parts of the FUSE server share: the server itself, and the table of
 * requests that it answers.
 */
#ifndef SERVE_FUSE_PARTS_H
#define SERVE_FUSE_PARTS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <pthread.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "serve/errand.h"
#include "serve/reads.h"
#include "serve/view.h"

#define FUSE_THREADS_MAX 8

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
    int (*attribute)(void *user, struct circular_disk *disk, const char *word, struct buffer *value_out);
    void *attribute_user;
    bool mounted;
    atomic_uint open_count; /* files that the kernel has open */
    atomic_bool ends_unused;
    struct server_thread threads[FUSE_THREADS_MAX];
    struct reads *reads;
    pthread_rwlock_t gate; /* held shared for each answer from a thread that is not one of THREADS */
    bool closed;           /* under GATE: the session is being unmounted, nothing may be sent */
};

/* Threads that serve the kernel never wait for the network: reads are asynchronous, opening and seeking are errands. */
extern const struct fuse_lowlevel_ops fuse_operations;

/* In fuse_attributes.c. */
void fuse_on_getxattr(fuse_req_t request, fuse_ino_t number, const char *name, size_t size);

/* How reads answer. */
struct read_host fuse_read_host(struct fuse_server *server);

#endif
