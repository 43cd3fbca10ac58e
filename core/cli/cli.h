/* SPDX-License-Identifier: Apache-2.0
 * cli.h - what the subcommands of `microgpt` share: the table entry, options, messages
 * and exit codes. A subcommand is one file with one function `<name>_main`. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stddef.h>
#include <stdint.h>

#include "../microgpt.h"
#include "../train/say.h"

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
 * --flag. At most one word without dashes (or "-") is taken, into *word; word NULL: none.
 * Returns -1 to go on, else the exit code: 0 after --help was printed, EX_USAGE after a
 * complaint. */
int cli_parse(const struct cli_command *, struct cli_option *, int argc, char **argv,
              const char **word);

/* The same with up to max words, into words[0 ... max - 1], which is NULL from the first
 * one that is free. */
int cli_parse_words(const struct cli_command *, struct cli_option *, int argc,
                    char **argv, const char **words, int max);

/* Was the option of that name on the command line? */
int cli_given(const struct cli_option *, const char *name);

/* Exit code after all was printed: EX_IOERR when stdout could not take it. */
int cli_finish(void);

/* check.c: open dir as the service does and generate once; prints a line (with json: an
 * object) or the complaint. An exit code. */
int check_checkpoint(const char *dir, int json);

int check_main(const struct cli_command *, int argc, char **argv);
int chat_main(const struct cli_command *, int argc, char **argv);
int export_main(const struct cli_command *, int argc, char **argv);
int generate_main(const struct cli_command *, int argc, char **argv);
int import_main(const struct cli_command *, int argc, char **argv);
int detokenize_main(const struct cli_command *, int argc, char **argv);
int info_main(const struct cli_command *, int argc, char **argv);
int tokenize_main(const struct cli_command *, int argc, char **argv);
int train_main(const struct cli_command *, int argc, char **argv);
int verify_main(const struct cli_command *, int argc, char **argv);

#endif
