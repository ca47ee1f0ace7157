/* circular accel: what this host can run machines on, found out by trying. */
#include <stdio.h>

#include "base/cleanup.h"
#include "cmd/accelerators.h"

struct accel_options {
    bool again;
};

static const struct option accel_table[] = {
    {"again", 0, OPTION_FLAG, NULL, "try everything anew, also what was tried since the host was booted",
     offsetof(struct accel_options, again)},
    {0},
};

static void print_json(const struct accelerator *list, const char *accelerator)
{
    struct emit emit = {0};

    emit_open(&emit, NULL, '{');
    emit_text(&emit, "auto", accelerator);
    emit_open(&emit, "accelerators", '[');
    for (int kind = 0; kind < ACCELERATOR_COUNT; kind++) {
        emit_open(&emit, NULL, '{');
        emit_text(&emit, "name", accelerator_name((enum accelerator_kind)kind));
        emit_bool(&emit, "works", list[kind].works);
        emit_text(&emit, "reason", list[kind].text);
        emit_close(&emit, '}');
    }
    emit_close(&emit, ']');
    emit_close(&emit, '}');
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct accel_options *options = context->options;
    cleanup(host_settings_finish) struct host_settings settings;
    struct accelerator list[ACCELERATOR_COUNT];

    (void)count;
    (void)arguments;
    host_settings_init(&settings);
    for (int kind = 0; kind < ACCELERATOR_COUNT; kind++) {
        /* What a nested one needs was tried by then. */
        settings.accelerator.again = options->again && kind != ACCELERATOR_NESTED;
        accelerator_try(&settings.accelerator, (enum accelerator_kind)kind, &list[kind]);
        report_line(context, "%-7s%-4s %s", accelerator_name((enum accelerator_kind)kind),
                    list[kind].works ? "yes" : "no", list[kind].text);
        fflush(stdout);
    }
    if (context->json)
        print_json(list, list[ACCELERATOR_KVM].works ? "kvm" : "tcg");
    return EXIT_OK;
}

const struct command command_accel = {
    .name = "accel",
    .usage = (const char *const[]){"", NULL},
    .summary = "tell what this host can run machines on, found out by trying",
    .options = accel_table,
    .options_size = sizeof(struct accel_options),
    .json = true,
    .run = run,
};
