/*
 * QMP, QEMU's control protocol: what QEMU says, one JSON object a line
 * (docs/interop/qmp-spec.txt of QEMU), and what is said to it.
 */
#ifndef FORMAT_QMP_H
#define FORMAT_QMP_H

#include "base/error.h"
#include "format/json.h"

#define QMP_LINE_MAX   (1024 * 1024)
#define QMP_BLOCKS_MAX 64
#define QMP_WORD       64

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
    enum qmp_kind kind;
    char word[QMP_WORD]; /* an event's name, an error's class, cut to fit; else "" */
    char text[512];      /* an error's description, cut and printable */
    uint64_t id;         /* of the command that is answered; 0: none */
};

/* ERROR_CORRUPT: not a message. */
int qmp_parse(const void *bytes, size_t size, struct qmp_message *message_out, struct error *error);

/* The answer to query-status: "running", "paused", "io-error", ... */
int qmp_parse_status(const void *bytes, size_t size, char status_out[QMP_WORD], struct error *error);

struct qmp_block {
    char node[QMP_WORD];
    uint64_t read_bytes, read_count, write_bytes, write_count;
};

/* The answer to query-blockstats: what each device has done to the node that it is on. */
int qmp_parse_blocks(const void *bytes, size_t size, struct qmp_block blocks_out[QMP_BLOCKS_MAX], size_t *count_out,
                     struct error *error);

/*
 * Begin a command that is called NAME and has the number ID; put its arguments with json_put_text and the like, then
 * json_print.
 */
struct json_writer *qmp_command(const char *name, uint64_t id);

/* What is said to it may be on several lines: how many of the bytes are the first command; 0: it is not whole yet. */
size_t qmp_command_length(const void *bytes, size_t size);

/* The name of a command and its number (0: none). ERROR_CORRUPT: not a command. */
int qmp_parse_command(const void *bytes, size_t size, char name_out[QMP_WORD], uint64_t *id_out, struct error *error);

#endif
