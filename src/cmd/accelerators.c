/* What src/vm must be told of this host: see accelerators.h. */
#include "cmd/accelerators.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/private.h"

#define PRELOAD "uml_preload.so"

/* In the build folder, src/cmd/circular stands beside src/vm/uml_preload.so. */
static char *built_preload(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *slash;

    if (length <= 0)
        return NULL;
    path[length] = '\0';
    slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    return path_join(path, "../vm/" PRELOAD);
}

char *uml_preload_path(void)
{
    auto_free char *path = strdup(CIRCULAR_MODULES "/" PRELOAD);

    if (path && access(path, R_OK)) {
        free(path);
        path = built_preload();
    }
    return path && !access(path, R_OK) ? realpath(path, NULL) : NULL;
}

const char *program_search_path(void)
{
    const char *path = getenv("PATH");

    return path ? path : "/usr/bin:/bin";
}

char *tpm_authority_folder(void)
{
    auto_free char *state = client_state_folder();

    return state ? path_join(state, "tpm-ca") : NULL;
}

void host_settings_init(struct host_settings *settings)
{
    *settings = (struct host_settings){
        .memory = private_file_path(PRIVATE_RUNTIME, "accelerators"),
        .uml_preload = uml_preload_path(),
    };
    settings->accelerator.search_path = program_search_path();
    settings->accelerator.memory = settings->memory;
    settings->accelerator.uml_preload = settings->uml_preload;
}

void host_settings_finish(struct host_settings *settings)
{
    free(settings->memory);
    free(settings->uml_preload);
    *settings = (struct host_settings){0};
}

int choose_accelerator(const struct context *context, const char *word, const char **name_out)
{
    cleanup(host_settings_finish) struct host_settings settings;
    char note[ACCELERATOR_TEXT];
    struct error error = ERROR_INIT;
    int result;

    host_settings_init(&settings);
    result = accelerator_find(&settings.accelerator, word, name_out, note, &error);
    if (result == ERROR_INVALID)
        return report_usage(context, "--accel: %s", error.message);
    if (result)
        return report_error(context, &error);
    if (*note)
        report_line(context, "%s", note);
    return EXIT_OK;
}
