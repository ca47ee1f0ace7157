/* JSON through jansson: see json.h. */
#include "format/json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

/* Put "way.to[2]" of VALUE, with its document's name in front, into TEXT. */
static void describe(const struct json_value *value, char *text, size_t capacity)
{
    size_t length;

    if (!value->parent) {
        snprintf(text, capacity, "%s:", value->name);
        return;
    }
    describe(value->parent, text, capacity);
    length = strlen(text);
    if (!value->name)
        snprintf(text + length, capacity - length, "[%zu]", value->index);
    else
        snprintf(text + length, capacity - length, "%s%s", value->parent->parent ? "." : " ", value->name);
}

int json_fault(const struct json_value *value, const char *member, const char *reason, struct error *error)
{
    struct json_value inner = {.parent = value, .name = member};
    char where[400];

    describe(member ? &inner : value, where, sizeof(where));
    return error_set(error, ERROR_CORRUPT, "%s%s %s", where, member || value->parent ? ":" : "", reason);
}

/*
 * What would cost more memory than a document of ours can be worth; NULL: nothing. jansson takes some 100
 * bytes for the shortest value, and its own limit on nesting is 2048.
 */
static const char *fault_of_shape(const char *bytes, size_t size)
{
    size_t values = 0;
    unsigned depth = 0;
    bool in_text = false;

    for (size_t i = 0; i < size; i++) {
        char c = bytes[i];

        if (in_text && c == '\\')
            i++;
        else if (c == '"')
            in_text = !in_text;
        else if (!in_text && (c == '{' || c == '['))
            depth++, values++;
        else if (!in_text && (c == '}' || c == ']') && depth)
            depth--;
        else if (!in_text && c == ',')
            values++;
        if (depth > JSON_DEPTH_MAX)
            return "nested too deeply";
    }
    return values > JSON_VALUES_MIN + size / JSON_VALUE_SIZE ? "too many values for its size" : NULL;
}

/* jansson quotes the text near the fault, which may hold control characters. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

int json_open(const char *what, const void *bytes, size_t size, size_t size_max,
              struct json_value *document_out, struct error *error)
{
    json_error_t reason;
    const char *fault;
    json_t *node;

    if (size > size_max)
        return error_set(error, ERROR_CORRUPT, "%s: larger than %zu bytes", what, size_max);
    fault = fault_of_shape(bytes, size);
    if (fault)
        return error_set(error, ERROR_CORRUPT, "%s: %s", what, fault);
    node = json_loadb(size ? bytes : "", size, JSON_REJECT_DUPLICATES, &reason);
    if (!node) {
        make_printable(reason.text);
        if (json_error_code(&reason) == json_error_out_of_memory)
            return error_set(error, ERROR_SYSTEM, "%s: no memory", what);
        return error_set(error, ERROR_CORRUPT, "%s: line %d: %s", what, reason.line, reason.text);
    }
    if (!json_is_object(node)) {
        json_decref(node);
        return error_set(error, ERROR_CORRUPT, "%s: not a JSON object", what);
    }
    *document_out = (struct json_value){.node = node, .name = what};
    return 0;
}

void json_close(struct json_value *document)
{
    json_decref((json_t *)(uintptr_t)document->node);
    document->node = NULL;
}

/* MEMBER of OBJECT into *NODE_OUT, NULL if it is optional and not there. */
static int get(const struct json_value *object, const char *member, enum json_need need,
               const json_t **node_out, struct error *error)
{
    *node_out = json_object_get(object->node, member);
    if (!*node_out && need == JSON_REQUIRED)
        return json_fault(object, member, "missing", error);
    return 0;
}

bool json_has(const struct json_value *object, const char *member)
{
    return json_object_get(object->node, member) != NULL;
}

static const char *fault_of_bytes(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return "has a control character";
    return NULL;
}

/* NULL if NODE is a text fit to be printed, else why not. */
static const char *fault_of_text(const json_t *node)
{
    const char *text = json_string_value(node);

    return text ? fault_of_bytes(text) : "not a string";
}

int json_check_text(const char *text, struct error *error)
{
    const char *fault = fault_of_bytes(text);
    json_t *node = json_string(text);

    if (!fault && !node)
        fault = "is not UTF-8";
    json_decref(node);
    return fault ? error_set(error, ERROR_INVALID, "%s", fault) : 0;
}

int json_get_text(const struct json_value *object, const char *member, enum json_need need, char *text_out,
                  size_t capacity, struct error *error)
{
    const char *fault;
    const json_t *node;
    int result = get(object, member, need, &node, error);

    if (result || !node)
        return result;
    fault = fault_of_text(node);
    if (!fault && json_string_length(node) >= capacity)
        fault = "too long";
    if (fault)
        return json_fault(object, member, fault, error);
    memcpy(text_out, json_string_value(node), json_string_length(node) + 1);
    return 0;
}

/* What is wrong with NODE as a number from LEAST to MOST; NULL: nothing, and it is in *NUMBER_OUT. */
static const char *fault_of_number(const json_t *node, uint64_t least, uint64_t most, uint64_t *number_out)
{
    json_int_t number = json_integer_value(node);

    if (!json_is_integer(node))
        return "not a whole number";
    if (number < 0 || (uint64_t)number < least || (uint64_t)number > most)
        return "out of range";
    *number_out = (uint64_t)number;
    return NULL;
}

int json_get_number(const struct json_value *object, const char *member, enum json_need need, uint64_t least,
                    uint64_t most, uint64_t *number_out, struct error *error)
{
    const json_t *node;
    const char *fault;
    int result = get(object, member, need, &node, error);

    if (result || !node)
        return result;
    fault = fault_of_number(node, least, most, number_out);
    return fault ? json_fault(object, member, fault, error) : 0;
}

int json_get_digest(const struct json_value *object, const char *member, enum json_need need,
                    struct digest *digest_out, struct error *error)
{
    const json_t *node;
    struct digest digest;
    int result = get(object, member, need, &node, error);

    if (result || !node)
        return result;
    if (!json_is_string(node) || !digest_parse(json_string_value(node), &digest))
        return json_fault(object, member, "not a digest", error);
    if (digest_is_zero(&digest))
        return json_fault(object, member, "the digest is all zero", error);
    *digest_out = digest;
    return 0;
}

int json_get_time(const struct json_value *object, const char *member, enum json_need need,
                  int64_t *seconds_out, struct error *error)
{
    const json_t *node;
    int result = get(object, member, need, &node, error);

    if (result || !node)
        return result;
    if (!json_is_string(node) || !time_parse(json_string_value(node), seconds_out))
        return json_fault(object, member, "not a time like 2026-11-21T08:30:00Z", error);
    return 0;
}

int json_get_array(const struct json_value *object, const char *member, enum json_need need, size_t count_max,
                   struct json_value *array_out, size_t *count_out, struct error *error)
{
    const json_t *node;
    int result = get(object, member, need, &node, error);

    *count_out = 0;
    if (result || !node)
        return result;
    if (!json_is_array(node))
        return json_fault(object, member, "not an array", error);
    if (json_array_size(node) > count_max)
        return json_fault(object, member, "has too many items", error);
    *array_out = (struct json_value){.node = node, .parent = object, .name = member};
    *count_out = json_array_size(node);
    return 0;
}

int json_get_object(const struct json_value *object, const char *member, struct json_value *object_out,
                    struct error *error)
{
    const json_t *node = json_object_get(object->node, member);

    if (!node)
        return ERROR_NOT_FOUND;
    *object_out = (struct json_value){.node = node, .parent = object, .name = member};
    return json_is_object(node) ? 0 : json_fault(object, member, "not an object", error);
}

int json_item_object(const struct json_value *array, size_t index, struct json_value *object_out,
                     struct error *error)
{
    *object_out =
        (struct json_value){.node = json_array_get(array->node, index), .parent = array, .index = index};
    return json_is_object((const json_t *)object_out->node)
               ? 0
               : json_fault(object_out, NULL, "not an object", error);
}

int json_item_fault(const struct json_value *array, size_t index, const char *reason, struct error *error)
{
    struct json_value item = {.parent = array, .index = index};

    return json_fault(&item, NULL, reason, error);
}

int json_item_text(const struct json_value *array, size_t index, const char **text_out, struct error *error)
{
    const json_t *node = json_array_get(array->node, index);
    const char *fault = fault_of_text(node);

    *text_out = json_string_value(node);
    return fault ? json_item_fault(array, index, fault, error) : 0;
}

int json_item_number(const struct json_value *array, size_t index, uint64_t least, uint64_t most,
                     uint64_t *number_out, struct error *error)
{
    const char *fault = fault_of_number(json_array_get(array->node, index), least, most, number_out);

    return fault ? json_item_fault(array, index, fault, error) : 0;
}

int json_check_format(const struct json_value *document, const char *format, struct error *error)
{
    const json_t *node;
    int result = get(document, "format", JSON_REQUIRED, &node, error);

    if (result)
        return result;
    if (!json_is_string(node) || strcmp(json_string_value(node), format))
        return json_fault(document, "format", "not one that this program reads", error);
    return 0;
}

#define WRITER_DEPTH 8

struct json_writer {
    json_t *stack[WRITER_DEPTH]; /* [0] is owned; the others are in it */
    unsigned depth;
    bool failed;
};

struct json_writer *json_writer_create(void)
{
    struct json_writer *writer = calloc(1, sizeof(*writer));

    if (!writer)
        return NULL;
    writer->stack[0] = json_object();
    writer->failed = !writer->stack[0];
    return writer;
}

/* Takes VALUE, also when it fails. */
static void put(struct json_writer *writer, const char *member, json_t *value)
{
    json_t *into = writer && !writer->failed ? writer->stack[writer->depth] : NULL;

    if (!into)
        json_decref(value);
    else if (member ? json_object_set_new(into, member, value) : json_array_append_new(into, value))
        writer->failed = true;
}

void json_put_text(struct json_writer *writer, const char *member, const char *text)
{
    put(writer, member, json_string(text));
}

void json_put_number(struct json_writer *writer, const char *member, uint64_t number)
{
    put(writer, member, number <= INT64_MAX ? json_integer((json_int_t)number) : NULL);
}

void json_put_bool(struct json_writer *writer, const char *member, bool value)
{
    put(writer, member, json_boolean(value));
}

void json_put_null(struct json_writer *writer, const char *member)
{
    put(writer, member, json_null());
}

void json_put_digest(struct json_writer *writer, const char *member, const struct digest *digest)
{
    char text[DIGEST_TEXT];

    json_put_text(writer, member, digest_format(digest, text));
}

void json_put_time(struct json_writer *writer, const char *member, int64_t seconds)
{
    char text[TIME_TEXT];

    json_put_text(writer, member, time_format(seconds, text));
}

static void begin(struct json_writer *writer, const char *member, json_t *value)
{
    put(writer, member, value);
    if (!writer || writer->failed)
        return;
    if (writer->depth + 1 == WRITER_DEPTH)
        writer->failed = true;
    else
        writer->stack[++writer->depth] = value;
}

void json_begin_array(struct json_writer *writer, const char *member)
{
    begin(writer, member, json_array());
}

void json_begin_item(struct json_writer *writer)
{
    begin(writer, NULL, json_object());
}

void json_begin_object(struct json_writer *writer, const char *member)
{
    begin(writer, member, json_object());
}

void json_end(struct json_writer *writer)
{
    if (writer && !writer->failed)
        writer->depth--;
}

static int append(const char *text, size_t size, void *buffer)
{
    return buffer_append(buffer, text, size) ? 0 : -1;
}

char *json_print(struct json_writer *writer)
{
    struct buffer text = {0};
    bool good;

    if (!writer)
        return NULL;
    good = !writer->failed &&
           !json_dump_callback(writer->stack[0], append, &text, JSON_INDENT(2) | JSON_PRESERVE_ORDER) &&
           buffer_append(&text, "\n", 2);
    json_decref(writer->stack[0]);
    free(writer);
    if (!good)
        buffer_finish(&text);
    return (char *)text.bytes;
}
