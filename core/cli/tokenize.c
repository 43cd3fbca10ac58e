/* SPDX-License-Identifier: Apache-2.0
 * tokenize.c - `microgpt tokenize` and `detokenize`: text on standard input to token ids
 * and back, whole, or a JSON value a line. What a text becomes is what a message becomes
 * in the service. */
#include "cli.h"
#include "../train/utf8.h"

#include "../file.h"
#include "../model.h"
#include "../text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 64 << 20, SOME = 4096 };

struct tool {
    const char *dir, *file;
    int jsonl, special;
    struct mg_model *model;         /* of dir */
    struct mg_tokenizer *tokenizer; /* of file; else the model's */
    void *scratch;
    size_t longest; /* text that fits scratch */
    int64_t line;   /* of standard input, with jsonl */
};

static int out_of_memory(void) {
    return say_error(EX_OSERR, "out of memory for the text");
}

/* ---- the tokenizer ----------------------------------------------------------------- */

static int open_file(struct tool *t, struct mg_error *err) {
    size_t len;
    char *text = mg_file_read(AT_FDCWD, t->file, t->file, MG_BPE_MAX_FILE, &len, err);
    if (text) t->tokenizer = mg_tokenizer_bpe(t->file, text, len, err);
    free(text);
    return t->tokenizer ? 0 : -1;
}

static int open_tokenizer(struct tool *t) {
    struct mg_error err = {0};
    if (!t->dir == !t->file)
        return say_error(EX_USAGE, "give either --model DIR or --tokenizer FILE");
    if (t->file) return open_file(t, &err) ? say_model_error(&err) : 0;
    t->model = mg_model_open(t->dir, NULL, &err);
    return t->model ? 0 : say_model_error(&err);
}

static const struct mg_tokenizer *tokenizer_of(const struct tool *t) {
    return t->model ? t->model->tokenizer : t->tokenizer;
}

static void close_tokenizer(struct tool *t) {
    mg_model_close(t->model);
    mg_tokenizer_free(t->tokenizer);
    free(t->scratch);
}

/* ---- text to ids ------------------------------------------------------------------- */

static int reserve_scratch(struct tool *t, size_t len) {
    const struct mg_tokenizer *tok = tokenizer_of(t);
    size_t bytes = tok->calls->scratch_bytes(tok, len);
    if (len <= t->longest || bytes == 0) return 0;
    free(t->scratch);
    t->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    t->longest = t->scratch ? len : 0;
    return t->scratch ? 0 : out_of_memory();
}

/* "piece": a JSON string, but that bytes which are no whole character are \xNN. */
static void print_piece(const char *bytes, size_t len) {
    putchar('"');
    for (size_t i = 0; i < len;) {
        int32_t code;
        int n = utf8_decode(bytes + i, bytes + len, &code);
        unsigned char b = (unsigned char)bytes[i];
        if (n == 0 || b < ' ' || b == 0x7F)
            printf("\\x%02x", b);
        else if (b == '"' || b == '\\')
            printf("\\%c", b);
        else
            fwrite(bytes + i, 1, (size_t)n, stdout);
        i += n ? (size_t)n : 1;
    }
    putchar('"');
}

static void print_id(const struct tool *t, int32_t id, int first) {
    if (t->jsonl) {
        printf(first ? "%d" : ",%d", (int)id);
        return;
    }
    size_t len;
    const char *bytes = mg_tokenizer_spelling(tokenizer_of(t), id, &len);
    printf("%d\t", (int)id);
    print_piece(bytes, len);
    putchar('\n');
}

static int encode(struct tool *t, const char *text, size_t len) {
    struct mg_encoding e;
    int32_t ids[SOME];
    int first = 1, rc = reserve_scratch(t, len);
    if (rc) return rc;
    mg_encoding_begin(&e, tokenizer_of(t), text, len, t->scratch);
    e.special = t->special;
    if (t->jsonl) putchar('[');
    while (!e.done) {
        size_t n = mg_encoding_run(&e, SIZE_MAX, ids, SOME);
        for (size_t i = 0; i < n; i++, first = 0) print_id(t, ids[i], first);
    }
    if (t->jsonl) puts("]");
    return 0;
}

/* ---- ids to text ------------------------------------------------------------------- */

struct ids {
    int32_t *id;
    size_t n, cap;
};

static int add_id(struct ids *ids, int64_t id) {
    if (ids->n == ids->cap) {
        size_t cap = ids->cap * 2 + SOME;
        int32_t *p = realloc(ids->id, cap * sizeof *p);
        if (!p) return out_of_memory();
        ids->id = p, ids->cap = cap;
    }
    ids->id[ids->n++] = id > INT32_MAX ? INT32_MAX : (int32_t)id; /* both unknown */
    return 0;
}

static const char *bytes_of(const struct tool *t, int32_t id, size_t *len) {
    return t->special ? mg_tokenizer_spelling(tokenizer_of(t), id, len)
                      : mg_tokenizer_text(tokenizer_of(t), id, len);
}

static void print_text(const struct tool *t, const char *text, size_t len) {
    if (!t->jsonl) {
        fwrite(text, 1, len, stdout);
        return;
    }
    json_t *s = json_stringn(text, len);
    json_dumpf(s, stdout, JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(s);
}

static int decode(const struct tool *t, const struct ids *ids) {
    size_t cap = 3, len;
    for (size_t i = 0; i < ids->n; i++) bytes_of(t, ids->id[i], &len), cap += 3 * len;
    char *buf = malloc(cap);
    if (!buf) return out_of_memory();
    struct mg_text text;
    mg_text_init(&text, buf, cap, 0);
    for (size_t i = 0; i < ids->n; i++) {
        const char *bytes = bytes_of(t, ids->id[i], &len);
        mg_text_append(&text, bytes, len);
    }
    mg_text_finish(&text);
    print_text(t, buf, text.visible);
    free(buf);
    return 0;
}

/* Ids between white space; from a tab to the end of its line is what tokenize prints
 * beside an id. */
static int parse_ids(struct tool *t, const char *text, size_t len) {
    struct ids ids = {0};
    int rc = 0;
    for (const char *p = text, *end = text + len; !rc && p < end;) {
        char *after;
        if (*p == '\t') {
            const char *newline = memchr(p, '\n', (size_t)(end - p));
            p = newline ? newline : end;
        } else if (isspace((unsigned char)*p)) {
            p++;
        } else {
            errno = 0;
            long long id = strtoll(p, &after, 10);
            if (!isdigit((unsigned char)*p) || errno ||
                (after < end && !isspace((unsigned char)*after)))
                rc = say_error(EX_DATAERR, "standard input, byte %zu: no token id",
                               (size_t)(p - text) + 1);
            else
                rc = add_id(&ids, id);
            p = after;
        }
    }
    if (!rc) rc = decode(t, &ids);
    free(ids.id);
    return rc;
}

/* ---- standard input ---------------------------------------------------------------- */

static int bad_line(const struct tool *t, const char *what) {
    return say_error(EX_DATAERR, "standard input:%lld: %s", (long long)t->line, what);
}

static int encode_json(struct tool *t, const json_t *v) {
    if (!json_is_string(v)) return bad_line(t, "expected a JSON string");
    return encode(t, json_string_value(v), json_string_length(v));
}

static int decode_json(struct tool *t, const json_t *v) {
    struct ids ids = {0};
    int rc = json_is_array(v) ? 0 : bad_line(t, "expected a JSON array of token ids");
    for (size_t i = 0; !rc && i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        rc = json_is_integer(id) && json_integer_value(id) >= 0
                 ? add_id(&ids, json_integer_value(id))
                 : bad_line(t, "expected a JSON array of token ids");
    }
    if (!rc) rc = decode(t, &ids);
    free(ids.id);
    return rc;
}

static int take_lines(struct tool *t, int (*take)(struct tool *, const json_t *)) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int rc = 0;
    while (!rc && (len = getline(&line, &cap, stdin)) >= 0) {
        json_error_t error;
        t->line++;
        json_t *v =
            json_loadb(line, (size_t)len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        rc = v ? take(t, v) : bad_line(t, error.text);
        json_decref(v);
    }
    free(line);
    return rc;
}

/* All of it, at most MAX_TEXT bytes, with a NUL behind; NULL after the complaint, whose
 * code is in *rc. */
static char *read_all(size_t *len, int *rc) {
    char *text = malloc(MAX_TEXT + 2);
    *len = text ? fread(text, 1, MAX_TEXT + 1, stdin) : 0;
    *rc = !text             ? out_of_memory()
          : ferror(stdin)   ? say_error(EX_IOERR, "standard input: %s", strerror(errno))
          : *len > MAX_TEXT ? say_error(EX_DATAERR, "standard input: more than 64 MiB")
                            : 0;
    if (!*rc) {
        text[*len] = '\0';
        return text;
    }
    free(text);
    return NULL;
}

static int encode_all(struct tool *t, const char *text, size_t len) {
    if (!utf8_valid(text, len))
        return say_error(EX_DATAERR, "standard input is not UTF-8");
    return encode(t, text, len);
}

/* ---- commands ---------------------------------------------------------------------- */

struct direction {
    int (*json)(struct tool *, const json_t *);
    int (*all)(struct tool *, const char *, size_t);
    const char *jsonl, *special; /* help */
};

static int work(struct tool *t, const struct direction *d) {
    if (t->jsonl) return take_lines(t, d->json);
    size_t len;
    int rc;
    char *text = read_all(&len, &rc);
    if (text) rc = d->all(t, text, len);
    free(text);
    return rc;
}

static int run(const struct cli_command *self, int argc, char **argv,
               const struct direction *d) {
    struct tool t = {0};
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &t.dir, 0, 0, "the tokenizer of a checkpoint", 0},
        {"tokenizer", "FILE", CLI_STRING, &t.file, 0, 0, "a tokenizer.json", 0},
        {"jsonl", NULL, CLI_FLAG, &t.jsonl, 0, 0, d->jsonl, 0},
        {"special", NULL, CLI_FLAG, &t.special, 0, 0, d->special, 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, NULL);
    if (rc >= 0) return rc;
    rc = open_tokenizer(&t);
    if (!rc) rc = work(&t, d);
    close_tokenizer(&t);
    int out = cli_finish();
    return rc ? rc : out;
}

int tokenize_main(const struct cli_command *self, int argc, char **argv) {
    static const struct direction d = {
        encode_json, encode_all, "a JSON string a line in, an array of ids a line out",
        "text that spells a special token becomes it"};
    return run(self, argc, argv, &d);
}

int detokenize_main(const struct cli_command *self, int argc, char **argv) {
    static const struct direction d = {
        decode_json, parse_ids, "an array of ids a line in, a JSON string a line out",
        "special tokens appear as they are written"};
    return run(self, argc, argv, &d);
}
