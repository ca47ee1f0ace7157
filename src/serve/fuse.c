/*
 * The FUSE server's session: mounting, the threads that serve the kernel, and
 * the end. What is answered is in fuse_requests.c.
 */
#include "serve/fuse.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "serve/fuse_parts.h"
#include "serve/mountpoint.h"

#define THREADS_MIN 4

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
    long count = processors < THREADS_MIN ? THREADS_MIN : processors > FUSE_THREADS_MAX ? FUSE_THREADS_MAX : processors;

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
    for (unsigned i = 0; i < FUSE_THREADS_MAX; i++) {
        struct server_thread *thread = &server->threads[i];

        if (thread->started) {
            pthread_cancel(thread->thread);
            pthread_join(thread->thread, NULL);
        }
        free(thread->buffer.mem);
    }
}

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
        server->session = fuse_session_new(&arguments, &fuse_operations, sizeof(fuse_operations), server);
    fuse_opt_free_args(&arguments);
    if (!server->session)
        return error_set(error, ERROR_SYSTEM, "libfuse: %s", last_words);
    if (fuse_session_mount(server->session, settings->folder))
        return error_set(error, ERROR_SYSTEM, "cannot mount at %s%s%s", settings->folder,
                         *last_words ? ": " : "", last_words);
    server->mounted = true;
    return 0;
}

static int create_reads(struct fuse_server *server, struct error *error)
{
    struct read_host host = fuse_read_host(server);

    return reads_create(&host, &server->reads, error);
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
    if (server) {
        server->attribute = settings->attribute;
        server->attribute_user = settings->attribute_user;
    }
    if (!server || !server->errands || server->ended_fd < 0)
        result = error_set(error, ERROR_SYSTEM, "no memory or descriptors to serve %s", settings->folder);
    else if (settings->disk)
        result = view_of_disk(settings->disk, &server->view, error);
    else
        result = view_of_archive(settings->archive, server->errands, &server->view, error);
    if (!result)
        result = mount_session(server, settings, error);
    if (!result)
        result = create_reads(server, error);
    if (!result)
        result = start_threads(server, error);
    if (result) {
        fuse_server_close(server, 0);
        return result;
    }
    *server_out = server;
    return 0;
}

int fuse_server_add(struct fuse_server *server, const char *name, struct extents *extents, struct error *error)
{
    return view_add(server->view, name, extents, error);
}

void fuse_server_end_unused(struct fuse_server *server)
{
    server->ends_unused = true;
    if (!atomic_load(&server->open_count))
        eventfd_write(server->ended_fd, 1);
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
