/* TPMs of machines: see tpm.h. */
#include "vm/tpm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <unistd.h>

#include "base/arguments.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "vm/machine.h"

#define STATE "tpm2-00.permall" /* swtpm's name for what lasts */
#define LOCK  ".lock"           /* swtpm holds it as long as it runs */

#define LEFTOVER_MS 5000
#define READY_MS    10000

int tpm_find(const char *search_path, struct tpm_programs *programs_out, struct error *error)
{
    if (!process_find(search_path, "swtpm", programs_out->swtpm))
        return machine_missing("swtpm", "swtpm", error);
    if (!process_find(search_path, "swtpm_setup", programs_out->setup))
        return machine_missing("swtpm_setup", "swtpm-tools", error);
    if (!process_find(search_path, "swtpm_localca", programs_out->localca))
        return machine_missing("swtpm_localca", "swtpm-tools", error);
    return 0;
}

bool tpm_exists(const struct tpm *tpm)
{
    auto_free char *path = path_join(tpm->folder, STATE);

    return path && !access(path, F_OK);
}

/* The process that holds the TPM; 0: none. */
static pid_t holder(const struct tpm *tpm)
{
    auto_free char *path = path_join(tpm->folder, LOCK);
    auto_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fd >= 0 && !fcntl(fd, F_GETLK, &lock) && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

/* Does an swtpm run on it? */
static bool in_use(const struct tpm *tpm)
{
    return holder(tpm) != 0;
}

/* swtpm splits its options at commas, its configuration files at line ends. */
static int check_path(const char *path, struct error *error)
{
    if (!path)
        return error_set(error, ERROR_INVALID, "a TPM needs a place");
    return strpbrk(path, ",\n") ? error_set(error, ERROR_UNSUPPORTED,
                                            "swtpm cannot use a path with commas or line ends: %s", path)
                                : 0;
}

__attribute__((format(printf, 4, 5))) static int write_file(int folder_fd, const char *name, struct error *error,
                                                            const char *format, ...)
{
    auto_free char *text = NULL;
    va_list values;

    va_start(values, format);
    text = text_format_list(format, values);
    va_end(values);
    return text ? file_write_atomic(folder_fd, name, text, strlen(text), FILE_PRIVATE, error)
                : error_set(error, ERROR_SYSTEM, "no memory to write %s", name);
}

/* The authority itself is made by swtpm_localca when it is first asked for a certificate. */
static int write_configuration(const struct tpm *tpm, const struct tpm_programs *programs, int ca_fd,
                               struct error *error)
{
    const char *ca = tpm->ca_folder;
    int result = write_file(ca_fd, "localca.conf", error,
                            "statedir = %s\nsigningkey = %s/signkey.pem\nissuercert = %s/" TPM_CA_ISSUER
                            "\ncertserial = %s/certserial\n", ca, ca, ca, ca);

    if (!result)
        result = write_file(ca_fd, "localca.options", error,
                            "--platform-manufacturer OSCircular\n--platform-version 1\n--platform-model machine\n");
    if (!result)
        result = write_file(ca_fd, "setup.conf", error,
                            "create_certs_tool = %s\ncreate_certs_tool_config = %s/localca.conf\n"
                            "create_certs_tool_options = %s/localca.options\nactive_pcr_banks = " TPM_BANKS "\n",
                            programs->localca, ca, ca);
    return result;
}

/* The authority's folder, locked: two first TPMs at once would make two authorities. A descriptor, or an error. */
static int open_authority(const struct tpm *tpm, const struct tpm_programs *programs, struct error *error)
{
    auto_close int fd = -1;
    int result = file_make_folders(AT_FDCWD, tpm->ca_folder, 0700, error);

    if (result)
        return result;
    fd = open(tpm->ca_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0700))
        return error_set_errno(error, errno, "cannot use the folder %s", tpm->ca_folder);
    result = file_lock(fd, false, false, error);
    if (!result)
        result = write_configuration(tpm, programs, fd, error);
    return result ? result : steal_fd(&fd);
}

static int run_setup(const struct tpm *tpm, const struct tpm_programs *programs, const char *folder,
                     struct error *error)
{
    cleanup(arguments_finish) struct arguments arguments = {0};

    arguments_add(&arguments, "swtpm_setup");
    arguments_add(&arguments, "--tpm2");
    arguments_add_option(&arguments, "--tpmstate", "dir://%s", folder);
    arguments_add_option(&arguments, "--config", "%s/setup.conf", tpm->ca_folder);
    arguments_add_option(&arguments, "--pcr-banks", TPM_BANKS);
    arguments_add_option(&arguments, "--vmid", "%s", tpm->name);
    arguments_add_option(&arguments, "--write-ek-cert-files", "%s", folder);
    arguments_add(&arguments, "--create-ek-cert");
    arguments_add(&arguments, "--create-platform-cert");
    if (arguments.failed)
        return error_set(error, ERROR_SYSTEM, "no memory for swtpm_setup");
    if (process_run(programs->setup, (const char *const *)arguments.items, NULL, error))
        return error_prefix(error, "cannot make a TPM");
    return 0;
}

void tpm_remove(const char *folder)
{
    file_remove(AT_FDCWD, folder, NULL);
}

/* New state in a folder beside the final one; its path is the caller's. */
static int make_state(const struct tpm *tpm, char **folder_out, struct error *error)
{
    auto_free char *folder = NULL;
    auto_close int authority = -1;
    struct tpm_programs programs;
    int result = tpm_find(tpm->search_path, &programs, error);

    if (!result)
        result = check_path(tpm->folder, error);
    if (!result)
        result = check_path(tpm->ca_folder, error);
    if (!result)
        result = file_make_parent(AT_FDCWD, tpm->folder, error);
    if (result)
        return result;
    folder = text_format("%s.new-XXXXXX", tpm->folder);
    if (!folder)
        return error_set(error, ERROR_SYSTEM, "no memory to make a TPM");
    authority = open_authority(tpm, &programs, error);
    if (authority < 0)
        return authority;
    if (!mkdtemp(folder)) /* mode 0700 */
        return error_set_errno(error, errno, "cannot make a folder beside %s", tpm->folder);
    result = run_setup(tpm, &programs, folder, error);
    if (result)
        tpm_remove(folder);
    else
        *folder_out = steal_pointer(&folder);
    return result;
}

/* Give NEW the name of the TPM's folder; with EXCHANGE that of the other, which is then removed. */
static int put_in_place(const struct tpm *tpm, const char *new, bool exchange, struct error *error)
{
    if (syscall(SYS_renameat2, AT_FDCWD, new, AT_FDCWD, tpm->folder, exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE)) {
        int cause = errno;

        tpm_remove(new);
        if (cause == EEXIST)
            return error_set(error, ERROR_EXISTS, "there is a TPM in %s already", tpm->folder);
        return error_set_errno(error, cause, "cannot make %s", tpm->folder);
    }
    if (exchange)
        tpm_remove(new);
    return file_sync_parent(AT_FDCWD, tpm->folder, error);
}

int tpm_create(const struct tpm *tpm, struct error *error)
{
    auto_free char *folder = NULL;
    int result;

    if (tpm_exists(tpm))
        return error_set(error, ERROR_EXISTS, "there is a TPM in %s already", tpm->folder);
    rmdir(tpm->folder); /* an empty one is no state */
    result = make_state(tpm, &folder, error);
    return result ? result : put_in_place(tpm, folder, false, error);
}

int tpm_reset(const struct tpm *tpm, struct error *error)
{
    auto_free char *folder = NULL;
    int result;

    if (!tpm_exists(tpm))
        return error_set(error, ERROR_NOT_FOUND, "there is no TPM in %s", tpm->folder);
    if (in_use(tpm))
        return error_set(error, ERROR_BUSY, "the TPM in %s is in use: stop the machine first", tpm->folder);
    result = make_state(tpm, &folder, error);
    if (!result && in_use(tpm)) {
        tpm_remove(folder);
        return error_set(error, ERROR_BUSY, "the TPM in %s is in use: stop the machine first", tpm->folder);
    }
    return result ? result : put_in_place(tpm, folder, true, error);
}

static char *pid_file_of(const char *socket)
{
    return text_format("%s.pid", socket);
}

/* Does PID run with SOCKET among its arguments? Numbers are used again. */
static bool serves(pid_t pid, const char *socket)
{
    cleanup(buffer_finish) struct buffer words = {0};
    char path[40];

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    return !file_read(AT_FDCWD, path, 64 * KIB, &words, NULL) && words.size &&
           memmem(words.bytes, words.size, socket, strlen(socket));
}

/* The swtpm that was started at SOCKET, whoever is connected to it; 0: it has ended. */
static pid_t server(const char *socket)
{
    cleanup(buffer_finish) struct buffer text = {0};
    auto_free char *path = pid_file_of(socket);
    pid_t pid;

    if (!path || file_read(AT_FDCWD, path, 40, &text, NULL) || !buffer_append(&text, "", 1))
        return 0;
    pid = (pid_t)strtol((const char *)text.bytes, NULL, 10);
    return pid > 1 && serves(pid, socket) ? pid : 0;
}

/*
 * End the swtpm at SOCKET, or whichever holds the TPM, that a machine or starter has left when it was killed. It goes
 * by itself when its machine was there and has gone; else it is told to.
 */
static int end_leftover(const struct tpm *tpm, const char *socket, struct error *error)
{
    uint64_t begun = clock_ms(), now = begun;
    pid_t pid, told = 0;

    while ((pid = server(socket)) != 0 || (pid = holder(tpm)) != 0) {
        if (now >= begun + LEFTOVER_MS)
            return error_set(error, ERROR_BUSY, "the TPM in %s is in use", tpm->folder);
        if (pid > 0 && pid != told && (now >= begun + LEFTOVER_MS / 10 || !holder(tpm)))
            told = kill(pid, SIGTERM) ? 0 : pid;
        clock_sleep_ms(10);
        now = clock_ms();
    }
    return 0;
}

/* Until it has written its process id: then its socket is there. */
static int wait_until_ready(pid_t pid, const char *pid_file, struct error *error)
{
    uint64_t end = clock_ms() + READY_MS;
    struct stat status;
    int ended;

    while (stat(pid_file, &status) || !status.st_size) {
        if (waitpid(pid, &ended, WNOHANG) == pid)
            return error_set(error, ERROR_SYSTEM, "cannot start the TPM: swtpm has ended at once");
        if (clock_ms() > end) {
            process_wait_within(pid, 0, false, &ended);
            return error_set(error, ERROR_SYSTEM, "cannot start the TPM: swtpm does not become ready");
        }
        clock_sleep_ms(2);
    }
    return 0;
}

static int run_swtpm(const struct tpm *tpm, const char *program, const char *socket, struct error *error)
{
    cleanup(arguments_finish) struct arguments arguments = {0};
    auto_free char *pid_file = pid_file_of(socket);
    pid_t pid;
    int result;

    if (!pid_file)
        return error_set(error, ERROR_SYSTEM, "no memory for swtpm");
    unlink(socket); /* of one that was killed */
    unlink(pid_file);
    arguments_add(&arguments, "swtpm");
    arguments_add(&arguments, "socket");
    arguments_add(&arguments, "--tpm2");
    arguments_add_option(&arguments, "--tpmstate", "dir=%s,mode=0600", tpm->folder);
    arguments_add_option(&arguments, "--ctrl", "type=unixio,path=%s,mode=0600", socket);
    arguments_add_option(&arguments, "--pid", "file=%s", pid_file);
    arguments_add(&arguments, "--terminate");
    if (!tpm->bound)
        arguments_add(&arguments, "--daemon"); /* returns when the socket is there */
    if (arguments.failed)
        return error_set(error, ERROR_SYSTEM, "no memory for swtpm");
    if (tpm->bound) {
        result = process_start(program, arguments.items, &pid, error);
        return result ? result : wait_until_ready(pid, pid_file, error);
    }
    result = process_run(program, (const char *const *)arguments.items, NULL, error);
    return result ? error_prefix(error, "cannot start the TPM") : 0;
}

int tpm_start(const struct tpm *tpm, const char *socket, struct error *error)
{
    struct tpm_programs programs;
    int result = tpm_find(tpm->search_path, &programs, error);

    if (!result)
        result = check_path(socket, error);
    if (!result && strlen(socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        result = error_set(error, ERROR_UNSUPPORTED, "%s is too long for the path of a socket", socket);
    if (!result && !tpm_exists(tpm))
        result = tpm_create(tpm, error);
    if (!result)
        result = end_leftover(tpm, socket, error);
    return result ? result : run_swtpm(tpm, programs.swtpm, socket, error);
}

void tpm_stop(const struct tpm *tpm, const char *socket)
{
    auto_free char *pid_file = pid_file_of(socket);

    end_leftover(tpm, socket, NULL);
    unlink(socket);
    if (pid_file)
        unlink(pid_file);
}

/* What follows "WORD: " in certtool's text, to the end of the line. */
static void copy_field(const char *text, const char *word, char *to, size_t size)
{
    const char *at = strstr(text, word);

    if (at)
        snprintf(to, size, "%.*s", (int)strcspn(at + strlen(word), "\n"), at + strlen(word));
}

/* certtool comes with swtpm-tools; where it is missing the names are left out. */
static void describe_certificate(const struct tpm *tpm, const char *path, struct tpm_description *description)
{
    const char *arguments[] = {"certtool", "--certificate-info", "--inder", "--infile", path, NULL};
    cleanup(buffer_finish) struct buffer output = {0};
    char program[PATH_MAX];

    if (!process_find(tpm->search_path, arguments[0], program) || process_run(program, arguments, &output, NULL) ||
        !output.size)
        return;
    copy_field((const char *)output.bytes, "Subject: ", description->subject, sizeof(description->subject));
    copy_field((const char *)output.bytes, "Issuer: ", description->issuer, sizeof(description->issuer));
}

int tpm_describe(const struct tpm *tpm, struct tpm_description *description_out, struct error *error)
{
    auto_free char *certificate = path_join(tpm->folder, TPM_CERTIFICATE);
    struct stat status;

    *description_out = (struct tpm_description){.in_use = in_use(tpm)};
    if (!tpm_exists(tpm))
        return error_set(error, ERROR_NOT_FOUND, "there is no TPM in %s", tpm->folder);
    if (!certificate)
        return error_set(error, ERROR_SYSTEM, "no memory to look at a TPM");
    if (!stat(certificate, &status))
        description_out->created = status.st_mtim.tv_sec;
    describe_certificate(tpm, certificate, description_out);
    return 0;
}
