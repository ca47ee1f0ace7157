/* QEMU: see qemu.h. */
#include "vm/qemu.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/process.h"

static int missing(const char *what, const char *package, struct error *error)
{
    return error_set(error, ERROR_UNSUPPORTED, "%s is missing: install the Debian package %s (apt install %s)", what,
                     package, package);
}

int qemu_find(const char *search_path, struct qemu_programs *programs_out, struct error *error)
{
    static const char *const firmware[] = {"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
                                           "/usr/local/share/qemu/bios-256k.bin"};
    bool found = false;

    if (!process_find(search_path, "qemu-system-x86_64", programs_out->system))
        return missing("qemu-system-x86_64", "qemu-system-x86", error);
    if (!process_find(search_path, "qemu-img", programs_out->image))
        return missing("qemu-img", "qemu-utils", error);
    for (size_t i = 0; i < sizeof(firmware) / sizeof(firmware[0]); i++)
        found = found || !access(firmware[i], R_OK);
    return found ? 0 : missing("the BIOS for virtual machines (bios-256k.bin)", "seabios", error);
}

int qemu_make_overlay(const struct qemu_programs *programs, const char *disk, const char *overlay,
                      struct error *error)
{
    const char *arguments[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, overlay, NULL};

    return process_run(programs->image, arguments, NULL, error);
}

struct list {
    char **items;
    size_t count;
    bool failed;
};

static void add(struct list *list, const char *text)
{
    char **items = list->failed ? NULL : reallocarray(list->items, list->count + 2, sizeof(*items));

    list->failed = !items;
    if (!items)
        return;
    list->items = items;
    items[list->count] = strdup(text);
    list->failed = !items[list->count];
    items[++list->count] = NULL;
}

__attribute__((format(printf, 3, 4))) static void add_option(struct list *list, const char *option,
                                                             const char *format, ...)
{
    auto_free char *value = NULL;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&value, format, arguments) < 0)
        value = NULL;
    va_end(arguments);
    add(list, option);
    if (value)
        add(list, value);
    else
        list->failed = true;
}

/* As a value inside one of QEMU's comma-separated options: commas are doubled. Heap. */
static char *escape_commas(const char *text)
{
    char *escaped = malloc(2 * strlen(text) + 1), *to = escaped;

    for (; escaped && *text; text++) {
        if (*text == ',')
            *to++ = ',';
        *to++ = *text;
    }
    if (escaped)
        *to = '\0';
    return escaped;
}

char **qemu_arguments(const struct qemu_programs *programs, const struct qemu_settings *settings)
{
    auto_free char *overlay = escape_commas(settings->overlay);
    auto_free char *name = escape_commas(settings->name);
    struct list list = {0};

    if (!overlay || !name)
        return NULL;
    add(&list, programs->system);
    add_option(&list, "-name", "%s", name);
    add_option(&list, "-machine", "q35");
    add_option(&list, "-accel", "%s", settings->accelerator);
    add_option(&list, "-cpu", "max");
    add_option(&list, "-m", "%llu", (unsigned long long)(settings->memory_bytes / MIB));
    add_option(&list, "-smp", "%u", settings->cpu_count);
    add(&list, "-nographic");
    add_option(&list, "-serial", "mon:stdio");
    add(&list, "-no-reboot");
    /* What is written dies with the machine: nothing need reach the disk. */
    add_option(&list, "-drive", "file=%s,if=virtio,format=qcow2,cache=unsafe,discard=unmap", overlay);
    /* Without its ROM: what boots is the disk, never the network. */
    add_option(&list, "-netdev", "user,id=network");
    add_option(&list, "-device", "virtio-net-pci,netdev=network,romfile=");
    add_option(&list, "-device", "virtio-rng-pci");
    for (size_t i = 0; i < settings->extra_count; i++)
        add(&list, settings->extra[i]);
    if (list.failed) {
        qemu_free_arguments(list.items);
        return NULL;
    }
    return list.items;
}

void qemu_free_arguments(char **arguments)
{
    for (char **at = arguments; at && *at; at++)
        free(*at);
    free(arguments);
}
