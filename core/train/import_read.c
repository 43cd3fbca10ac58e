/* SPDX-License-Identifier: Apache-2.0
 * import_read.c - a dump from its first to its last byte: finds sizes, characters and
 * tensors by the names of their members, wherever the family puts them, and sends the
 * numbers to the spool. What it does not know outside the object of tensors (steps,
 * losses, moments of an optimiser) it passes over; inside, it refuses. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "../error.h"
#include "import.h"

enum { MAX_ROWS = 1 << 21 }; /* and columns: more than the largest size of any tensor */

struct import *import_new(int spool, struct mg_error *err) {
    struct import *im = calloc(1, sizeof *im);
    if (im) im->buffer = calloc(IMPORT_BUFFER, sizeof *im->buffer);
    if (im && im->buffer) {
        im->spool = spool;
        im->vocab.named = -1, im->vocab.bos = -1;
        return im;
    }
    mg_fail(err, MG_ENOMEM, "out of memory");
    free(im);
    return NULL;
}

void import_free(struct import *im) {
    if (!im) return;
    free(im->buffer);
    free(im->tensor);
    free(im->vocab.code);
    free(im->chars);
    free(im);
}

/* ---- the spool --------------------------------------------------------------------- */

static int flush(struct import *im, size_t n) {
    const char *at = (const char *)im->buffer, *end = (const char *)(im->buffer + n);
    while (at < end) {
        ssize_t done = write(im->spool, at, (size_t)(end - at));
        if (done < 0 && errno != EINTR) {
            im->spool_failed = 1;
            return mg_fail(im->err, MG_ESYSTEM, "cannot write the weights: %s",
                           strerror(errno));
        }
        if (done > 0) at += done;
    }
    return 0;
}

int import_flush(struct import *im) {
    return flush(im, (size_t)(im->spooled % IMPORT_BUFFER));
}

static int spool_value(struct import *im, float value) {
    size_t at = (size_t)(im->spooled++ % IMPORT_BUFFER);
    im->buffer[at] = value;
    return at + 1 == IMPORT_BUFFER ? flush(im, IMPORT_BUFFER) : 0;
}

/* ---- tensors ----------------------------------------------------------------------- */

/* The tensor of that index, with room made for it. */
static struct import_tensor *place_tensor(struct import *im, int i) {
    if (i >= im->n_tensors) {
        struct import_tensor *t = realloc(im->tensor, ((size_t)i + 1) * sizeof *t);
        if (!t) {
            import_no_memory(im);
            return NULL;
        }
        memset(t + im->n_tensors, 0, (size_t)(i + 1 - im->n_tensors) * sizeof *t);
        im->tensor = t, im->n_tensors = i + 1;
    }
    return &im->tensor[i];
}

static int read_value(struct import *im, struct pull *p, enum pull_token token) {
    char found[PULL_DESCRIBE];
    if (token != PULL_NUMBER)
        return pull_fail(p, "found %s, expected a %snumber",
                         pull_describe(p, token, found),
                         token == PULL_NONFINITE ? "finite " : "");
    double x = strtod(pull_number(p), NULL);
    if (!isfinite((float)x))
        return pull_fail(p, "found %s, expected a number that F32 can hold, up to 3.4e38",
                         pull_describe(p, token, found));
    return spool_value(im, (float)x);
}

/* A row that has begun; its length must be *cols, which the first one sets. */
static int read_row(struct import *im, struct pull *p, int first, int *cols) {
    int n = 0;
    for (enum pull_token t; (t = pull_next(p)) != PULL_ARRAY_END; n++) {
        if (t == PULL_ERROR || read_value(im, p, t)) return -1;
        if (n == MAX_ROWS) return pull_fail(p, "a row is longer than any that is read");
    }
    if (first) *cols = n;
    if (n == 0) return pull_fail(p, "found an empty row, expected numbers");
    if (n == *cols) return 0;
    return pull_fail(p, "found %d numbers, expected %d as in the rows before", n, *cols);
}

static int read_rows(struct import *im, struct pull *p, struct import_tensor *t) {
    char found[PULL_DESCRIBE];
    for (enum pull_token token; (token = pull_next(p)) != PULL_ARRAY_END; t->rows++) {
        if (token == PULL_ERROR) return -1;
        if (token != PULL_ARRAY)
            return pull_fail(p, "found %s, expected a row: an array of numbers",
                             pull_describe(p, token, found));
        if (read_row(im, p, t->rows == 0, &t->cols)) return -1;
        if (t->rows == MAX_ROWS) return pull_fail(p, "more rows than are read");
    }
    return t->rows ? 0 : pull_fail(p, "found an empty array, expected rows of numbers");
}

static int read_tensor(struct import *im, struct pull *p, enum pull_token token,
                       const char *name) {
    char found[PULL_DESCRIBE];
    int i = mg_tensor_find(name);
    if (i < 0) return import_refuse_tensor(p);
    struct import_tensor *t = place_tensor(im, i);
    if (!t) return -1;
    if (t->seen) return pull_fail(p, "%s is there twice", name);
    if (token != PULL_ARRAY)
        return pull_fail(p, "found %s, expected an array of rows",
                         pull_describe(p, token, found));
    *t = (struct import_tensor){.seen = 1, .at = im->spooled};
    return read_rows(im, p, t);
}

/* The members of an object of tensors; a layer may be an object of its own. */
static int read_tensors(struct import *im, struct pull *p, const char *prefix) {
    for (enum pull_token t; (t = pull_next(p)) != PULL_OBJECT_END;) {
        char name[2 * PULL_KEY + 1];
        if (t == PULL_ERROR) return -1;
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", pull_key(p));
        int nested = t == PULL_OBJECT && !*prefix && strncmp(name, "layer", 5) == 0;
        if (nested ? read_tensors(im, p, name) : read_tensor(im, p, t, name)) return -1;
    }
    return 0;
}

static int read_weights(struct import *im, struct pull *p, enum pull_token token) {
    char found[PULL_DESCRIBE];
    if (token != PULL_OBJECT)
        return pull_fail(p,
                         "found %s, expected an object of tensors by name (a list of "
                         "numbers alone does not say which is which)",
                         pull_describe(p, token, found));
    char path[PULL_PATH];
    snprintf(im->weights, sizeof im->weights, "%.*s.", PULL_PATH - 2, pull_path(p, path));
    return read_tensors(im, p, "");
}

/* ---- sizes ------------------------------------------------------------------------- */

static int find_size(const char *name) {
    static const struct {
        const char *name;
        enum import_size size;
    } names[] = {
        {"n_embd", IMPORT_EMBD},        {"nEmbd", IMPORT_EMBD},
        {"n_head", IMPORT_HEAD},        {"nHead", IMPORT_HEAD},
        {"n_heads", IMPORT_HEAD},       {"num_heads", IMPORT_HEAD},
        {"n_layer", IMPORT_LAYER},      {"nLayer", IMPORT_LAYER},
        {"n_layers", IMPORT_LAYER},     {"num_layers", IMPORT_LAYER},
        {"block_size", IMPORT_BLOCK},   {"blockSize", IMPORT_BLOCK},
        {"vocab_size", IMPORT_VOCAB},   {"vocabSize", IMPORT_VOCAB},
        {"head_dim", IMPORT_HEAD_DIM},  {"headDim", IMPORT_HEAD_DIM},
        {"n_kv_head", IMPORT_KV_HEAD},  {"nKvHead", IMPORT_KV_HEAD},
        {"n_kv_heads", IMPORT_KV_HEAD}, {"num_kv_heads", IMPORT_KV_HEAD},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i].name) == 0) return (int)names[i].size;
    return -1;
}

static int read_size(struct import *im, struct pull *p, enum pull_token token, int size) {
    char found[PULL_DESCRIBE];
    const char *text = pull_number(p);
    if (token == PULL_NULL) return 0;
    int64_t n = token == PULL_NUMBER && strspn(text, "0123456789") == strlen(text)
                    ? strtoll(text, NULL, 10)
                    : 0;
    if (n < 1 || n > 1 << 30)
        return pull_fail(p, "found %s, expected a whole number from 1 to 2^30",
                         pull_describe(p, token, found));
    if (im->size[size] && im->size[size] != n)
        return pull_fail(p, "found %lld, but it was %lld before", (long long)n,
                         (long long)im->size[size]);
    im->size[size] = n;
    return 0;
}

/* ---- members ----------------------------------------------------------------------- */

static int is_one_of(const char *const *names, const char *name) {
    for (; *names; names++)
        if (strcasecmp(*names, name) == 0) return 1;
    return 0;
}

static const char *const weight_names[] = {
    "state_dict", "stateDict", "weights", "state_dict_data", "model_state_dict", NULL};
static const char *const vocab_names[] = {"uchars", "chars", "vocab", "vocabulary", NULL};
static const char *const bos_names[] = {"bos",          "bos_id",     "bos_token",
                                        "bos_token_id", "bosTokenId", NULL};
static const char *const box_names[] = {
    "config",     "cfg",       "hyperparams", "hyperparameters", "hparams", "metadata",
    "meta",       "tokenizer", "model",       "architecture",    "args",    "params",
    "parameters", NULL};

static int read_members(struct import *im, struct pull *p);

/* A member outside the object of tensors. */
static int read_member(struct import *im, struct pull *p, enum pull_token t) {
    const char *key = pull_key(p);
    int size = find_size(key);
    if (size >= 0) return read_size(im, p, t, size);
    if (is_one_of(weight_names, key)) return read_weights(im, p, t);
    if (is_one_of(vocab_names, key))
        return t == PULL_NUMBER ? read_size(im, p, t, IMPORT_VOCAB)
                                : import_read_vocab(im, p, t);
    if (is_one_of(bos_names, key)) return import_read_bos(im, p, t);
    if (import_is_flag(key)) return import_read_flag(p, t);
    if (is_one_of(box_names, key) && t == PULL_OBJECT) return read_members(im, p);
    if (strcmp(key, "special_tokens") == 0) im->vocab.has_special = t == PULL_ARRAY;
    if (mg_tensor_find(key) >= 0 || (strncmp(key, "layer", 5) == 0 && strchr(key, '.')))
        return read_tensor(im, p, t, key);
    return pull_skip(p, t);
}

static int read_members(struct import *im, struct pull *p) {
    for (enum pull_token t; (t = pull_next(p)) != PULL_OBJECT_END;)
        if (t == PULL_ERROR || read_member(im, p, t)) return -1;
    return 0;
}

static int read_text(struct import *im, struct pull *p) {
    char found[PULL_DESCRIBE];
    enum pull_token t = pull_next(p);
    if (t == PULL_ERROR) return -1;
    if (t != PULL_OBJECT)
        return pull_fail(p, "found %s, expected an object", pull_describe(p, t, found));
    return read_members(im, p) || pull_next(p) != PULL_EOF ? -1 : 0;
}

int import_read(struct import *im, int fd, const char *file, struct mg_error *err) {
    im->file = file, im->err = err;
    struct pull *p = pull_open(fd, file, err);
    int rc = p ? read_text(im, p) : -1;
    pull_close(p);
    return rc ? -1 : 0;
}
