/* SPDX-License-Identifier: Apache-2.0
 * main.c - the program `microgpt`: a table of subcommands. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_command commands[] = {
    {"train", "--input FILE --output DIR [options]",
     "Train a checkpoint from a text file.", train_main},
    {"info", "[--json] DIR", "Say what a checkpoint is and what serving it takes.",
     info_main},
    {"check", "[--json] DIR", "Do with a checkpoint what the service does at start.",
     check_main},
    {"generate", "--model DIR [options]",
     "Print samples, as the HTTP endpoint gives them.", generate_main},
    {"chat", "--model DIR [options]", "Talk to a model.", chat_main},
    {"export", "--model DIR --output DIR [options]",
     "Write a checkpoint for serving only.", export_main},
    {"import", "[options] --output DIR FILE.json",
     "Make a checkpoint from a JSON dump of the microgpt family.", import_main},
    {"tokenize", "(--model DIR | --tokenizer FILE) [options] < TEXT",
     "Text to token ids and what each is.", tokenize_main},
    {"detokenize", "(--model DIR | --tokenizer FILE) [options] < IDS",
     "Token ids to text.", detokenize_main},
    {"verify", "--model DIR [options] [FILE]...",
     "Compute what receipts are of again, and compare.", verify_main},
    {0},
};

static int print_commands(void) {
    puts("usage: microgpt COMMAND [options]\n");
    for (const struct cli_command *c = commands; c->name; c++)
        printf("  %-10s %s\n", c->name, c->summary);
    puts("\n  microgpt COMMAND --help   the options of a command\n"
         "  microgpt --version        the version");
    return cli_finish();
}

static int print_version(void) {
    puts("microgpt " MG_VERSION);
    return cli_finish();
}

static const struct cli_command *find_command(const char *name) {
    for (const struct cli_command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static int help(int argc, char **argv) {
    if (argc < 3) return print_commands();
    const struct cli_command *c = find_command(argv[2]);
    char *ask[] = {argv[2], (char *)"--help", NULL};
    return c ? c->run(c, 2, ask) : say_error(EX_USAGE, "no command '%s'", argv[2]);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        say_error(EX_USAGE, "give a command: microgpt help");
        return EX_USAGE;
    }
    if (strcmp(argv[1], "help") == 0) return help(argc, argv);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_commands();
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return print_version();
    const struct cli_command *c = find_command(argv[1]);
    if (!c) return say_error(EX_USAGE, "no command '%s' (microgpt help)", argv[1]);
    return c->run(c, argc - 1, argv + 1);
}
