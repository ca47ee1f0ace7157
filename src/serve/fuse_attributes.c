/*
 * What a mount tells about itself, as extended attributes "user.circular.WORD" of its folders and files. No socket
 * is needed, the mount's own permissions count, and they are answered at once, also when every reader waits.
 */
#include "serve/fuse_parts.h"

#include <errno.h>

#include "serve/fuse.h"

/* For the user who mounted and for root. */
static bool may_ask(fuse_req_t request, const struct fuse_server *server)
{
    uid_t uid = fuse_req_ctx(request)->uid;

    return uid == server->uid || uid == 0;
}

/* As getxattr(2) wants it: SIZE 0 asks how long the value is. */
static void answer(fuse_req_t request, const struct buffer *value, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(request, value->size);
    else if (value->size > size)
        fuse_reply_err(request, ERANGE);
    else
        fuse_reply_buf(request, (const char *)value->bytes, value->size);
}

/* They are not listed, so that nobody who copies files with their attributes copies these. */
void fuse_on_getxattr(fuse_req_t request, fuse_ino_t number, const char *name, size_t size)
{
    struct fuse_server *server = fuse_req_userdata(request);
    size_t prefix = strlen(FUSE_ATTRIBUTE_PREFIX);
    struct buffer value = {0};
    struct circular_disk *disk;
    uint64_t node = number;

    if (!server->attribute || strncmp(name, FUSE_ATTRIBUTE_PREFIX, prefix)) {
        fuse_reply_err(request, ENODATA);
        return;
    }
    if (!may_ask(request, server)) {
        fuse_reply_err(request, EACCES);
        return;
    }
    disk = view_try_hold(server->view, &node);
    if (server->attribute(server->attribute_user, disk, name + prefix, &value))
        fuse_reply_err(request, ENODATA);
    else
        answer(request, &value, size);
    if (disk)
        view_release(server->view, node);
    buffer_finish(&value);
}
