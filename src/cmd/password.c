/* Asking for a password: on the terminal itself, whatever standard input is, and without echo. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cmd/cmd.h"

static volatile sig_atomic_t caught;

static void on_signal(int signal_number)
{
    caught = signal_number;
}

/* One line without its newline. Signals break it off, so that the terminal gets its echo back. */
static int read_line(int terminal, char *line, size_t size, struct error *error)
{
    size_t length = 0;

    for (;;) {
        char letter;
        ssize_t got = read(terminal, &letter, 1);

        if (got < 0 && errno == EINTR && !caught)
            continue;
        if (caught || got == 0)
            return error_set(error, ERROR_CANCELLED, "no password was given");
        if (got < 0)
            return error_set_errno(error, errno, "cannot read from the terminal");
        if (letter == '\n' || letter == '\r')
            break;
        if (length + 1 >= size)
            return error_set(error, ERROR_INVALID, "a password may have at most %zu bytes", size - 1);
        line[length++] = letter;
    }
    line[length] = '\0';
    return 0;
}

static int open_terminal(void)
{
    return open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static int ask_without_echo(int terminal, char *password, size_t size, struct error *error)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    struct sigaction old[sizeof(signals) / sizeof(signals[0])];
    struct sigaction action = {.sa_handler = on_signal};
    struct termios before, silent;
    int result;

    if (tcgetattr(terminal, &before))
        return error_set_errno(error, errno, "cannot set up the terminal");
    caught = 0;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, &old[i]);
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    silent.c_lflag |= ICANON | ISIG;
    tcsetattr(terminal, TCSAFLUSH, &silent);
    result = read_line(terminal, password, size, error);
    tcsetattr(terminal, TCSAFLUSH, &before);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &old[i], NULL);
    dprintf(terminal, "\n");
    return result;
}

bool password_can_be_asked(void)
{
    auto_close int terminal = open_terminal();

    return terminal >= 0;
}

int ask_password(void *user, const char *path, char *password, size_t size, struct error *error)
{
    auto_close int terminal = open_terminal();
    int result;

    (void)user;
    if (terminal < 0)
        return error_set(error, ERROR_INVALID, "%s is encrypted, and there is no terminal to ask for its password",
                         path);
    dprintf(terminal, "Password for %s: ", path);
    result = ask_without_echo(terminal, password, size, error);
    if (result)
        explicit_bzero(password, size);
    return result;
}
