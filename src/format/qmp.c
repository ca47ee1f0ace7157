/* QMP's messages: see qmp.h. */
#include "format/qmp.h"

#include <stdio.h>
#include <string.h>

static int open_line(const void *bytes, size_t size, struct json_value *document_out, struct error *error)
{
    return json_open("the machine's answer", bytes, size, QMP_LINE_MAX, document_out, error);
}

/* A text that need not be short: cut to CAPACITY. */
static int get_cut_text(const struct json_value *object, const char *member, char *text_out, size_t capacity,
                        struct error *error)
{
    char text[4096] = "";
    int result = json_get_text(object, member, JSON_OPTIONAL, text, sizeof(text), error);

    snprintf(text_out, capacity, "%s", text);
    return result;
}

static int parse_failure(const struct json_value *document, struct qmp_message *message, struct error *error)
{
    struct json_value failure;
    int result = json_get_object(document, "error", &failure, error);

    if (!result)
        result = get_cut_text(&failure, "class", message->word, sizeof(message->word), error);
    return result ? result : get_cut_text(&failure, "desc", message->text, sizeof(message->text), error);
}

/* Which of the messages that there are. */
static int parse_kind(const struct json_value *document, struct qmp_message *message, struct error *error)
{
    if (json_has(document, "event")) {
        message->kind = QMP_EVENT;
        return get_cut_text(document, "event", message->word, sizeof(message->word), error);
    }
    if (json_has(document, "error")) {
        message->kind = QMP_ERROR;
        return parse_failure(document, message, error);
    }
    if (!json_has(document, "return") && !json_has(document, "QMP"))
        return json_fault(document, NULL, "none of the messages that there are", error);
    message->kind = json_has(document, "return") ? QMP_RETURN : QMP_GREETING;
    return 0;
}

int qmp_parse(const void *bytes, size_t size, struct qmp_message *message_out, struct error *error)
{
    struct json_value document;
    int result = open_line(bytes, size, &document, error);

    memset(message_out, 0, sizeof(*message_out));
    if (result)
        return result;
    result = json_get_number(&document, "id", JSON_OPTIONAL, 0, INT64_MAX, &message_out->id, error);
    if (!result)
        result = parse_kind(&document, message_out, error);
    json_close(&document);
    return result;
}

int qmp_parse_status(const void *bytes, size_t size, char status_out[QMP_WORD], struct error *error)
{
    struct json_value document, answer;
    int result = open_line(bytes, size, &document, error);

    if (result)
        return result;
    result = json_get_object(&document, "return", &answer, error);
    if (result == ERROR_NOT_FOUND)
        result = json_fault(&document, "return", "not there", error);
    if (!result)
        result = json_get_text(&answer, "status", JSON_REQUIRED, status_out, QMP_WORD, error);
    json_close(&document);
    return result;
}

static int parse_block(const struct json_value *item, struct qmp_block *block, struct error *error)
{
    struct json_value statistics;
    const struct {
        const char *member;
        uint64_t *number;
    } numbers[] = {
        {"rd_bytes", &block->read_bytes},
        {"rd_operations", &block->read_count},
        {"wr_bytes", &block->write_bytes},
        {"wr_operations", &block->write_count},
    };
    int result = get_cut_text(item, "node-name", block->node, sizeof(block->node), error);

    if (!result)
        result = json_get_object(item, "stats", &statistics, error);
    if (result == ERROR_NOT_FOUND)
        result = json_fault(item, "stats", "not there", error);
    for (size_t i = 0; !result && i < sizeof(numbers) / sizeof(numbers[0]); i++)
        result = json_get_number(&statistics, numbers[i].member, JSON_OPTIONAL, 0, INT64_MAX, numbers[i].number, error);
    return result;
}

int qmp_parse_blocks(const void *bytes, size_t size, struct qmp_block blocks_out[QMP_BLOCKS_MAX], size_t *count_out,
                     struct error *error)
{
    struct json_value document, array, item;
    size_t count = 0;
    int result = open_line(bytes, size, &document, error);

    *count_out = 0;
    if (result)
        return result;
    result = json_get_array(&document, "return", JSON_REQUIRED, 10 * QMP_BLOCKS_MAX, &array, &count, error);
    for (size_t i = 0; !result && i < count && *count_out < QMP_BLOCKS_MAX; i++) {
        struct qmp_block *block = &blocks_out[*count_out];

        memset(block, 0, sizeof(*block));
        result = json_item_object(&array, i, &item, error);
        if (!result)
            result = parse_block(&item, block, error);
        if (!result && *block->node)
            ++*count_out;
    }
    json_close(&document);
    return result;
}

struct json_writer *qmp_command(const char *name, uint64_t id)
{
    struct json_writer *writer = json_writer_create();

    json_put_text(writer, "execute", name);
    json_put_number(writer, "id", id);
    json_begin_object(writer, "arguments");
    return writer;
}

size_t qmp_command_length(const void *bytes, size_t size)
{
    const char *text = bytes;
    bool in_text = false;
    unsigned depth = 0;

    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            in_text = !in_text;
        else if (in_text)
            i += text[i] == '\\'; /* what follows is part of the text */
        else if (text[i] == '{')
            depth++;
        else if (text[i] == '}' && depth <= 1)
            return i + 1;
        else if (text[i] == '}')
            depth--;
    }
    return 0;
}

int qmp_parse_command(const void *bytes, size_t size, char name_out[QMP_WORD], uint64_t *id_out, struct error *error)
{
    struct json_value document;
    int result = json_open("the command", bytes, size, QMP_LINE_MAX, &document, error);

    *id_out = 0;
    if (result)
        return result;
    result = json_get_number(&document, "id", JSON_OPTIONAL, 0, INT64_MAX, id_out, error);
    if (!result)
        result = json_get_text(&document, "execute", JSON_REQUIRED, name_out, QMP_WORD, error);
    json_close(&document);
    return result;
}
