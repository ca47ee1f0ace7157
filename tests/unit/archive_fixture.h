/* For the tests of archives: an archive with one image, a client with folders of its own, and what it is told. */
#ifndef ARCHIVE_FIXTURE_H
#define ARCHIVE_FIXTURE_H

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "archive_maker.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "image/serial.h"
#include "lib/session.h"

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char logged[20000];

static inline void keep_log(void *user, enum log_level level, const char *line)
{
    (void)user;
    pthread_mutex_lock(&log_lock);
    if (level <= LOG_LEVEL_WARNING && strlen(logged) + strlen(line) + 2 < sizeof(logged))
        strcat(strcat(logged, line), "\n");
    pthread_mutex_unlock(&log_lock);
}

static inline bool was_logged(const char *text)
{
    bool found;

    pthread_mutex_lock(&log_lock);
    found = strstr(logged, text) != NULL;
    pthread_mutex_unlock(&log_lock);
    return found;
}

/* An archive with one image, a client's folders, and what the client is told. */
struct fixture {
    struct archive_maker maker;
    char client[128];
    char cache[160], state[160];
    char key[PUBLIC_KEY_TEXT];
    const char *keys[2];
    const char *mirrors[3];
    struct session_settings settings;
    uint8_t *image;

    struct session *session;
    struct archive *archive;
    struct error error;
};

#define IMAGE_SIZE 300000

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    logged[0] = '\0';
    archive_maker_init(&f->maker);
    f->image = make_image(IMAGE_SIZE, 65536, 1);
    archive_maker_add(&f->maker, "debian12", "1", f->image, IMAGE_SIZE, 65536);
    archive_maker_publish(&f->maker);
    make_folder(f->client);
    snprintf(f->cache, sizeof(f->cache), "%s/cache", f->client);
    snprintf(f->state, sizeof(f->state), "%s/state", f->client);
    f->keys[0] = public_key_base64(&f->maker.public_key, f->key);
    f->settings = (struct session_settings){
        .cache_path = f->cache,
        .state_path = f->state,
        .keys = f->keys,
        .key_count = 1,
        .mirrors = f->mirrors,
    };
    *state = f;
    return 0;
}

static inline void client_close(struct fixture *f)
{
    archive_close(f->archive);
    f->archive = NULL;
    session_close(f->session);
    f->session = NULL;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    client_close(f);
    archive_maker_finish(&f->maker);
    remove_folder(f->client);
    free(f->image);
    free(f);
    return 0;
}

/* Open the archive as a fresh process would. Returns the code. */
static inline int client_open(struct fixture *f)
{
    client_close(f);
    f->error = ERROR_INIT;
    if (session_open(&f->settings, &f->session, &f->error))
        fail_msg("%s", f->error.message);
    return session_archive(f->session, f->maker.folder, &f->archive, &f->error);
}

/* Opening fails with CODE, and the message has TEXT and the archive's name. */
static inline void assert_refused(struct fixture *f, int code, const char *text)
{
    int result = client_open(f);

    if (result != code || !strstr(f->error.message, text) || !strstr(f->error.message, f->maker.folder))
        print_message("# %s: %s\n", error_word(result), f->error.message);
    assert_int_equal(result, code);
    assert_int_equal(f->error.code, code);
    assert_non_null(strstr(f->error.message, text));
    assert_non_null(strstr(f->error.message, f->maker.folder));
    assert_null(f->archive);
}

static inline void assert_disk_reads(struct fixture *f)
{
    const struct catalog_version *version;
    struct disk *disk;
    uint8_t *bytes = malloc(IMAGE_SIZE);

    assert_int_equal(archive_find(f->archive, "debian12", NULL, &version, NULL), 0);
    assert_int_equal(archive_disk(f->archive, version, &disk, NULL), 0);
    assert_int_equal(disk_read(disk, bytes, IMAGE_SIZE, 0, NULL), IMAGE_SIZE);
    assert_memory_equal(bytes, f->image, IMAGE_SIZE);
    disk_close(disk);
    free(bytes);
}

/* The path of a file of the archive in the client's cache. */
static inline void cached_path(struct fixture *f, const char *name, char path[400])
{
    char command[600];
    FILE *pipe;

    snprintf(command, sizeof(command), "find '%s/archives' -path '*/%s'", f->cache, name);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(path, 400, pipe));
    pclose(pipe);
    path[strcspn(path, "\n")] = '\0';
}

#endif
