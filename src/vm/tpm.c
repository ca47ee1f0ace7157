/* TPMs of machines: see tpm.h. */
#include "vm/tpm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <linux/fs.h>
#include <unistd.h>

#include "base/arguments.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "vm/machine.h"

#define STATE "tpm2-00.permall" /* swtpm's name for what lasts */
#define LOCK  ".lock"           /* swtpm holds it as long as it runs */

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

bool tpm_in_use(const struct tpm *tpm)
{
    auto_free char *path = path_join(tpm->folder, LOCK);
    auto_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fd >= 0 && !fcntl(fd, F_GETLK, &lock) && lock.l_type != F_UNLCK;
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
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) {
        text = NULL;
        return error_set(error, ERROR_SYSTEM, "no memory to write %s", name);
    }
    return file_write_atomic(folder_fd, name, text, (size_t)length, FILE_PRIVATE, error);
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
    if (asprintf(&folder, "%s.new-XXXXXX", tpm->folder) < 0) {
        folder = NULL;
        return error_set(error, ERROR_SYSTEM, "no memory to make a TPM");
    }
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
    if (tpm_in_use(tpm))
        return error_set(error, ERROR_BUSY, "the TPM in %s is in use: stop the machine first", tpm->folder);
    result = make_state(tpm, &folder, error);
    if (!result && tpm_in_use(tpm)) {
        tpm_remove(folder);
        return error_set(error, ERROR_BUSY, "the TPM in %s is in use: stop the machine first", tpm->folder);
    }
    return result ? result : put_in_place(tpm, folder, true, error);
}

int tpm_start(const struct tpm *tpm, const char *socket, struct error *error)
{
    cleanup(arguments_finish) struct arguments arguments = {0};
    struct tpm_programs programs;
    int result = tpm_find(tpm->search_path, &programs, error);

    if (!result)
        result = check_path(socket, error);
    if (!result && strlen(socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        result = error_set(error, ERROR_UNSUPPORTED, "%s is too long for the path of a socket", socket);
    if (!result && !tpm_exists(tpm))
        result = tpm_create(tpm, error);
    if (result)
        return result;
    if (tpm_in_use(tpm))
        return error_set(error, ERROR_BUSY, "the TPM in %s is in use", tpm->folder);
    unlink(socket); /* of one that was killed */
    arguments_add(&arguments, "swtpm");
    arguments_add(&arguments, "socket");
    arguments_add(&arguments, "--tpm2");
    arguments_add_option(&arguments, "--tpmstate", "dir=%s,mode=0600", tpm->folder);
    arguments_add_option(&arguments, "--ctrl", "type=unixio,path=%s,mode=0600", socket);
    arguments_add_option(&arguments, "--pid", "file=%s.pid", socket);
    arguments_add(&arguments, "--terminate");
    arguments_add(&arguments, "--daemon"); /* returns when the socket is there */
    if (arguments.failed)
        return error_set(error, ERROR_SYSTEM, "no memory for swtpm");
    if (process_run(programs.swtpm, (const char *const *)arguments.items, NULL, error))
        return error_prefix(error, "cannot start the TPM");
    return 0;
}

void tpm_stop(const struct tpm *tpm, const char *socket)
{
    const char *arguments[] = {"swtpm_ioctl", "--unix", socket, "-s", NULL};
    auto_free char *pid_file = NULL;
    char program[PATH_MAX];

    /* It has one connection at a time: the machine's, with whom it ends. */
    if (tpm_in_use(tpm) && process_find(tpm->search_path, arguments[0], program))
        process_run(program, arguments, NULL, NULL);
    unlink(socket);
    if (asprintf(&pid_file, "%s.pid", socket) < 0)
        pid_file = NULL;
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

    *description_out = (struct tpm_description){.in_use = tpm_in_use(tpm)};
    if (!tpm_exists(tpm))
        return error_set(error, ERROR_NOT_FOUND, "there is no TPM in %s", tpm->folder);
    if (!certificate)
        return error_set(error, ERROR_SYSTEM, "no memory to look at a TPM");
    if (!stat(certificate, &status))
        description_out->created = status.st_mtim.tv_sec;
    describe_certificate(tpm, certificate, description_out);
    return 0;
}
