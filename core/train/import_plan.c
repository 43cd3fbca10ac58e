/* SPDX-License-Identifier: Apache-2.0
 * import_plan.c - what was read as one model: sizes from the shapes of the tensors, the
 * given ones compared, every tensor there and of its shape; then rows out of the spool.
 *
 * A transposed tensor is taken where its shape says so. Square ones never do: linear
 * layers that are [in, out] are refused unless the user says that all of them are. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../error.h"
#include "../meta.h"
#include "import.h"

enum { WTE, WPE, LM_HEAD, LAYERS }; /* places in the order of tensors.h */

int import_fail(struct import *im, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return mg_fail(im->err, MG_EFILE, "%s: %s", im->file, text);
}

int import_no_memory(struct import *im) {
    return mg_fail(im->err, MG_ENOMEM, "%s: out of memory", im->file);
}

void import_note(struct import *im, const char *fmt, ...) {
    va_list args;
    if (im->n_notes == IMPORT_NOTES) return;
    va_start(args, fmt);
    vsnprintf(im->note[im->n_notes++], sizeof im->note[0], fmt, args);
    va_end(args);
}

/* ---- what is there ----------------------------------------------------------------- */

static int check_missing(struct import *im) {
    if (im->n_tensors <= WPE || !im->tensor[WTE].seen)
        return import_fail(im,
                           "%swte is missing: expected an object of tensors "
                           "(state_dict or weights), or tensors beside the sizes",
                           im->weights);
    if (!im->tensor[WPE].seen)
        return import_fail(im,
                           "%swpe is missing: a model without a learned table of "
                           "positions (RoPE or another scheme) is not one that the "
                           "service computes",
                           im->weights);
    im->sizes = (struct mg_sizes){.n_layer = 1, .n_embd = 1};
    while (mg_tensor_count(&im->sizes) < im->n_tensors) im->sizes.n_layer++;
    if (im->size[IMPORT_LAYER] > im->sizes.n_layer) im->sizes.n_layer++; /* is missing */
    for (int i = LAYERS; i < mg_tensor_count(&im->sizes); i++)
        if (i >= im->n_tensors || !im->tensor[i].seen)
            return import_fail(im, "%s%s is missing", im->weights,
                               mg_tensor_describe(&im->sizes, i).name);
    return 0;
}

static int check_size(struct import *im, enum import_size size, const char *name,
                      int found, int most) {
    if (im->size[size] && im->size[size] != found)
        return import_fail(im, "%s is %lld, but the tensors say %d", name,
                           (long long)im->size[size], found);
    if (found > most)
        return import_fail(im, "%s: found %d, expected at most %d", name, found, most);
    return 0;
}

/* ---- shapes ------------------------------------------------------------------------ */

static int fail_shape(struct import *im, int i, const char *expected) {
    struct import_tensor *t = &im->tensor[i];
    return import_fail(im, "%s%s: found shape [%d, %d], expected %s", im->weights,
                       mg_tensor_describe(&im->sizes, i).name, t->rows, t->cols,
                       expected);
}

/* The width, from layer 0's queries, which must be square. */
static int plan_width(struct import *im) {
    int at_q = mg_tensor_find("layer0.attn_wq"), at_k = mg_tensor_find("layer0.attn_wk");
    const struct import_tensor *q = &im->tensor[at_q], *k = &im->tensor[at_k];
    const struct import_tensor *wte = &im->tensor[WTE];
    int d = q->rows;
    if (q->rows != q->cols)
        return fail_shape(im, at_q,
                          "a square: heads that are together wider or "
                          "narrower than n_embd are not supported");
    if (wte->rows != d && wte->cols != d)
        return import_fail(im,
                           "%swte: found shape [%d, %d], expected a side of %d, as "
                           "layer0.attn_wq is [%d, %d]",
                           im->weights, wte->rows, wte->cols, d, d, d);
    if ((k->rows < d && k->cols == d) || (k->rows == d && k->cols < d))
        return fail_shape(im, at_k,
                          "a square: grouped heads (fewer of keys and "
                          "values than of queries) are not supported");
    im->sizes.n_embd = d;
    return check_size(im, IMPORT_EMBD, "n_embd", d, MG_MAX_EMBD);
}

/* A table [*rows, n_embd]; *rows from its shape where it is 0. */
static int plan_table(struct import *im, int i, int *rows) {
    struct import_tensor *t = &im->tensor[i];
    int d = im->sizes.n_embd;
    char expected[64];
    if (!*rows) *rows = t->cols == d ? t->rows : t->cols;
    t->transposed = !(t->rows == *rows && t->cols == d);
    if (!t->transposed || (t->rows == d && t->cols == *rows)) return 0;
    snprintf(expected, sizeof expected, "[%d, %d]", *rows, d);
    return fail_shape(im, i, expected);
}

static int is_square(const struct import_tensor *t) {
    return t->rows == t->cols;
}

/* wte and wpe: when one is transposed the other one's shape must say what it is. */
static int plan_tables(struct import *im) {
    struct import_tensor *wte = &im->tensor[WTE], *wpe = &im->tensor[WPE];
    if (plan_table(im, WTE, &im->sizes.vocab_size) ||
        plan_table(im, WPE, &im->sizes.block_size))
        return -1;
    if ((wte->transposed && is_square(wpe)) || (wpe->transposed && is_square(wte)))
        return import_fail(im,
                           "%s%s is transposed and %s is square: whether that one is "
                           "transposed too cannot be seen",
                           im->weights, wte->transposed ? "wte" : "wpe",
                           wte->transposed ? "wpe" : "wte");
    if (check_size(im, IMPORT_BLOCK, "block_size", im->sizes.block_size, MG_MAX_BLOCK))
        return -1;
    return check_size(im, IMPORT_VOCAB, "vocab_size", im->sizes.vocab_size, MG_MAX_VOCAB);
}

static int plan_head(struct import *im, int in_out) {
    struct import_tensor *t = &im->tensor[LM_HEAD];
    if (!t->seen) {
        import_note(im, "lm_head is missing: tied to wte");
        return 0;
    }
    if (plan_table(im, LM_HEAD, &im->sizes.vocab_size)) return -1;
    if (is_square(t)) t->transposed = in_out;
    return 0;
}

/* One matrix of a layer as its shape is; 1 in *as_is or *turned for those that show it.
 * */
static int plan_matrix(struct import *im, int i, int *as_is, int *turned) {
    struct import_tensor *t = &im->tensor[i];
    struct mg_tensor want = mg_tensor_describe(&im->sizes, i);
    char expected[96];
    t->transposed = !(t->rows == want.rows && t->cols == want.cols);
    if (t->transposed && !(t->rows == want.cols && t->cols == want.rows)) {
        snprintf(expected, sizeof expected, "[%d, %d]%s", want.rows, want.cols,
                 want.rows == want.cols ? "" : ", an MLP four times as wide as n_embd");
        return fail_shape(im, i, expected);
    }
    if (!is_square(t)) *(t->transposed ? turned : as_is) = i;
    return 0;
}

/* The layers are [out, in], or all are [in, out] and the user has said so. */
static int plan_layers(struct import *im, int in_out) {
    int as_is = -1, turned = -1, n = mg_tensor_count(&im->sizes);
    for (int i = LAYERS; i < n; i++)
        if (plan_matrix(im, i, &as_is, &turned)) return -1;
    if (in_out ? as_is >= 0 : turned >= 0) {
        int i = in_out ? as_is : turned;
        return import_fail(
            im, "%s%s: found shape [%d, %d], which is [%s]: %s", im->weights,
            mg_tensor_describe(&im->sizes, i).name, im->tensor[i].rows,
            im->tensor[i].cols, in_out ? "out, in" : "in, out",
            in_out       ? "--in-out is not true of it"
            : as_is >= 0 ? "others are [out, in], and of square ones it cannot be seen"
                         : "if all of the model is so, the square ones too, give "
                           "--in-out");
    }
    for (int i = LAYERS; i < n; i++) im->tensor[i].transposed = in_out;
    return 0;
}

/* ---- heads ------------------------------------------------------------------------- */

static int plan_heads(struct import *im, int option) {
    int64_t d = im->sizes.n_embd, dim = im->size[IMPORT_HEAD_DIM];
    int64_t n = im->size[IMPORT_HEAD], kv = im->size[IMPORT_KV_HEAD];
    if (n && option && n != option)
        return import_fail(im, "--n-head is %d, but n_head in the file is %lld", option,
                           (long long)n);
    if (!n) n = option ? option : dim ? d / dim : 0;
    if (!n)
        return import_fail(im, "n_head is not in the file, and no tensor shows it: give "
                               "--n-head (microgpt's default is 4)");
    if (n > d || d % n || (dim && dim * n != d))
        return import_fail(im,
                           "n_head: found %lld%s, expected that n_head heads are n_embd, "
                           "%lld, wide",
                           (long long)n, dim ? " and a head_dim that does not fit" : "",
                           (long long)d);
    if (kv && kv != n)
        return import_fail(im,
                           "n_kv_head: found %lld, but n_head is %lld: grouped heads are "
                           "not supported",
                           (long long)kv, (long long)n);
    im->sizes.n_head = (int)n;
    return 0;
}

int import_plan(struct import *im, const struct import_options *o, struct mg_error *err) {
    im->err = err;
    if (import_flush(im)) return -1;
    if (check_missing(im) || plan_width(im)) return -1;
    if (check_size(im, IMPORT_LAYER, "n_layer", im->sizes.n_layer, MG_MAX_LAYER) ||
        plan_tables(im) || plan_layers(im, o->in_out) || plan_head(im, o->in_out) ||
        plan_heads(im, o->n_head))
        return -1;
    return import_plan_vocab(im, im->sizes.vocab_size);
}

/* ---- rows -------------------------------------------------------------------------- */

static int read_spool(struct import *im, int64_t at, size_t n, float *out) {
    char *to = (char *)out;
    off_t from = (off_t)(at * (int64_t)sizeof *out);
    for (size_t left = n * sizeof *out; left > 0;) {
        ssize_t done = pread(im->spool, to, left, from);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0)
            return mg_fail(im->err, MG_ESYSTEM, "cannot read the weights back: %s",
                           done ? strerror(errno) : "they end early");
        to += done, from += done, left -= (size_t)done;
    }
    return 0;
}

/* Rows row ... row + n - 1 of a tensor, n * [cols] of the checkpoint. */
static int copy_rows(struct import *im, const struct import_tensor *t, int row, int n,
                     float *out) {
    if (!t->transposed)
        return read_spool(im, t->at + (int64_t)row * t->cols, (size_t)n * (size_t)t->cols,
                          out);
    float part[256]; /* of one row of the dump, which is a column */
    for (int c = 0; c < t->rows; c++)
        for (int i = 0; i < n; i += 256) {
            int m = n - i < 256 ? n - i : 256;
            if (read_spool(im, t->at + (int64_t)c * t->cols + row + i, (size_t)m, part))
                return -1;
            for (int k = 0; k < m; k++)
                out[(size_t)(i + k) * (size_t)t->rows + (size_t)c] = part[k];
        }
    return 0;
}

/* The dump's row for a token id of the checkpoint, where bos is the last. */
static int dump_row(const struct import *im, int id) {
    if (id == im->sizes.vocab_size - 1) return im->bos_row;
    return id < im->bos_row ? id : id + 1;
}

int import_rows(struct import *im, int i, int row, int n, float *out,
                struct mg_error *err) {
    const struct import_tensor *t =
        &im->tensor[i == LM_HEAD && !im->tensor[i].seen ? WTE : i];
    int by_token = i == WTE || i == LM_HEAD;
    int cols = t->transposed ? t->rows : t->cols;
    im->err = err;
    if (!by_token || im->bos_row == im->sizes.vocab_size - 1)
        return copy_rows(im, t, row, n, out);
    for (int k = 0; k < n; k++)
        if (copy_rows(im, t, dump_row(im, row + k), 1, out + (size_t)k * (size_t)cols))
            return -1;
    return 0;
}
