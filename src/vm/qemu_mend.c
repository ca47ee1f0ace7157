/*
 * A running QEMU whose published disk has gone, because the process that served
 * it was killed: reads fail, and the machine is stopped (rerror=stop) rather
 * than told. It is given the disk again, as a new block node, and goes on with
 * the read that failed.
 */
#include <stdio.h>

#include "vm/qemu.h"
#include "vm/qmp.h"

/* What takes the place of a node has one of two names by turns; the other is then free for the next time. */
static const char *const base_names[] = {QEMU_NODE_BASE, QEMU_NODE_BASE "-again"};

/* One that is in use stays. */
static void drop_node(struct qmp *qmp, const char *node)
{
    struct json_writer *command = qmp_begin(qmp, "blockdev-del");

    json_put_text(command, "node-name", node);
    qmp_run(qmp, command, NULL, NULL);
}

static int add_named(struct qmp *qmp, const char *node, const char *path, struct error *error)
{
    struct json_writer *command = qmp_begin(qmp, "blockdev-add");

    json_put_text(command, "driver", "raw");
    json_put_text(command, "node-name", node);
    json_put_bool(command, "read-only", true);
    json_begin_object(command, "file");
    json_put_text(command, "driver", "file");
    json_put_text(command, "filename", path);
    json_end(command);
    return qmp_run(qmp, command, NULL, error);
}

/* A block node of the disk at PATH. *TURN_OUT: which of the NAMES it has. */
static int add_node(struct qmp *qmp, const char *const names[2], const char *path, unsigned *turn_out,
                    struct error *error)
{
    int result = -1;

    for (unsigned turn = 0; result && turn < 2; turn++) {
        drop_node(qmp, names[turn]);
        result = add_named(qmp, names[turn], path, error); /* that a name is taken is found after PATH was opened */
        *turn_out = turn;
    }
    return result;
}

/* Put LAYER over BASE; what is not said here would become QEMU's default. */
static int put_over(struct qmp *qmp, const char *layer, bool read_only, const char *base, struct error *error)
{
    struct json_writer *command = qmp_begin(qmp, "blockdev-reopen");
    char file[QMP_WORD];

    snprintf(file, sizeof(file), "%s" QEMU_NODE_FILE, layer);
    json_begin_array(command, "options");
    json_begin_item(command);
    json_put_text(command, "driver", "qcow2");
    json_put_text(command, "node-name", layer);
    json_put_text(command, "file", file);
    json_put_text(command, "backing", base);
    json_put_bool(command, "read-only", read_only);
    json_put_text(command, "discard", "unmap");
    json_end(command);
    json_end(command);
    return qmp_run(qmp, command, NULL, error);
}

int qemu_replace_base(struct qmp *qmp, const char *path, struct error *error)
{
    unsigned turn;
    int result = add_node(qmp, base_names, path, &turn, error);

    if (result)
        return result;
    /* With a snapshot the overlay is one below; else there is no such node. */
    if (put_over(qmp, QEMU_NODE_KEPT, true, base_names[turn], NULL))
        result = put_over(qmp, QEMU_NODE_DISK, false, base_names[turn], error);
    drop_node(qmp, base_names[result ? turn : !turn]);
    return result;
}

/* Let the CD-ROM that is NODE be what is in FILE. */
static int put_in(struct qmp *qmp, const char *node, const char *file, struct error *error)
{
    struct json_writer *command = qmp_begin(qmp, "blockdev-reopen");

    json_begin_array(command, "options");
    json_begin_item(command);
    json_put_text(command, "driver", "raw");
    json_put_text(command, "node-name", node);
    json_put_text(command, "file", file);
    json_put_bool(command, "read-only", true);
    json_end(command);
    json_end(command);
    return qmp_run(qmp, command, NULL, error);
}

int qemu_replace_cdrom(struct qmp *qmp, const char *node, const char *path, struct error *error)
{
    char first[QMP_WORD], second[QMP_WORD];
    const char *const names[2] = {first, second};
    unsigned turn;
    int result;

    snprintf(first, sizeof(first), "%s" QEMU_NODE_FILE, node);
    snprintf(second, sizeof(second), "%s" QEMU_NODE_FILE "-again", node);
    result = add_node(qmp, names, path, &turn, error);
    if (result)
        return result;
    result = put_in(qmp, node, names[turn], error);
    drop_node(qmp, names[result ? turn : !turn]);
    return result;
}
