/*
 * JSON (RFC 8259) for the formats of this folder: strict reading with messages
 * that name the member ("catalog: versions[3].manifest: not a digest"), and
 * writing. This is the only file pair that knows jansson.
 *
 * Refused: a member that occurs twice, text that is not UTF-8 or holds U+0000,
 * nesting deeper than JSON_DEPTH_MAX, more than JSON_VALUES_MIN values and one
 * for each JSON_VALUE_SIZE bytes of the document, numbers that are not whole where a whole
 * one is wanted or are past 2^63 - 1, anything after the document.
 */
#ifndef FORMAT_JSON_H
#define FORMAT_JSON_H

#include "base/error.h"
#include "base/hash.h"

#define JSON_DEPTH_MAX 32
#define JSON_VALUES_MIN 1024
#define JSON_VALUE_SIZE 16

/*
 * A value and the way to it. Lives on the reader's stack, points at its parent
 * there, and is valid as long as its document is open.
 */
struct json_value {
    const void *node;                /* jansson's */
    const struct json_value *parent; /* NULL: the document */
    const char *name;                /* of this member, or of the document; NULL: item INDEX of an array */
    size_t index;
};

enum json_need { JSON_REQUIRED, JSON_OPTIONAL };

/* Parse a document that is an object. WHAT names it in messages and is borrowed. ERROR_CORRUPT, ERROR_SYSTEM. */
int json_open(const char *what, const void *bytes, size_t size, size_t size_max, struct json_value *document_out,
              struct error *error);
void json_close(struct json_value *document);

/* "WHAT: way.to[2].MEMBER: REASON", ERROR_CORRUPT. MEMBER NULL: the value itself. */
int json_fault(const struct json_value *value, const char *member, const char *reason, struct error *error);

/*
 * Members of OBJECT. Each returns 0 or ERROR_CORRUPT; one that is optional and
 * not there leaves *_OUT as it was.
 */
bool json_has(const struct json_value *object, const char *member);
int json_get_text(const struct json_value *object, const char *member, enum json_need need, char *text_out,
              size_t capacity, struct error *error); /* with NUL; no control characters */
int json_get_number(const struct json_value *object, const char *member, enum json_need need, uint64_t least,
                uint64_t most, uint64_t *number_out, struct error *error);
int json_get_digest(const struct json_value *object, const char *member, enum json_need need,
                struct digest *digest_out, struct error *error); /* not the all-zero one */
int json_get_time(const struct json_value *object, const char *member, enum json_need need, int64_t *seconds_out,
              struct error *error);
/* *COUNT_OUT is 0 for one that is not there. */
int json_get_array(const struct json_value *object, const char *member, enum json_need need, size_t count_max,
               struct json_value *array_out, size_t *count_out, struct error *error);

/* NOT_FOUND without a message if it is not there. */
int json_get_object(const struct json_value *object, const char *member, struct json_value *object_out,
                    struct error *error);

/* Items of an array, INDEX below its count. */
int json_item_object(const struct json_value *array, size_t index, struct json_value *object_out,
                     struct error *error);
/* Borrowed from the document. No control characters. */
int json_item_text(const struct json_value *array, size_t index, const char **text_out, struct error *error);
int json_item_number(const struct json_value *array, size_t index, uint64_t least, uint64_t most,
                     uint64_t *number_out, struct error *error);
/* As json_fault, of item INDEX. */
int json_item_fault(const struct json_value *array, size_t index, const char *reason, struct error *error);

/* The document's member "format" must be FORMAT. */
int json_check_format(const struct json_value *document, const char *format, struct error *error);

/*
 * Writing: make a document, put members in the order in which they shall
 * stand, print it. Failures are remembered: json_print then returns NULL.
 */
struct json_writer;
struct json_writer *json_writer_create(void); /* NULL is fine for all below */
void json_put_text(struct json_writer *writer, const char *member, const char *text);
/* Whether readers will take TEXT: UTF-8 without control characters. ERROR_INVALID with no more than the reason. */
int json_check_text(const char *text, struct error *error);
void json_put_number(struct json_writer *writer, const char *member, uint64_t number);
void json_put_bool(struct json_writer *writer, const char *member, bool value);
void json_put_null(struct json_writer *writer, const char *member);
void json_put_digest(struct json_writer *writer, const char *member, const struct digest *digest);
void json_put_time(struct json_writer *writer, const char *member, int64_t seconds);
/* What follows goes into a new member that is an array, or a new item that is an object, until json_end. In an array
 * the items have no name: MEMBER is NULL. */
void json_begin_array(struct json_writer *writer, const char *member);
void json_begin_item(struct json_writer *writer);
void json_begin_object(struct json_writer *writer, const char *member); /* a member that is an object, until json_end */
void json_end(struct json_writer *writer);
/* The text with a final newline, on the heap; NULL: no memory, or text that is not UTF-8. Destroys WRITER. */
char *json_print(struct json_writer *writer);

#endif
