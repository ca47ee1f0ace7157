/*
 * Commands: each is one file cmd_<verb>.c that exports a struct command; main.c
 * holds the table of them. Options are tables too: from them come parsing,
 * --help, completion, and the test that keeps the manual pages honest.
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/progress.h"
#include "lib/session.h"

/* Exit status of the program. README and circular(1) list them. */
enum exit_status {
    EXIT_OK = 0,
    EXIT_SYSTEM = 1,      /* the operating system, a full disk, a missing program */
    EXIT_USAGE = 2,       /* the command line or a configuration file */
    EXIT_NOT_FOUND = 3,   /* no such archive, image, version or file */
    EXIT_NETWORK = 4,     /* could not be reached */
    EXIT_INTEGRITY = 5,   /* bytes are not what they should be */
    EXIT_SIGNATURE = 6,   /* not signed by a trusted key */
    EXIT_ROLLBACK = 7,    /* an older catalog than seen before */
    EXIT_EXPIRED = 8,     /* the catalog has expired */
    EXIT_CANCELLED = 130, /* interrupted */
};

enum exit_status exit_status_of(int error_code);

struct text_list {
    const char **items;
    size_t count;
};

enum option_kind {
    OPTION_FLAG,     /* bool */
    OPTION_COUNT,    /* unsigned: how often the flag was given */
    OPTION_TEXT,     /* const char * */
    OPTION_LIST,     /* struct text_list, may be given often */
    OPTION_SIZE,     /* uint64_t bytes: 64K, 1G */
    OPTION_DURATION, /* uint64_t ms: 60s, 5m */
    OPTION_NUMBER,   /* uint64_t */
    /* As the three above, but 0 is refused, since in the struct it says that the option was not given. */
    OPTION_POSITIVE_SIZE,
    OPTION_POSITIVE_DURATION,
    OPTION_POSITIVE_NUMBER,
};

struct option {
    const char *name;       /* without dashes; NULL ends the table */
    char letter;            /* 0: none */
    enum option_kind kind;
    const char *value_name; /* "FILE"; NULL for flags. FILE, PUB, KEY, DIR complete as paths */
    const char *help;       /* one sentence, lower case, without full stop */
    size_t offset;          /* into the command's option struct */
};

struct command;

/* What every command gets. */
struct context {
    bool json, quiet;
    unsigned verbose;              /* 1: what is done; 2: each request */
    const char *program;           /* the name it was called by */
    const struct command *command; /* NULL before one is chosen */
    const void *options;           /* the command's option struct, filled */
    struct client_options *client; /* for commands with .client, else NULL */
};

struct command {
    const char *name;          /* "mount"; or two words that share the first: "key new" */
    /*
     * Argument forms, NULL-terminated: "URL/NAME[@VERSION] DIR". One word an argument; a word that begins with "["
     * may be left out, one that ends in "..." may be repeated. The number of arguments is checked against them.
     */
    const char *const *usage;
    const char *summary;       /* one line, lower case, no full stop */
    const struct option *options; /* its own; NULL: none */
    size_t options_size;       /* of its option struct, zero-initialised before parsing */
    bool client;               /* also takes the client options (--key, --cache, ...) */
    bool json;                 /* also takes --json */
    bool unparsed;             /* RUN gets all words as they are, options too; only --help is seen to */
    bool hidden;               /* not listed by `circular help`; chosen too when the program is called by this name */
    /* ARGV holds only the COUNT positional arguments. Returns an exit status; errors have been printed. */
    int (*run)(const struct context *context, int count, char **arguments);
};

/* Run another command by its words, "boot", "--tpm", ... as from the command line. Returns its exit status. */
int command_run_words(const struct context *context, int count, char **words);

/* All commands, in the order in which help lists them; NULL-terminated. In main.c. */
extern const struct command *const command_table[];
/*
 * Run the command that WORDS (COUNT, without the program's name; they are moved about) begin with on behalf of
 * another one, with the client options that CONTEXT has. Returns an exit status.
 */
int command_run(const struct context *context, int count, char **words);

/* The command that COUNT (at least 1) WORDS begin with; *USED_OUT is 1 or 2, the words of its name. NULL: none. */
const struct command *command_find(int count, char **words, int *used_out);

/* The options of everything that reads from an archive, after configuration files, environment and command line. */
struct client_options {
    struct text_list keys;
    struct text_list mirrors;
    const char *cache;       /* folder */
    const char *default_cache; /* where it is unless somebody says otherwise */
    bool no_cache;
    uint64_t max_size;       /* of the cache, bytes; 0: unbounded */
    uint64_t patience_ms;
    uint64_t connections;
    const char *prefetch;    /* NULL: all */
    uint64_t limit_rate;     /* bytes a second; 0: unlimited */
    const char *proxy;       /* of the command line, for http and https; "none": no proxy */
    const char *http_proxy, *https_proxy; /* of the environment or a configuration file */
    const char *no_proxy;
    const char *ca_file;
    const char *client_certificate;
    const char *token_file;
    bool insecure;
    bool offline;
    bool no_readers;         /* said by the command itself: it wants everything, and waits for no single block */
    struct text_list owned;  /* heap strings that the others may point to */
    const char *archive;       /* what `circular menu` shows when it is not told; of configuration files only */
};

extern const struct option client_option_table[];

/* Open a session as the client options, configuration and environment say. Prints what goes wrong. */
int client_session(const struct context *context, struct session **session_out, struct error *error);

/* Folder that remembers serials: $XDG_STATE_HOME/circular, or /var/lib/circular for root. Heap; NULL: no memory. */
char *client_state_folder(void);
/* $XDG_CONFIG_HOME/circular or ~/.config/circular. */
char *client_configuration_folder(void);

/* Print "circular: MESSAGE" to standard error (a JSON object with --json) and return the exit status for it. */
int report_error(const struct context *context, const struct error *error);
/* The same where there is no memory for what the command needs first. */
int report_memory(const struct context *context);
/* Print a usage error and a pointer to --help, in one line. Returns EXIT_USAGE. */
int report_usage(const struct context *context, const char *format, ...) __attribute__((format(printf, 2, 3)));
/*
 * Print a line for people to standard output (the newline is added; nothing with --quiet or --json). Control
 * characters, which may come from a server, are escaped; with --insecure the line says so.
 */
void report_line(const struct context *context, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A progress bar with rate and time left on a terminal; a plain line every few seconds elsewhere; nothing if quiet.
 * While it is there SIGINT and SIGTERM make the job stop with ERROR_CANCELLED; a second one ends the program. */
struct progress *progress_begin(const struct context *context, const char *label);
void progress_end(struct progress *progress); /* takes NULL; clears or ends the line */

/* Ask for a password on the terminal, without echo. ERROR_INVALID if there is no terminal. */
int ask_password(void *user, const char *path, char *password, size_t size, struct error *error);

/* Is there a terminal? */
bool password_can_be_asked(void);

/*
 * Write an indented JSON document to standard output; commas and line ends are taken care of. KEY is NULL inside
 * a list and for the outermost value. Zero-initialise.
 */
struct emit {
    unsigned depth;
    bool filled; /* something was written at this depth */
};
void emit_open(struct emit *emit, const char *key, char bracket); /* '{' or '[' */
void emit_close(struct emit *emit, char bracket);                 /* '}' or ']' */
void emit_text(struct emit *emit, const char *key, const char *value); /* NULL: null */
void emit_number(struct emit *emit, const char *key, uint64_t value);
void emit_bool(struct emit *emit, const char *key, bool value);

#endif
