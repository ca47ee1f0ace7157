/*
 * The view: what a mount shows. One disk as /NAME, or a whole catalog as
 * /NAME/VERSION, whose disks are opened when somebody opens the file and
 * closed after the last one has closed it. Knows nothing of FUSE.
 *
 * Nodes are numbered from 1, the root. All functions may be called from any thread.
 */
#ifndef SERVE_VIEW_H
#define SERVE_VIEW_H

#include "base/error.h"
#include "base/extents.h"
#include "circular.h"
#include "serve/errand.h"

#define VIEW_ROOT 1

struct view;

struct view_node {
    const char *name;     /* the view's */
    uint64_t number;
    uint64_t parent;
    bool folder;
    uint64_t first_child; /* folders: their children are numbered from here on */
    _Atomic uint64_t child_count;
    uint64_t size;        /* files: bytes */
    uint64_t data_size;   /* files: bytes that are not zero blocks */
    int64_t time;         /* of publication, seconds since the epoch */
    const struct extents *extents; /* files: these bytes of the disk; NULL: all of it */
};

/* The disk, or the archive, is borrowed and outlives the view; ERRANDS likewise. */
int view_of_disk(struct circular_disk *disk, struct view **view_out, struct error *error);
int view_of_archive(struct circular_archive *archive, struct errands *errands, struct view **view_out,
                    struct error *error);
/*
 * To a view of one disk, add a file NAME (copied) that shows EXTENTS of that disk, which are taken over. At most
 * VIEW_ADDED_MAX, one at a time; names that somebody has looked for before may stay unknown to the kernel. INVALID: the
 * name is taken; UNSUPPORTED: too many; SYSTEM.
 */
#define VIEW_ADDED_MAX 256
int view_add(struct view *view, const char *name, struct extents *extents, struct error *error);
/* Closes the disks that the view has opened. None may be held. Takes NULL. */
void view_destroy(struct view *view);

/* NULL: no such node. */
const struct view_node *view_node(const struct view *view, uint64_t number);
const struct view_node *view_find(const struct view *view, uint64_t parent, const char *name);

/* Sums over all files. */
void view_measure(const struct view *view, uint64_t *files_out, uint64_t *size_out);

/*
 * Hold the disk of a file: DONE gets it, or NULL with CODE (an error code), perhaps before this returns, perhaps on
 * another thread. A disk that could not be opened is tried again by the next call.
 */
void view_hold(struct view *view, uint64_t number,
               void (*done)(void *user, struct circular_disk *disk, int code), void *user);
/* Hold again what is held already. */
struct circular_disk *view_hold_again(struct view *view, uint64_t number);
/*
 * Hold the disk of the file *NUMBER, if it is open; of a view of one disk also by its root, *NUMBER is then the file's.
 * NULL: it is not open, or no file.
 */
struct circular_disk *view_try_hold(struct view *view, uint64_t *number);
void view_release(struct view *view, uint64_t number);

#endif
