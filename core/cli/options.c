/* SPDX-License-Identifier: Apache-2.0
 * options.c - command lines by table: parsing, help text, messages, exit codes. Knows no
 * subcommand. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_finish(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    return say_error(EX_IOERR, "cannot write to standard output: %s", strerror(errno));
}

/* ---- help ------------------------------------------------------------------------ */

static void print_default(const struct cli_option *o) {
    switch (o->type) {
    case CLI_STRING:
        if (*(const char **)o->value) printf(" (default %s)", *(const char **)o->value);
        break;
    case CLI_INT:
        if (*(int64_t *)o->value > 0) printf(" (default %lld)", *(long long *)o->value);
        break;
    case CLI_SEED: printf(" (default %llu)", *(unsigned long long *)o->value); break;
    case CLI_REAL: printf(" (default %g)", *(double *)o->value); break;
    case CLI_COUNT:
    case CLI_FLAG: break;
    }
}

static void print_help(const struct cli_command *c, const struct cli_option *o) {
    printf("usage: microgpt %s %s\n%s\n\n", c->name, c->synopsis, c->summary);
    for (; o->name; o++) {
        char left[40];
        snprintf(left, sizeof left, "--%s %s", o->name, o->arg ? o->arg : "");
        printf("  %-24s %s", left, o->help);
        print_default(o);
        putchar('\n');
    }
    printf("  %-24s %s\n", "--help", "this text");
}

/* ---- values ---------------------------------------------------------------------- */

static int set_int(const struct cli_option *o, const char *s) {
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || end == s || *end || (double)v < o->min || (double)v > o->max)
        return say_error(EX_USAGE, "--%s: '%s' is not a whole number from %.0f to %.0f",
                         o->name, s, o->min, o->max);
    *(int64_t *)o->value = v;
    return 0;
}

static int set_seed(const struct cli_option *o, const char *s) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    unsigned least = o->type == CLI_COUNT;
    if (errno || *s < '0' || *s > '9' || *end || v < least)
        return say_error(EX_USAGE, "--%s: '%s' is not a whole number from %u to 2^64 - 1",
                         o->name, s, least);
    *(uint64_t *)o->value = v;
    return 0;
}

static int set_real(const struct cli_option *o, const char *s) {
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end || !isfinite(v) || v < o->min || v > o->max)
        return say_error(EX_USAGE, "--%s: '%s' is not a number from %g to %g", o->name, s,
                         o->min, o->max);
    *(double *)o->value = v;
    return 0;
}

static int set_value(struct cli_option *o, const char *s) {
    o->given = 1;
    switch (o->type) {
    case CLI_STRING: *(const char **)o->value = s; return 0;
    case CLI_INT: return set_int(o, s);
    case CLI_SEED:
    case CLI_COUNT: return set_seed(o, s);
    case CLI_REAL: return set_real(o, s);
    case CLI_FLAG: *(int *)o->value = 1; return 0;
    }
    return 0;
}

/* ---- parsing --------------------------------------------------------------------- */

static struct cli_option *find_option(struct cli_option *o, const char *name,
                                      size_t len) {
    for (; o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0) return o;
    return NULL;
}

int cli_given(const struct cli_option *table, const char *name) {
    struct cli_option *o = find_option((struct cli_option *)table, name, strlen(name));
    return o && o->given;
}

/* One option at argv[*i]; steps over its value. */
static int parse_option(const struct cli_command *c, struct cli_option *table, int argc,
                        char **argv, int *i) {
    const char *arg = argv[*i] + 2, *eq = strchr(arg, '=');
    struct cli_option *o = find_option(table, arg, eq ? (size_t)(eq - arg) : strlen(arg));
    if (!o)
        return say_error(EX_USAGE, "%s: unknown option '%s' (microgpt %s --help)",
                         c->name, argv[*i], c->name);
    if (o->type == CLI_FLAG && eq)
        return say_error(EX_USAGE, "%s: --%s takes no value", c->name, o->name);
    if (o->type == CLI_FLAG) return set_value(o, "");
    if (eq) return set_value(o, eq + 1);
    if (*i + 1 >= argc)
        return say_error(EX_USAGE, "%s: --%s needs a value", c->name, o->name);
    return set_value(o, argv[++*i]);
}

/* The first place that is free, NULL: there is none. */
static const char **free_word(const char **words, int max) {
    for (int i = 0; i < max; i++)
        if (!words[i]) return &words[i];
    return NULL;
}

int cli_parse(const struct cli_command *c, struct cli_option *table, int argc,
              char **argv, const char **word) {
    return cli_parse_words(c, table, argc, argv, word, word ? 1 : 0);
}

int cli_parse_words(const struct cli_command *c, struct cli_option *table, int argc,
                    char **argv, const char **words, int max) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(c, table);
            return cli_finish();
        }
        const char **word = free_word(words, max);
        if (argv[i][0] == '-' && argv[i][1] == '-' && argv[i][2]) {
            int rc = parse_option(c, table, argc, argv, &i);
            if (rc) return rc;
        } else if (word && (argv[i][0] != '-' || !argv[i][1])) {
            *word = argv[i];
        } else {
            return say_error(EX_USAGE, "%s: unexpected '%s' (microgpt %s --help)",
                             c->name, argv[i], c->name);
        }
    }
    return -1;
}
