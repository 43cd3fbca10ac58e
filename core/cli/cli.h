/* SPDX-License-Identifier: Apache-2.0
 * cli.h - what the subcommands of `microgpt` share: the table entry, options, messages
 * and exit codes. A subcommand is one file with one function `<name>_main`. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stddef.h>
#include <stdint.h>

#include "../microgpt.h"

enum {
    CLI_USAGE = 64,   /* wrong command line */
    CLI_DATA = 65,    /* bad checkpoint or corpus */
    CLI_NOINPUT = 66, /* no checkpoint or corpus */
    CLI_INTERNAL = 70,
    CLI_SYSTEM = 71,
    CLI_CANTCREATE = 73, /* the output cannot be made there */
    CLI_IO = 74,         /* writing failed: disk full, stdout closed */
    CLI_NOPERM = 77,
};

/* CLI_COUNT: a seed's range without 0; 0 stands for "not given". */
enum cli_type { CLI_STRING, CLI_INT, CLI_SEED, CLI_COUNT, CLI_REAL, CLI_FLAG };

struct cli_option {
    const char *name; /* without the dashes */
    const char *arg;  /* what stands for the value in the help text, NULL for a flag */
    enum cli_type type;
    void *value;     /* const char **, int64_t *, uint64_t * (2), double *, int * */
    double min, max; /* of CLI_INT and CLI_REAL */
    const char *help;
    int given; /* set by cli_parse */
};

struct cli_command {
    const char *name;
    const char *synopsis; /* after "microgpt NAME" */
    const char *summary;  /* one line */
    int (*run)(const struct cli_command *, int argc, char **argv); /* argv[0] = name */
};

/* Parse argv[1...] by a table that ends with name NULL: --name VALUE, --name=VALUE,
 * --flag. At most one word without dashes is taken, into *word (word NULL: none is).
 * Returns -1 to go on, else the exit code: 0 after --help was printed, CLI_USAGE after a
 * complaint. */
int cli_parse(const struct cli_command *, struct cli_option *, int argc, char **argv,
              const char **word);

/* Was the option of that name on the command line? */
int cli_given(const struct cli_option *, const char *name);

/* Print "microgpt: text" to stderr; return code. */
int cli_error(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Print an error of the library; the exit code that fits it. */
int cli_model_error(const struct mg_error *);
/* Exit code after all was printed: CLI_IO when stdout could not take it. */
int cli_finish(void);

int check_main(const struct cli_command *, int argc, char **argv);
int chat_main(const struct cli_command *, int argc, char **argv);
int export_main(const struct cli_command *, int argc, char **argv);
int generate_main(const struct cli_command *, int argc, char **argv);
int info_main(const struct cli_command *, int argc, char **argv);
int train_main(const struct cli_command *, int argc, char **argv);

#endif
