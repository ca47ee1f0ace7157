/* The view: a table of nodes made once, and for each file the disk behind it while it is held. */
#include "serve/view.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

struct waiter {
    struct waiter *next;
    void (*done)(void *user, struct circular_disk *disk, int code);
    void *user;
};

enum file_state { FILE_CLOSED, FILE_OPENING, FILE_OPEN };

/* The changing part of a file's node; under the view's lock. */
struct file {
    struct view *view;
    uint64_t number;
    const char *version_name; /* of the image; the archive's */
    enum file_state state;
    struct circular_disk *disk;
    unsigned holders;
    struct waiter *waiters;
};

struct view {
    pthread_mutex_t lock; /* a leaf; not held while a disk is opened or closed */
    struct circular_archive *archive; /* NULL: one disk, always open */
    struct errands *errands;
    struct view_node *nodes; /* [number - 1] */
    struct file *files;      /* [number - 1]; unused for folders */
    _Atomic uint64_t count;  /* grows when a node has been added, which is never changed afterwards */
    uint64_t capacity;
    char *added_names[VIEW_ADDED_MAX];
    struct extents added[VIEW_ADDED_MAX];
};

static struct view *allocate(uint64_t count, uint64_t capacity)
{
    struct view *view = calloc(1, sizeof(*view));

    if (!view)
        return NULL;
    pthread_mutex_init(&view->lock, NULL);
    view->count = count;
    view->capacity = capacity;
    view->nodes = calloc(capacity, sizeof(*view->nodes));
    view->files = calloc(capacity, sizeof(*view->files));
    if (!view->nodes || !view->files) {
        view_destroy(view);
        return NULL;
    }
    for (uint64_t i = 0; i < capacity; i++) {
        view->nodes[i].number = i + 1;
        view->files[i] = (struct file){.view = view, .number = i + 1};
    }
    view->nodes[0].parent = VIEW_ROOT;
    view->nodes[0].folder = true;
    view->nodes[0].name = "";
    return view;
}

static void fill_file(struct view_node *node, const char *name, uint64_t parent,
                      const struct circular_version *version)
{
    node->name = name;
    node->parent = parent;
    node->size = version->disk_size;
    node->data_size = version->data_size;
    node->time = version->published;
}

int view_of_disk(struct circular_disk *disk, struct view **view_out, struct error *error)
{
    struct view *view = allocate(2, 2 + VIEW_ADDED_MAX);
    struct circular_version version;

    if (!view)
        return error_set(error, ERROR_SYSTEM, "no memory for the mount");
    circular_describe(disk, &version);
    fill_file(&view->nodes[1], version.name, VIEW_ROOT, &version);
    view->nodes[1].size = circular_size(disk);
    view->nodes[0].first_child = 2;
    view->nodes[0].child_count = 1;
    view->nodes[0].time = version.published;
    view->files[1].state = FILE_OPEN;
    view->files[1].disk = disk;
    view->files[1].holders = 1; /* the view's own, so that it is never closed here */
    *view_out = view;
    return 0;
}

int view_add(struct view *view, const char *name, struct extents *extents, struct error *error)
{
    uint64_t index = view->count, added = index - 2;
    struct view_node *node = &view->nodes[index];
    struct file *file = &view->files[index];

    if (view_find(view, VIEW_ROOT, name))
        return error_set(error, ERROR_INVALID, "there is a file %s already", name);
    if (view->archive || index == view->capacity)
        return error_set(error, ERROR_UNSUPPORTED, "too many volumes on one disk");
    view->added_names[added] = strdup(name);
    if (!view->added_names[added])
        return error_set(error, ERROR_SYSTEM, "no memory for %s", name);
    view->added[added] = *extents;
    *extents = (struct extents){0};
    node->name = view->added_names[added];
    node->parent = VIEW_ROOT;
    node->size = node->data_size = view->added[added].size;
    node->time = view->nodes[1].time;
    node->extents = &view->added[added];
    file->state = FILE_OPEN;
    file->disk = view->files[1].disk;
    file->holders = 1;
    view->count++; /* before somebody finds it */
    view->nodes[0].child_count++;
    return 0;
}

static int compare_versions(const void *a, const void *b)
{
    const struct circular_version *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    return order ? order : strcmp(left->version, right->version);
}

/* The archive's versions sorted by name and version, on the heap. */
static struct circular_version *sorted_versions(struct circular_archive *archive, size_t count)
{
    struct circular_version *versions = calloc(count + 1, sizeof(*versions));

    if (!versions)
        return NULL;
    for (size_t i = 0; i < count; i++)
        circular_archive_version(archive, i, &versions[i]);
    qsort(versions, count, sizeof(*versions), compare_versions);
    return versions;
}

/* Numbers: the root, then the folders, then the files in the order of their folders. */
static void fill_archive(struct view *view, const struct circular_version *versions, size_t count,
                         size_t name_count)
{
    struct view_node *root = &view->nodes[0];
    struct view_node *folder = root;
    uint64_t number = 2 + name_count;

    root->first_child = 2;
    root->child_count = name_count;
    for (size_t i = 0; i < count; i++, number++) {
        if (i == 0 || strcmp(versions[i].name, versions[i - 1].name)) {
            folder++;
            folder->name = versions[i].name;
            folder->parent = VIEW_ROOT;
            folder->folder = true;
            folder->first_child = number;
        }
        folder->child_count++;
        fill_file(&view->nodes[number - 1], versions[i].version, folder->number, &versions[i]);
        view->files[number - 1].version_name = versions[i].name;
        if (versions[i].published > folder->time)
            folder->time = versions[i].published;
        if (folder->time > root->time)
            root->time = folder->time;
    }
}

int view_of_archive(struct circular_archive *archive, struct errands *errands, struct view **view_out,
                    struct error *error)
{
    size_t count = circular_archive_count(archive), name_count = 0;
    auto_free struct circular_version *versions = sorted_versions(archive, count);
    struct view *view;

    if (!versions)
        return error_set(error, ERROR_SYSTEM, "no memory for %zu versions", count);
    for (size_t i = 0; i < count; i++)
        name_count += i == 0 || strcmp(versions[i].name, versions[i - 1].name);
    view = allocate(1 + name_count + count, 1 + name_count + count);
    if (!view)
        return error_set(error, ERROR_SYSTEM, "no memory for %zu versions", count);
    view->archive = archive;
    view->errands = errands;
    fill_archive(view, versions, count, name_count);
    *view_out = view;
    return 0;
}

void view_destroy(struct view *view)
{
    if (!view)
        return;
    for (uint64_t i = 0; view->archive && view->files && i < view->count; i++)
        circular_close(view->files[i].disk);
    for (size_t i = 0; i < VIEW_ADDED_MAX; i++) {
        free(view->added_names[i]);
        extents_finish(&view->added[i]);
    }
    pthread_mutex_destroy(&view->lock);
    free(view->nodes);
    free(view->files);
    free(view);
}

const struct view_node *view_node(const struct view *view, uint64_t number)
{
    return number >= 1 && number <= view->count ? &view->nodes[number - 1] : NULL;
}

const struct view_node *view_find(const struct view *view, uint64_t parent, const char *name)
{
    const struct view_node *folder = view_node(view, parent);

    if (!folder || !folder->folder)
        return NULL;
    for (uint64_t i = 0; i < folder->child_count; i++) {
        const struct view_node *child = &view->nodes[folder->first_child + i - 1];

        if (!strcmp(child->name, name))
            return child;
    }
    return NULL;
}

void view_measure(const struct view *view, uint64_t *files_out, uint64_t *size_out)
{
    *files_out = *size_out = 0;
    for (uint64_t i = 0; i < view->count; i++) {
        *files_out += !view->nodes[i].folder;
        *size_out += view->nodes[i].size;
    }
}

/* The opening has ended: give the disk (or the failure) to everybody who waits for it. */
static void finish_opening(struct file *file, struct circular_disk *disk, int code)
{
    struct view *view = file->view;
    struct waiter *waiters;

    pthread_mutex_lock(&view->lock);
    waiters = file->waiters;
    file->waiters = NULL;
    file->disk = disk;
    file->state = disk ? FILE_OPEN : FILE_CLOSED;
    for (struct waiter *waiter = waiters; disk && waiter; waiter = waiter->next)
        file->holders++;
    pthread_mutex_unlock(&view->lock);
    while (waiters) {
        struct waiter *waiter = waiters;

        waiters = waiter->next;
        waiter->done(waiter->user, disk, code);
        free(waiter);
    }
}

static void open_errand(void *argument)
{
    struct file *file = argument;
    const char *version = file->view->nodes[file->number - 1].name;
    struct circular_disk *disk = NULL;
    struct circular_error error = {0};
    int code = circular_archive_disk(file->view->archive, file->version_name, version, &disk, &error);

    if (code)
        log_error("cannot open %s@%s: %s", file->version_name, version, error.message);
    finish_opening(file, code ? NULL : disk, code);
}

void view_hold(struct view *view, uint64_t number,
               void (*done)(void *user, struct circular_disk *disk, int code), void *user)
{
    struct file *file = &view->files[number - 1];
    struct waiter *waiter = malloc(sizeof(*waiter));
    bool open, start;

    if (!waiter) {
        done(user, NULL, ERROR_SYSTEM);
        return;
    }
    *waiter = (struct waiter){.done = done, .user = user};
    pthread_mutex_lock(&view->lock);
    open = file->state == FILE_OPEN;
    start = file->state == FILE_CLOSED;
    if (open) {
        file->holders++;
    } else {
        file->state = FILE_OPENING;
        waiter->next = file->waiters;
        file->waiters = waiter;
    }
    pthread_mutex_unlock(&view->lock);
    if (open) {
        free(waiter);
        done(user, file->disk, 0);
    } else if (start && !errands_run(view->errands, open_errand, file)) {
        finish_opening(file, NULL, ERROR_SYSTEM);
    }
}

struct circular_disk *view_hold_again(struct view *view, uint64_t number)
{
    struct file *file = &view->files[number - 1];

    pthread_mutex_lock(&view->lock);
    file->holders++;
    pthread_mutex_unlock(&view->lock);
    return file->disk;
}

struct circular_disk *view_try_hold(struct view *view, uint64_t *number)
{
    struct circular_disk *disk = NULL;
    struct file *file;

    if (!view->archive && *number == VIEW_ROOT)
        *number = view->nodes[0].first_child;
    if (!view_node(view, *number) || view_node(view, *number)->folder)
        return NULL;
    file = &view->files[*number - 1];
    pthread_mutex_lock(&view->lock);
    if (file->state == FILE_OPEN) {
        disk = file->disk;
        file->holders++;
    }
    pthread_mutex_unlock(&view->lock);
    return disk;
}

static void close_errand(void *argument)
{
    circular_close(argument);
}

void view_release(struct view *view, uint64_t number)
{
    struct file *file = &view->files[number - 1];
    struct circular_disk *closing = NULL;

    pthread_mutex_lock(&view->lock);
    if (--file->holders == 0) {
        closing = steal_pointer(&file->disk);
        file->state = FILE_CLOSED;
    }
    pthread_mutex_unlock(&view->lock);
    /* Closing may wait, and this may run on a thread that the disk itself waits for. */
    if (closing && !errands_run(view->errands, close_errand, closing))
        log_warning("no thread to close a disk; it stays open");
}
