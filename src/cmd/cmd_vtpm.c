/* circular vtpm: the TPMs of machines, looked at, made before the first start, and made anew. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cmd/accelerators.h"
#include "cmd/vm.h"
#include "vm/tpm.h"

struct vtpm_options {
    bool yes;
};

static const struct option reset_table[] = {
    {"yes", 'y', OPTION_FLAG, NULL, "do not ask", offsetof(struct vtpm_options, yes)},
    {0},
};

/* A machine's TPM, and what it points to. */
struct vtpm {
    struct vm vm;
    struct tpm tpm;
    char *folder, *ca_folder;
};
#define VTPM_INIT {.vm = VM_INIT}

static void vtpm_finish(struct vtpm *vtpm)
{
    free(vtpm->folder);
    free(vtpm->ca_folder);
    vm_close(&vtpm->vm);
}

/* LOCKED: the machine does not run, and nobody else starts it. */
static int vtpm_open(const struct context *context, const char *name, bool locked, struct vtpm *vtpm)
{
    int status = vm_open(context, name, locked, &vtpm->vm);

    if (status != EXIT_OK)
        return status;
    vtpm->folder = machine_path(&vtpm->vm.folder, MACHINE_FILE_TPM);
    vtpm->ca_folder = tpm_authority_folder();
    vtpm->tpm = (struct tpm){
        .search_path = program_search_path(),
        .folder = vtpm->folder,
        .ca_folder = vtpm->ca_folder,
        .name = vtpm->vm.record.name,
    };
    return vtpm->folder && vtpm->ca_folder ? EXIT_OK : report_memory(context);
}

static void print_text(const struct context *context, const struct vtpm *vtpm,
                       const struct tpm_description *description)
{
    char created[TIME_TEXT];

    report_line(context, "machine     %s%s", vtpm->tpm.name, description->in_use ? ", in use" : "");
    report_line(context, "kind        TPM 2.0 (%s), PCR banks " TPM_BANKS,
                vtpm->vm.record.uefi ? "CRB, with UEFI" : "TIS, with BIOS");
    report_line(context, "made        %s", time_format(description->created, created));
    report_line(context, "EK subject  %s",
                *description->subject ? description->subject : "unknown (certtool is missing)");
    report_line(context, "EK issuer   %s",
                *description->issuer ? description->issuer : "unknown (certtool is missing)");
    report_line(context, "EK file     %s/" TPM_CERTIFICATE, vtpm->folder);
    report_line(context, "authority   %s/" TPM_CA_ROOT, vtpm->ca_folder);
    report_line(context, "            %s/" TPM_CA_ISSUER, vtpm->ca_folder);
}

static void emit_path(struct emit *emit, const char *key, const char *folder, const char *name)
{
    auto_free char *path = path_join(folder, name);

    emit_text(emit, key, path);
}

static void print_json(const struct vtpm *vtpm, const struct tpm_description *description)
{
    struct emit emit = {0};
    char created[TIME_TEXT];

    emit_open(&emit, NULL, '{');
    emit_text(&emit, "machine", vtpm->tpm.name);
    emit_bool(&emit, "in_use", description->in_use);
    emit_text(&emit, "interface", vtpm->vm.record.uefi ? "crb" : "tis");
    emit_text(&emit, "banks", TPM_BANKS);
    emit_text(&emit, "created", time_format(description->created, created));
    emit_text(&emit, "ek_subject", *description->subject ? description->subject : NULL);
    emit_text(&emit, "ek_issuer", *description->issuer ? description->issuer : NULL);
    emit_path(&emit, "ek_certificate", vtpm->folder, TPM_CERTIFICATE);
    emit_path(&emit, "ca_root", vtpm->ca_folder, TPM_CA_ROOT);
    emit_path(&emit, "ca_issuer", vtpm->ca_folder, TPM_CA_ISSUER);
    emit_close(&emit, '}');
}

static int tell(const struct context *context, const struct vtpm *vtpm)
{
    struct tpm_description description;
    struct error error = ERROR_INIT;

    if (tpm_describe(&vtpm->tpm, &description, &error))
        return report_error(context, &error);
    if (context->json)
        print_json(vtpm, &description);
    else
        print_text(context, vtpm, &description);
    return EXIT_OK;
}

/* The machine has a TPM from now on. */
static int keep_in_record(struct vtpm *vtpm, struct error *error)
{
    if (vtpm->vm.record.tpm)
        return 0;
    vtpm->vm.record.tpm = true;
    return machine_write(&vtpm->vm.folder, &vtpm->vm.record, error);
}

static int run_new(const struct context *context, int count, char **arguments)
{
    cleanup(vtpm_finish) struct vtpm vtpm = VTPM_INIT;
    struct error error = ERROR_INIT;
    int status = vtpm_open(context, arguments[0], true, &vtpm);

    (void)count;
    if (status != EXIT_OK)
        return status;
    if (tpm_create(&vtpm.tpm, &error) || keep_in_record(&vtpm, &error))
        return report_error(context, &error);
    return tell(context, &vtpm);
}

static int run_info(const struct context *context, int count, char **arguments)
{
    cleanup(vtpm_finish) struct vtpm vtpm = VTPM_INIT;
    int status = vtpm_open(context, arguments[0], false, &vtpm);

    (void)count;
    return status == EXIT_OK ? tell(context, &vtpm) : status;
}

static int run_reset(const struct context *context, int count, char **arguments)
{
    const struct vtpm_options *options = context->options;
    cleanup(vtpm_finish) struct vtpm vtpm = VTPM_INIT;
    struct error error = ERROR_INIT;
    int status = vtpm_open(context, arguments[0], true, &vtpm);

    (void)count;
    if (status == EXIT_OK && !tpm_exists(&vtpm.tpm)) {
        error_set(&error, ERROR_NOT_FOUND, "machine %s has no TPM", arguments[0]);
        return report_error(context, &error);
    }
    if (status == EXIT_OK)
        status = vm_confirm(context, options->yes, &vtpm.vm, "lose all keys and secrets in the TPM of");
    if (status != EXIT_OK)
        return status;
    if (tpm_reset(&vtpm.tpm, &error))
        return report_error(context, &error);
    return tell(context, &vtpm);
}

const struct command command_vtpm_new = {
    .name = "vtpm new",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "give a machine a TPM of its own",
    .json = true,
    .run = run_new,
};

const struct command command_vtpm_info = {
    .name = "vtpm info",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "tell what is known of a machine's TPM",
    .json = true,
    .run = run_info,
};

const struct command command_vtpm_reset = {
    .name = "vtpm reset",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "give a machine a new TPM in the place of its old one, which is lost",
    .options = reset_table,
    .options_size = sizeof(struct vtpm_options),
    .json = true,
    .run = run_reset,
};
