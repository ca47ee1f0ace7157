/* Trials remembered: see accelerator_memory.h. */
#include "vm/accelerator_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "format/conf.h"
#include "vm/accelerator.h"

#define MEMORY_MAX   65536
#define TRIALS       "1" /* raised when what is tried changes */
#define WORKS_PREFIX "yes "
#define FAILS_PREFIX "no "
#define KEY_TEXT     (DIGEST_TEXT + 10)

/* "kvm-<digest>": of the host's boot, the program as it is, and what is tried. False: cannot be said. */
static bool make_key(const char *name, const char *subject, char key[KEY_TEXT])
{
    cleanup(buffer_finish) struct buffer boot = {0};
    auto_free char *text = NULL;
    char digest_text[DIGEST_TEXT];
    struct digest digest;
    struct stat status;

    if (file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 100, &boot, NULL) || stat(subject, &status))
        return false;
    text = text_format("%s %.*s %s %lld %lld.%ld", TRIALS, (int)boot.size, (const char *)boot.bytes, subject,
                       (long long)status.st_size, (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    if (!text)
        return false;
    digest_of(text, strlen(text), &digest);
    snprintf(key, KEY_TEXT, "%s-%.16s", name, digest_format(&digest, digest_text));
    return true;
}

struct search {
    const char *key;
    struct accelerator *found; /* of KEY; NULL: not wanted */
    struct buffer others;      /* the lines of other trials of the same kind of subject */
    bool has_found;
};

/* The latest line of KEY wins. Lines of an earlier boot have other keys; they go when the file is written. */
static int take_line(void *user, unsigned line, const char *word, const char *value, struct error *error)
{
    struct search *search = user;
    size_t kind = strcspn(search->key, "-");

    (void)line;
    (void)error;
    if (!strcmp(word, search->key)) {
        bool works = !strncmp(value, WORKS_PREFIX, strlen(WORKS_PREFIX));
        bool fails = !strncmp(value, FAILS_PREFIX, strlen(FAILS_PREFIX));

        search->has_found = works || fails;
        if (search->has_found && search->found) {
            search->found->works = works;
            snprintf(search->found->text, sizeof(search->found->text), "%s",
                     value + strlen(works ? WORKS_PREFIX : FAILS_PREFIX));
        }
        return 0;
    }
    if (strncmp(word, search->key, kind) || word[kind] != '-') {
        buffer_append(&search->others, word, strlen(word));
        buffer_append(&search->others, " = ", 3);
        buffer_append(&search->others, value, strlen(value));
        buffer_append(&search->others, "\n", 1);
    }
    return 0;
}

static void look(const char *memory, struct search *search)
{
    cleanup(buffer_finish) struct buffer text = {0};
    struct error error = ERROR_INIT;

    if (!file_read(AT_FDCWD, memory, MEMORY_MAX, &text, NULL) &&
        conf_parse((const char *)text.bytes, text.size, take_line, search, &error))
        log_debug("%s: %s", memory, error.message);
}

bool accelerator_recall(const char *memory, const char *name, const char *subject, struct accelerator *result_out)
{
    char key[KEY_TEXT];
    struct search search = {.key = key, .found = result_out};

    if (!make_key(name, subject, key))
        return false;
    look(memory, &search);
    buffer_finish(&search.others);
    return search.has_found;
}

void accelerator_remember(const char *memory, const char *name, const char *subject, const struct accelerator *result)
{
    char key[KEY_TEXT], line[KEY_TEXT + ACCELERATOR_TEXT + 20];
    struct search search = {.key = key};
    struct error error = ERROR_INIT;

    if (!make_key(name, subject, key))
        return;
    look(memory, &search);
    snprintf(line, sizeof(line), "%s = %s%s\n", key, result->works ? WORKS_PREFIX : FAILS_PREFIX, result->text);
    if (buffer_append(&search.others, line, strlen(line)) &&
        file_write_atomic(AT_FDCWD, memory, search.others.bytes, search.others.size, FILE_PRIVATE | FILE_MAKE_FOLDERS,
                          &error))
        log_debug("%s", error.message);
    buffer_finish(&search.others);
}
