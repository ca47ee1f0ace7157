/* Starting liar.py and talking to it over a plain socket. */
#include "liar.h"

#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void start_process(struct liar *liar, const char *certificate)
{
    const char *source = getenv("CIRCULAR_SOURCE");
    char script[512], root[96], port[16], port_file[96];

    snprintf(script, sizeof(script), "%s/tests/lib/liar.py", source ? source : ".");
    snprintf(root, sizeof(root), "%s/root", liar->folder);
    snprintf(port_file, sizeof(port_file), "%s/port", liar->folder);
    snprintf(port, sizeof(port), "%d", liar->port);
    unlink(port_file);
    liar->pid = fork();
    if (liar->pid < 0)
        err(1, "fork");
    if (liar->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("python3", "python3", script, "--root", root, "--port", port, "--port-file", port_file,
               certificate ? "--certificate" : NULL, certificate, NULL);
        err(1, "python3");
    }
    for (;;) {
        FILE *file = fopen(port_file, "r");
        int status;

        if (file) {
            if (fscanf(file, "%d", &liar->port) != 1)
                errx(1, "%s holds no port", port_file);
            fclose(file);
            break;
        }
        if (waitpid(liar->pid, &status, WNOHANG) == liar->pid)
            errx(1, "%s ended at once", script);
        usleep(5000);
    }
    snprintf(liar->url, sizeof(liar->url), "%s://127.0.0.1:%d", certificate ? "https" : "http", liar->port);
}

/* A port that is bound and not listened on is given to nobody who asks for any. */
static void hold_port(struct liar *liar)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int yes = 1;

    liar->holder = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (liar->holder < 0 || setsockopt(liar->holder, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
        bind(liar->holder, (struct sockaddr *)&address, size) ||
        getsockname(liar->holder, (struct sockaddr *)&address, &size))
        err(1, "cannot have a port");
    liar->port = ntohs(address.sin_port);
}

void liar_start(struct liar *liar, const char *certificate)
{
    char root[96];

    *liar = (struct liar){.folder = "/tmp/test-liar-XXXXXX"};
    hold_port(liar);
    if (!mkdtemp(liar->folder))
        err(1, "mkdtemp");
    snprintf(root, sizeof(root), "%s/root", liar->folder);
    if (mkdir(root, 0755))
        err(1, "%s", root);
    start_process(liar, certificate);
}

void liar_kill(struct liar *liar)
{
    if (liar->pid <= 0)
        return;
    kill(liar->pid, SIGKILL);
    waitpid(liar->pid, NULL, 0);
    liar->pid = 0;
}

void liar_restart(struct liar *liar)
{
    start_process(liar, NULL);
}

void liar_finish(struct liar *liar)
{
    char command[128];

    liar_kill(liar);
    close(liar->holder);
    snprintf(command, sizeof(command), "rm -r '%s'", liar->folder);
    if (system(command))
        warnx("%s is left", liar->folder);
}

void liar_put(struct liar *liar, const char *path, const void *bytes, size_t size)
{
    char name[256], command[300];
    FILE *file;

    snprintf(name, sizeof(name), "%s/root/%s", liar->folder, path);
    snprintf(command, sizeof(command), "mkdir -p \"$(dirname '%s')\"", name);
    if (system(command))
        errx(1, "%s", command);
    file = fopen(name, "w");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file))
        err(1, "%s", name);
}

/* One request; the response, cut to SIZE, in TEXT. */
static void talk(struct liar *liar, const char *request, char *text, size_t size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)liar->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t length = 0;
    ssize_t got;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
        write(fd, request, strlen(request)) != (ssize_t)strlen(request))
        err(1, "cannot talk to the server");
    while (length < size - 1 && (got = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = '\0';
    close(fd);
}

void liar_tell(struct liar *liar, const char *match, const char *behaviour, int count)
{
    char body[400], request[600], response[600], limit[32] = "";

    if (count)
        snprintf(limit, sizeof(limit), ", \"count\": %d", count);
    snprintf(body, sizeof(body), "{\"match\": \"%s\", \"behaviour\": \"%s\"%s}", match, behaviour, limit);
    snprintf(request, sizeof(request),
             "POST /_control HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    talk(liar, request, response, sizeof(response));
    if (strncmp(response, "HTTP/1.1 200", 12))
        errx(1, "%s: %s", body, response);
}

void liar_reset(struct liar *liar)
{
    char response[600];

    talk(liar, "DELETE /_control HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", response, sizeof(response));
    talk(liar, "DELETE /_stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", response, sizeof(response));
}

/* -1: it is not there. */
static long find_count(struct liar *liar, const char *name)
{
    char response[20000], key[64], *at;

    talk(liar, "GET /_stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", response, sizeof(response));
    snprintf(key, sizeof(key), "\"%s\": ", name);
    at = strstr(response, key);
    return at ? atol(at + strlen(key)) : -1;
}

long liar_count(struct liar *liar, const char *name)
{
    long count = find_count(liar, name);

    if (count < 0)
        errx(1, "no %s in the statistics", name);
    return count;
}

long liar_count_folder(struct liar *liar, const char *folder)
{
    long count = find_count(liar, folder);

    return count < 0 ? 0 : count;
}
