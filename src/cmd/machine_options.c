/* From the options of machines to a plan: see machine_options.h. */
#include "cmd/machine_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/accelerators.h"

#define MEMORY_DEFAULT (2 * GIB)
#define CPUS_MAX       255
#define BRIDGE_MAX     15 /* IFNAMSIZ less the NUL */

/* The index of WORD (NULL: 0) in COUNT WORDS; -1: none. */
static int find_word(const char *word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!word || !strcmp(word, words[i]))
            return (int)i;
    return -1;
}

static int read_display(const struct context *context, const char *word, struct machine_plan *plan)
{
    static const char *const words[] = {[MACHINE_DISPLAY_NONE] = "none", [MACHINE_DISPLAY_GTK] = "gtk",
                                        [MACHINE_DISPLAY_VNC] = "vnc", [MACHINE_DISPLAY_SPICE] = "spice"};
    int index = find_word(word, words, sizeof(words) / sizeof(words[0]));

    if (index < 0)
        return report_usage(context, "--display is none, gtk, vnc or spice, not '%s'", word);
    plan->display = (enum machine_display)index;
    return EXIT_OK;
}

static int read_net(const struct context *context, const char *word, struct machine_plan *plan)
{
    static const char prefix[] = "bridge=";

    if (!word || !strcmp(word, "user"))
        return EXIT_OK;
    if (!strcmp(word, "none")) {
        plan->net = MACHINE_NET_NONE;
        return EXIT_OK;
    }
    if (strncmp(word, prefix, sizeof(prefix) - 1) || !word[sizeof(prefix) - 1] ||
        strlen(word) - (sizeof(prefix) - 1) > BRIDGE_MAX || strpbrk(word, ",/ \t\n"))
        return report_usage(context, "--net is user, none or bridge=NAME, not '%s'", word);
    plan->net = MACHINE_NET_BRIDGE;
    plan->bridge = word + sizeof(prefix) - 1;
    return EXIT_OK;
}

/* A port number that ends at END. 0: none. */
static uint16_t read_port(const char *text, char end, const char **rest_out)
{
    unsigned long port;
    char *rest;

    if (*text < '1' || *text > '9')
        return 0;
    port = strtoul(text, &rest, 10);
    *rest_out = rest + 1;
    return *rest == end && port <= UINT16_MAX ? (uint16_t)port : 0;
}

static int read_forwards(const struct context *context, const struct text_list *list, struct machine_request *request)
{
    if (list->count > MACHINE_FORWARDS_MAX)
        return report_usage(context, "%d ports can be forwarded, no more", MACHINE_FORWARDS_MAX);
    for (size_t i = 0; i < list->count; i++) {
        struct machine_forward *forward = &request->forwards[i];
        const char *rest = "";

        forward->host_port = read_port(list->items[i], ':', &rest);
        forward->guest_port = forward->host_port ? read_port(rest, '\0', &rest) : 0;
        if (!forward->guest_port)
            return report_usage(context, "--forward is HOST:GUEST, two ports such as 2222:22, not '%s'",
                                list->items[i]);
    }
    request->plan.forwards = request->forwards;
    request->plan.forward_count = list->count;
    return EXIT_OK;
}

static int no_file(const struct context *context, const char *path)
{
    struct error error = ERROR_INIT;

    error_set_errno(&error, errno, "%s cannot be used", path);
    return report_error(context, &error);
}

static int read_serial(const struct context *context, const char *word, struct machine_request *request)
{
    auto_free char *folder = NULL;

    if (!word || !strcmp(word, "terminal"))
        return EXIT_OK;
    if (!strcmp(word, "none")) {
        request->plan.serial = MACHINE_SERIAL_NONE;
        return EXIT_OK;
    }
    folder = *word == '/' ? strdup("") : getcwd(NULL, 0);
    if (!folder || !(request->serial_path = *word == '/' ? strdup(word) : path_join(folder, word)))
        return no_file(context, word);
    request->plan.serial = MACHINE_SERIAL_FILE;
    request->plan.serial_path = request->serial_path;
    return EXIT_OK;
}

static int read_iso(const struct context *context, const char *path, struct machine_request *request)
{
    if (!path || !*path)
        return EXIT_OK;
    if (location_folder(path) != path) { /* it has a scheme */
        request->iso_url = path;
        return EXIT_OK;
    }
    request->iso = realpath(path, NULL);
    if (!request->iso || access(request->iso, R_OK))
        return no_file(context, path);
    request->plan.iso = request->iso;
    return EXIT_OK;
}

static int read_numbers(const struct context *context, const struct machine_options *options,
                        struct machine_plan *plan)
{
    if (options->cpus > CPUS_MAX)
        return report_usage(context, "--cpus can be %d at most", CPUS_MAX);
    if (options->memory && options->memory < MIB)
        return report_usage(context, "--memory is a size such as 2G; %llu bytes are too few",
                            (unsigned long long)options->memory);
    if (options->uefi && options->bios)
        return report_usage(context, "--uefi and --bios exclude each other");
    plan->memory_bytes = options->memory ? options->memory : MEMORY_DEFAULT;
    plan->cpu_count = options->cpus ? (unsigned)options->cpus : 1;
    plan->firmware = options->uefi ? MACHINE_UEFI : MACHINE_BIOS;
    plan->nested = options->nested;
    return EXIT_OK;
}

static int read_accelerator(const struct context *context, const char *word, struct machine_request *request)
{
    /* Only QEMU has a choice. */
    if (strcmp(request->hypervisor->name, "qemu")) {
        request->plan.accelerator = "tcg";
        return EXIT_OK;
    }
    return choose_accelerator(context, word, &request->plan.accelerator);
}

/* What lies elsewhere: the authority for TPMs, the module for User-mode Linux. */
static int read_places(const struct context *context, bool tpm, struct machine_request *request)
{
    if (tpm && !(request->tpm_ca = tpm_authority_folder()))
        return report_memory(context);
    request->plan.tpm = tpm;
    request->plan.tpm_ca = request->tpm_ca;
    request->uml_preload = uml_preload_path();
    request->plan.uml_preload = request->uml_preload;
    return EXIT_OK;
}

int machine_options_read(const struct context *context, const struct machine_options *options,
                         struct machine_request *request_out)
{
    struct error error = ERROR_INIT;
    int status;

    *request_out = (struct machine_request)MACHINE_REQUEST_INIT;
    request_out->plan.search_path = program_search_path();
    if (hypervisor_choose(options->hypervisor, &request_out->hypervisor, &error))
        return report_usage(context, "--vm: %s", error.message);
    status = read_numbers(context, options, &request_out->plan);
    if (status == EXIT_OK)
        status = read_accelerator(context, options->accelerator, request_out);
    if (status == EXIT_OK)
        status = read_display(context, options->display, &request_out->plan);
    if (status == EXIT_OK)
        status = read_net(context, options->net, &request_out->plan);
    if (status == EXIT_OK)
        status = read_forwards(context, &options->forwards, request_out);
    if (status == EXIT_OK)
        status = read_serial(context, options->serial, request_out);
    if (status == EXIT_OK)
        status = read_places(context, options->tpm, request_out);
    return status == EXIT_OK ? read_iso(context, options->iso, request_out) : status;
}

int machine_request_open(const struct context *context, struct machine_request *request)
{
    const struct shared_disk_wish wish = {.text = request->iso_url, .file = true};
    struct error error = ERROR_INIT;
    int status = request->iso_url ? shared_disk_open(context, &wish, &request->iso_disk) : EXIT_OK;

    if (status != EXIT_OK || !request->iso_url)
        return status;
    if (!request->iso_disk.iso) {
        error_set(&error, ERROR_UNSUPPORTED, "%s is no CD-ROM image", request->iso_disk.archive);
        return report_error(context, &error);
    }
    request->plan.iso = request->iso_disk.path;
    return EXIT_OK;
}

void machine_request_finish(struct machine_request *request)
{
    shared_disk_close(&request->iso_disk);
    free(request->iso);
    free(request->serial_path);
    free(request->tpm_ca);
    free(request->uml_preload);
    *request = (struct machine_request)MACHINE_REQUEST_INIT;
}

bool machine_display_has_socket(const struct machine_plan *plan)
{
    return plan->display == MACHINE_DISPLAY_VNC || plan->display == MACHINE_DISPLAY_SPICE;
}

void machine_tell_display(const struct context *context, const struct machine_plan *plan)
{
    if (machine_display_has_socket(plan))
        report_line(context, "the display is %s at the socket %s",
                    plan->display == MACHINE_DISPLAY_VNC ? "VNC" : "SPICE", plan->display_socket);
}

int machine_check_architecture(const char *what, const char *architecture, struct error *error)
{
    const char *const good[] = {"", "amd64", "x86_64", "i386", "all"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!strcmp(architecture, good[i]))
            return 0;
    return error_set(error, ERROR_UNSUPPORTED, "%s is for %s; machines here are amd64", what, architecture);
}
