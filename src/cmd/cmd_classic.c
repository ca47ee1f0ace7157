/*
 * The words of VMKnoppix (2006 to 2008): each is a thin name over a command of today, says which, and runs it. The
 * program is called by such a name through a link.
 */
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arguments.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/cmd.h"
#include "cmd/private.h"

#define CDROM     "file:///dev/cdrom"
#define XEN_VTPM  "xen_vtpm" /* a file that is there between `xen_vtpm start` and `xen_vtpm stop` */

/* The original wrote file://tmp/knoppix.iso for /tmp/knoppix.iso. */
static void add_word(struct arguments *words, const char *word)
{
    static const char scheme[] = "file://";
    size_t length = sizeof(scheme) - 1;

    if (!strncmp(word, scheme, length) && word[length] && word[length] != '/')
        arguments_add_format(words, "file:///%s", word + length);
    else
        arguments_add(words, word);
}

/* "httpfuse-kvm is now: circular boot --accel auto URL"; then that. */
static int hand_over(const struct context *context, const struct arguments *words)
{
    if (words->failed)
        return report_memory(context);
    fprintf(stderr, "%s is now: circular", context->command->name);
    for (size_t i = 0; i < words->count; i++)
        fprintf(stderr, " %s", words->items[i]);
    fputc('\n', stderr);
    return command_run_words(context, (int)words->count, words->items);
}

/* Does any of the words name a disk? Those that follow an option may be its value: the command itself knows. */
static bool names_something(int count, char **words)
{
    for (int i = 0; i < count; i++)
        if (*words[i] != '-')
            return true;
    return false;
}

static int boot(const struct context *context, const char *const *prefix, const char *otherwise, int count,
                char **words)
{
    cleanup(arguments_finish) struct arguments list = {0};

    arguments_add(&list, "boot");
    for (; *prefix; prefix++)
        arguments_add(&list, *prefix);
    for (int i = 0; i < count; i++)
        add_word(&list, words[i]);
    if (otherwise && !names_something(count, words))
        arguments_add(&list, otherwise);
    return hand_over(context, &list);
}

static int run_httpfuse_kvm(const struct context *context, int count, char **words)
{
    return boot(context, (const char *const[]){"--accel", "auto", NULL}, NULL, count, words);
}

static int run_httpfuse_qemu(const struct context *context, int count, char **words)
{
    return boot(context, (const char *const[]){"--accel", "tcg", NULL}, NULL, count, words);
}

static int run_httpfuse_kqemu(const struct context *context, int count, char **words)
{
    return boot(context, (const char *const[]){"--accel", "kqemu", NULL}, NULL, count, words);
}

/* Was `xen_vtpm start` said since this host was booted? */
static bool xen_has_tpm(void)
{
    auto_free char *path = private_file_path(PRIVATE_RUNTIME, XEN_VTPM);

    return path && !access(path, F_OK);
}

static int boot_hvm(const struct context *context, const char *otherwise, int count, char **words)
{
    const char *const with[] = {"--vm", "xen-hvm", "--tpm", NULL}, *const without[] = {"--vm", "xen-hvm", NULL};

    return boot(context, xen_has_tpm() ? with : without, otherwise, count, words);
}

static int run_httpfuse_hvm(const struct context *context, int count, char **words)
{
    return boot_hvm(context, NULL, count, words);
}

static int run_knoppix_hvm(const struct context *context, int count, char **words)
{
    return boot_hvm(context, CDROM, count, words);
}

static int run_knoppix_u(const struct context *context, int count, char **words)
{
    return boot(context, (const char *const[]){"--vm", "xen", NULL}, NULL, count, words);
}

static int run_umlknx(const struct context *context, int count, char **words)
{
    return boot(context, (const char *const[]){"--vm", "uml", NULL}, NULL, count, words);
}

/* Its options have one dash; what is left goes to boot. */
static int run_qemu_knoppix(const struct context *context, int count, char **words)
{
    const char *accelerator = "auto", *prefix[4];
    bool tpm = false;
    int left = 0;

    for (int i = 0; i < count; i++) {
        if (!strcmp(words[i], "-no-kvm") || !strcmp(words[i], "-no-module"))
            accelerator = "tcg";
        else if (!strcmp(words[i], "-tpm"))
            tpm = true;
        else if (strcmp(words[i], "-no-kqemu")) /* there is none */
            words[left++] = words[i];
    }
    prefix[0] = "--accel";
    prefix[1] = accelerator;
    prefix[2] = tpm ? "--tpm" : NULL;
    prefix[3] = NULL;
    return boot(context, prefix, CDROM, left, words);
}

static int run_xen_vtpm(const struct context *context, int count, char **words)
{
    auto_free char *path = private_file_path(PRIVATE_RUNTIME, XEN_VTPM);
    struct error error = ERROR_INIT;
    bool start = count == 1 && !strcmp(words[0], "start");

    if (!start && (count != 1 || strcmp(words[0], "stop")))
        return report_usage(context, "start or stop is needed");
    if (!path) {
        error_set(&error, ERROR_SYSTEM, "there is no folder for what this user runs");
        return report_error(context, &error);
    }
    if (!start) {
        unlink(path);
        report_line(context, "xen_vtpm: knoppixHVM and httpfuse-hvm start machines without a TPM again");
        return EXIT_OK;
    }
    if (file_write_atomic(AT_FDCWD, path, "", 0, FILE_PRIVATE, &error))
        return report_error(context, &error);
    report_line(context, "xen_vtpm: each machine has a TPM of its own, which starts and ends with it; from now on "
                         "knoppixHVM and httpfuse-hvm are 'circular boot --vm xen-hvm --tpm'");
    return EXIT_OK;
}

static int run_tpmd(const struct context *context, int count, char **words)
{
    cleanup(arguments_finish) struct arguments list = {0};

    if (count < 1 || count > 2 || strcmp(words[0], "clear"))
        return report_usage(context, "clear is needed, and may be followed by a machine's name");
    if (count == 1) {
        report_line(context, "tpmd: a machine of 'circular boot --tpm' has a new TPM each time, nothing is to be "
                             "cleared; for one of 'circular vm': tpmd clear NAME");
        return EXIT_OK;
    }
    arguments_add(&list, "vtpm");
    arguments_add(&list, "reset");
    arguments_add(&list, "--yes");
    arguments_add(&list, words[1]);
    return hand_over(context, &list);
}

#define CLASSIC(variable, its_name, its_usage, its_summary, function)                                                 \
    const struct command command_##variable = {                                                                      \
        .name = its_name, .usage = (const char *const[]){its_usage, NULL}, .summary = its_summary, .hidden = true,    \
        .unparsed = true, .run = function}

CLASSIC(httpfuse_kvm, "httpfuse-kvm", "[URL[/NAME[@VERSION]]]",
        "boot a published disk in QEMU, with KVM where it works", run_httpfuse_kvm);
CLASSIC(httpfuse_qemu, "httpfuse-qemu", "[URL[/NAME[@VERSION]]]",
        "boot a published disk in QEMU, which works everywhere", run_httpfuse_qemu);
CLASSIC(httpfuse_kqemu, "httpfuse-kqemu", "[URL[/NAME[@VERSION]]]",
        "boot a published disk in QEMU; KQEMU itself is history", run_httpfuse_kqemu);
CLASSIC(httpfuse_hvm, "httpfuse-hvm", "[URL[/NAME[@VERSION]]]",
        "boot a published disk in a Xen domain with hardware's help", run_httpfuse_hvm);
CLASSIC(qemu_knoppix, "qemu-knoppix.sh", "[-no-kvm] [-no-kqemu] [-no-module] [-tpm] [ISO]",
        "boot the DVD, or a CD-ROM image by URL, in QEMU", run_qemu_knoppix);
CLASSIC(knoppix_u, "knoppixU", "[URL[/NAME[@VERSION]]]", "boot a published disk in a paravirtual Xen domain",
        run_knoppix_u);
CLASSIC(knoppix_hvm, "knoppixHVM", "[ISO]", "boot the DVD, or a CD-ROM image by URL, in a Xen domain", run_knoppix_hvm);
CLASSIC(xen_vtpm, "xen_vtpm", "start|stop", "give Xen machines that start from now on TPMs, or not", run_xen_vtpm);
CLASSIC(umlknx, "umlknx.sh", "[URL[/NAME[@VERSION]]]", "boot a published disk under User-mode Linux", run_umlknx);
CLASSIC(tpmd, "tpmd", "clear [NAME]", "give a machine a new TPM", run_tpmd);
