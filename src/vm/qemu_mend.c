/*
 * A running QEMU whose published disk has gone, because the process that served
 * it was killed: reads fail, and the machine is stopped (rerror=stop) rather
 * than told. It is given the disk again, as a new block node, and goes on with
 * the read that failed.
 */
#include <stdio.h>

#include "base/clock.h"
#include "vm/qemu.h"
#include "vm/qmp.h"

/* A block node of the disk at PATH. */
static int add_base(struct qmp *qmp, const char *node, const char *path, struct error *error)
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

/* A name for a node that is not taken. */
static void name_node(char name[QMP_WORD], const char *kind)
{
    snprintf(name, QMP_WORD, "%s-%llx", kind, (unsigned long long)clock_us() & 0xffffffffff);
}

int qemu_replace_base(struct qmp *qmp, const char *path, struct error *error)
{
    char node[QMP_WORD];
    int result;

    name_node(node, QEMU_NODE_BASE);
    result = add_base(qmp, node, path, error);
    /* With a snapshot the overlay is one below; else there is no such node. */
    if (!result && put_over(qmp, QEMU_NODE_KEPT, true, node, NULL))
        result = put_over(qmp, QEMU_NODE_DISK, false, node, error);
    return result ? result : qmp_order(qmp, "cont", error);
}

static int add_file(struct qmp *qmp, const char *node, const char *path, struct error *error)
{
    struct json_writer *command = qmp_begin(qmp, "blockdev-add");

    json_put_text(command, "driver", "file");
    json_put_text(command, "node-name", node);
    json_put_bool(command, "read-only", true);
    json_put_text(command, "filename", path);
    json_end(command);
    return qmp_run(qmp, command, NULL, error);
}

int qemu_replace_cdrom(struct qmp *qmp, const char *path, struct error *error)
{
    struct json_writer *command;
    char node[QMP_WORD];
    int result;

    name_node(node, QEMU_NODE_CDROM QEMU_NODE_FILE);
    result = add_file(qmp, node, path, error);
    if (result)
        return result;
    command = qmp_begin(qmp, "blockdev-reopen");
    json_begin_array(command, "options");
    json_begin_item(command);
    json_put_text(command, "driver", "raw");
    json_put_text(command, "node-name", QEMU_NODE_CDROM);
    json_put_text(command, "file", node);
    json_put_bool(command, "read-only", true);
    json_end(command);
    json_end(command);
    result = qmp_run(qmp, command, NULL, error);
    return result ? result : qmp_order(qmp, "cont", error);
}
