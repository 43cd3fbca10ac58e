/* SPDX-License-Identifier: Apache-2.0
 * verify.c - `microgpt verify`: receipts from files, each computed again by the service's
 * own parts (fcgi/replay.h), which is why this one command may include a header of
 * fcgi/. Knows where a receipt begins and ends, not what is in it. */
#include "cli.h"

#include "../../fcgi/replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Receipts one after the other: a line each, or laid out over more lines. */
struct reader {
    FILE *file;
    const char *name;
    int line;   /* being read */
    int first;  /* where the receipt in text begins */
    char *text; /* [len] */
    size_t len, cap;
    int depth, in_string, escaped; /* of JSON, at the end of text */
};

struct tally {
    long receipts, unreadable, differ;
};

/* ---- reading ----------------------------------------------------------------------- */

static int add(struct reader *r, char c) {
    if (r->len == r->cap) {
        size_t cap = r->cap * 2 + 4096;
        char *grown = realloc(r->text, cap);
        if (!grown) return say_error(EX_OSERR, "out of memory for a receipt");
        r->text = grown, r->cap = cap;
    }
    r->text[r->len++] = c;
    return 0;
}

static void follow(struct reader *r, int c) {
    if (r->escaped) {
        r->escaped = 0;
    } else if (r->in_string) {
        r->escaped = c == '\\';
        r->in_string = c != '"';
    } else {
        r->in_string = c == '"';
        r->depth += (c == '{') - (c == '}');
    }
}

/* The receipt is over: behind its last brace, or, when it is broken, at the end of a line
 * or before a line that begins another. */
static int ends(const struct reader *r, int c) {
    if (r->depth <= 0 && !r->in_string) return c == '}' || c == '\n';
    if (c != '\n') return r->len > REPLAY_MAX_RECEIPT;
    int next = getc(r->file);
    if (next != EOF) ungetc(next, r->file);
    return next == '{';
}

static int skip_blank(struct reader *r) {
    int c;
    while ((c = getc(r->file)) == '\n' || c == ' ' || c == '\t' || c == '\r')
        r->line += c == '\n';
    return c;
}

/* The next receipt into text; len 0: there is none. An exit code when that fails. */
static int next_receipt(struct reader *r) {
    int c = skip_blank(r), rc = 0;
    r->len = 0;
    r->depth = r->in_string = r->escaped = 0;
    r->first = r->line;
    for (; c != EOF && !rc; c = getc(r->file)) {
        rc = add(r, (char)c);
        follow(r, c);
        r->line += c == '\n';
        if (ends(r, c)) break;
    }
    if (!ferror(r->file)) return rc;
    return say_error(EX_IOERR, "%s: %s", r->name, strerror(errno));
}

/* ---- checking ---------------------------------------------------------------------- */

static int check_all(struct replay *p, struct reader *r, struct tally *t) {
    char text[512];
    for (;;) {
        int rc = next_receipt(r);
        if (rc || r->len == 0) return rc;
        enum replay_verdict v = replay_check(p, r->text, r->len, text, sizeof text);
        t->receipts++;
        t->differ += v == REPLAY_DIFFERS;
        t->unreadable += v == REPLAY_UNREADABLE;
        printf("%s:%d: %s\n", r->name, r->first, text);
    }
}

static int check_file(struct replay *p, const char *name, struct tally *t) {
    struct reader r = {.name = name, .line = 1};
    int is_stdin = strcmp(name, "-") == 0;
    r.file = is_stdin ? stdin : fopen(name, "rb");
    if (!r.file) return say_error(EX_NOINPUT, "%s: %s", name, strerror(errno));
    int rc = check_all(p, &r, t);
    if (!is_stdin) fclose(r.file);
    free(r.text);
    return rc;
}

static int check_files(struct replay *p, const char *const *names) {
    struct tally t = {0};
    int rc = 0;
    if (!*names) rc = check_file(p, "-", &t);
    for (; *names && !rc; names++) rc = check_file(p, *names, &t);
    if (rc) return rc;
    if (t.receipts == 0) return say_error(EX_DATAERR, "there is no receipt");
    rc = cli_finish();
    return rc ? rc : t.unreadable ? EX_DATAERR : t.differ ? 1 : 0;
}

/* ---- options ----------------------------------------------------------------------- */

/* The place of word among choices; -1 after the complaint. */
static int choose(const char *option, const char *word, const char *const *choices) {
    for (int i = 0; choices[i]; i++)
        if (strcmp(word, choices[i]) == 0) return i;
    return say_error(-1, "--%s: there is no '%s'", option, word);
}

static int verify(const struct replay_options *o, const char *const *files) {
    char text[512];
    int code;
    if (!o->model_dir) return say_error(EX_USAGE, "give the model: --model DIR");
    struct replay *p = replay_open(o, &code, text, sizeof text);
    if (!p) return say_error(code, "%s", text);
    code = check_files(p, files);
    replay_close(p);
    return code;
}

int verify_main(const struct cli_command *self, int argc, char **argv) {
    static const char *const kinds[] = {"f32", "f16", NULL};
    static const char *const versions[] = {"none", "0.5", "0.6", NULL};
    static const char *const sets[] = {"auto", "avx2", "plain", NULL};
    const char *dir = NULL, *kv = "f32", *compat = "none", *kernels = "auto";
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &dir, 0, 0, "the checkpoint that replied", 0},
        {"kv", "f32|f16", CLI_STRING, &kv, 0, 0, "as the service had it", 0},
        {"compat", "0.5|0.6", CLI_STRING, &compat, 0, 0, "as the service had it", 0},
        {"kernels", "auto|avx2|plain", CLI_STRING, &kernels, 0, 0,
         "the best instruction set to use", 0},
        {0},
    };
    const char **files = calloc((size_t)argc + 1, sizeof *files);
    if (!files) return say_error(EX_OSERR, "out of memory");
    int rc = cli_parse_words(self, table, argc, argv, files, argc);
    if (rc < 0) {
        int k = choose("kv", kv, kinds), v = choose("compat", compat, versions);
        int s = choose("kernels", kernels, sets);
        struct replay_options o = {.model_dir = dir, .kv = (enum mg_kv)k, .compat = v};
        if (s > 0) o.no_better = sets[s];
        rc = k < 0 || v < 0 || s < 0 ? EX_USAGE : verify(&o, files);
    }
    free(files);
    return rc;
}
