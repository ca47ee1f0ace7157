/* machine.json: see machine.h. */
#include "format/machine.h"

#include <string.h>

#include "format/fields.h"

#define FORMAT "circular-machine-1"

/* "52:54:00:12:34:56", lower case. */
static bool is_mac(const char *text)
{
    if (strlen(text) != MACHINE_MAC_TEXT - 1)
        return false;
    for (size_t i = 0; i < MACHINE_MAC_TEXT - 1; i++)
        if (i % 3 == 2 ? text[i] != ':' : !strchr("0123456789abcdef", text[i]))
            return false;
    return true;
}

static int parse_origin(const struct json_value *document, struct machine_record *record, struct error *error)
{
    int result = json_check_format(document, FORMAT, error);

    if (!result)
        result = field_name(document, "name", JSON_REQUIRED, record->name, error);
    if (!result)
        result = json_get_text(document, "archive", JSON_REQUIRED, record->archive, sizeof(record->archive), error);
    if (!result)
        result = field_name(document, "image", JSON_REQUIRED, record->image, error);
    if (!result)
        result = field_name(document, "version", JSON_REQUIRED, record->version, error);
    if (!result)
        result = json_get_digest(document, "image_id", JSON_REQUIRED, &record->image_id, error);
    if (!result)
        result = field_name(document, "previous", JSON_OPTIONAL, record->previous, error);
    if (!result && *record->previous)
        result = json_get_digest(document, "previous_image_id", JSON_REQUIRED, &record->previous_image_id, error);
    return result;
}

static int parse_flag(const struct json_value *document, const char *member, bool *flag_out, struct error *error)
{
    uint64_t number = 0;
    int result = json_get_number(document, member, JSON_OPTIONAL, 0, 1, &number, error);

    *flag_out = number != 0;
    return result;
}

static int parse_hardware(const struct json_value *document, struct machine_record *record, struct error *error)
{
    uint64_t port = 0;
    int result = json_get_number(document, "disk_size", JSON_REQUIRED, 0, INT64_MAX, &record->disk_size, error);

    if (!result)
        result = json_get_text(document, "mac", JSON_REQUIRED, record->mac, sizeof(record->mac), error);
    if (!result && !is_mac(record->mac))
        result = json_fault(document, "mac", "not the address of a network card", error);
    if (!result)
        result = json_get_number(document, "memory", JSON_OPTIONAL, 0, INT64_MAX, &record->memory, error);
    if (!result)
        result = json_get_number(document, "cpus", JSON_OPTIONAL, 0, UINT16_MAX, &record->cpus, error);
    if (!result)
        result = parse_flag(document, "uefi", &record->uefi, error);
    if (!result)
        result = parse_flag(document, "tpm", &record->tpm, error);
    if (!result)
        result = parse_flag(document, "nested", &record->nested, error);
    if (!result)
        result = json_get_number(document, "ssh_port", JSON_OPTIONAL, 0, UINT16_MAX, &port, error);
    record->ssh_port = (uint16_t)port;
    return result;
}

static int parse_texts(const struct json_value *document, const char *member, struct arguments *texts,
                       struct error *error)
{
    struct json_value array;
    const char *text;
    size_t count = 0;
    int result =
        json_get_array(document, member, JSON_OPTIONAL, MACHINE_ARGUMENTS_MAX, &array, &count, error);

    for (size_t i = 0; !result && i < count; i++) {
        result = json_item_text(&array, i, &text, error);
        if (!result)
            arguments_add(texts, text);
    }
    if (!result && texts->failed)
        result = error_set(error, ERROR_SYSTEM, "no memory for a machine's %s", member);
    return result;
}

static int parse_words(const struct json_value *document, struct machine_record *record, struct error *error)
{
    const struct {
        const char *member;
        char *text;
        size_t size;
    } words[] = {
        {"hypervisor", record->hypervisor, sizeof(record->hypervisor)},
        {"accelerator", record->accelerator, sizeof(record->accelerator)},
        {"display", record->display, sizeof(record->display)},
        {"net", record->net, sizeof(record->net)},
        {"iso", record->iso, sizeof(record->iso)},
    };
    int result = 0;

    for (size_t i = 0; !result && i < sizeof(words) / sizeof(words[0]); i++)
        result = json_get_text(document, words[i].member, JSON_OPTIONAL, words[i].text, words[i].size, error);
    if (!result)
        result = parse_texts(document, "forwards", &record->forwards, error);
    return result ? result : parse_texts(document, "arguments", &record->arguments, error);
}

int machine_record_parse(const void *bytes, size_t size, struct machine_record *record_out, struct error *error)
{
    struct json_value document;
    int result;

    memset(record_out, 0, sizeof(*record_out));
    result = json_open("machine.json", bytes, size, MACHINE_RECORD_MAX, &document, error);
    if (result)
        return result;
    result = parse_origin(&document, record_out, error);
    if (!result)
        result = parse_hardware(&document, record_out, error);
    if (!result)
        result = parse_words(&document, record_out, error);
    json_close(&document);
    return result;
}

static void put_word(struct json_writer *writer, const char *member, const char *text)
{
    if (*text)
        json_put_text(writer, member, text);
}

static void put_texts(struct json_writer *writer, const char *member, const struct arguments *texts)
{
    json_begin_array(writer, member);
    for (size_t i = 0; i < texts->count; i++)
        json_put_text(writer, NULL, texts->items[i]);
    json_end(writer);
}

static bool texts_are_good(const struct machine_record *record)
{
    const struct arguments *lists[] = {&record->forwards, &record->arguments};

    for (size_t list = 0; list < 2; list++)
        for (size_t i = 0; i < lists[list]->count; i++)
            if (json_check_text(lists[list]->items[i], NULL))
                return false;
    return !json_check_text(record->archive, NULL) && !json_check_text(record->iso, NULL);
}

char *machine_record_format(const struct machine_record *record)
{
    struct json_writer *writer = texts_are_good(record) ? json_writer_create() : NULL;

    json_put_text(writer, "format", FORMAT);
    json_put_text(writer, "name", record->name);
    json_put_text(writer, "archive", record->archive);
    json_put_text(writer, "image", record->image);
    json_put_text(writer, "version", record->version);
    json_put_digest(writer, "image_id", &record->image_id);
    if (*record->previous) {
        json_put_text(writer, "previous", record->previous);
        json_put_digest(writer, "previous_image_id", &record->previous_image_id);
    }
    json_put_number(writer, "disk_size", record->disk_size);
    json_put_text(writer, "mac", record->mac);
    json_put_number(writer, "memory", record->memory);
    json_put_number(writer, "cpus", record->cpus);
    json_put_number(writer, "uefi", record->uefi);
    json_put_number(writer, "tpm", record->tpm);
    json_put_number(writer, "nested", record->nested);
    put_word(writer, "hypervisor", record->hypervisor);
    put_word(writer, "accelerator", record->accelerator);
    put_word(writer, "display", record->display);
    put_word(writer, "net", record->net);
    put_word(writer, "iso", record->iso);
    put_texts(writer, "forwards", &record->forwards);
    put_texts(writer, "arguments", &record->arguments);
    json_put_number(writer, "ssh_port", record->ssh_port);
    return json_print(writer);
}

void machine_record_finish(struct machine_record *record)
{
    arguments_finish(&record->forwards);
    arguments_finish(&record->arguments);
}
