/* SPDX-License-Identifier: Apache-2.0
 * attention.c - causal attention of one document (microgpt-checkpoint(5), forward pass)
 * by matrix products over blocks of queries: block rows i0 ... i1-1 see keys 0 ...
 * i1-1, so little of the upper triangle is computed. Keys (and, backward, values) of a
 * head are transposed once, so that every product takes its right operand by rows. */
#include "attention.h"

#include "tile.h"
#include "vec.h"

#include <math.h>

enum { BLOCK = 48 }; /* queries at a time */

/* One head of one document. */
struct head {
    int n, hd, d,
        ld; /* positions, width of the head and of the model, n up to a multiple of 16 */
    float scale;
    const float *q, *k, *v; /* rows at 3 d */
    float *turned;          /* [hd][ld] keys or values, transposed */
};

static int round_up(int n) {
    return (n + 15) & ~15;
}

static int block_end(int i0, int n) {
    return n - i0 < BLOCK ? n : i0 + BLOCK;
}

size_t attention_probs(int n_head, int n) {
    return (size_t)n_head * (size_t)n * (size_t)round_up(n);
}

size_t attention_scratch(int n_head, int d, int n) {
    return (size_t)(BLOCK + d / n_head) * (size_t)round_up(n);
}

static struct head find_head(int n_head, int d, int n, const float *qkv, int h,
                             float *scratch) {
    int hd = d / n_head;
    const float *q = qkv + h * hd;
    return (struct head){.n = n,
                         .hd = hd,
                         .d = d,
                         .ld = round_up(n),
                         .scale = 1.0f / sqrtf((float)hd),
                         .q = q,
                         .k = q + d,
                         .v = q + 2 * d,
                         .turned = scratch};
}

/* t->turned = x transposed, x [n][hd] with rows at 3 d; zeros behind. */
static void turn(const struct head *t, const float *x) {
    for (ptrdiff_t j = 0; j < t->hd; j++) {
        float *row = t->turned + j * t->ld;
        for (ptrdiff_t i = 0; i < t->n; i++) row[i] = x[i * 3 * t->d + j];
        for (int i = t->n; i < t->ld; i++) row[i] = 0.0f;
    }
}

/* Probabilities and output of queries i0 ... i1-1. p: their rows of probs. */
static void forward_block(const struct head *t, int i0, int i1, float *p, float *out) {
    ptrdiff_t row = 3 * t->d, ld = t->ld;
    struct operand q = {t->q + i0 * row, row, 1};
    tile_product(i1 - i0, round_up(i1), t->hd, t->scale, q, t->turned, ld, 0, p, ld);
    for (int i = i0; i < i1; i++) vec_softmax(i + 1, i1, p + (i - i0) * ld);
    tile_product(i1 - i0, t->hd, i1, 1.0f, (struct operand){p, ld, 1}, t->v, row, 0,
                 out + (ptrdiff_t)i0 * t->d, t->d);
}

void attention_forward(int n_head, int d, int n, const float *qkv, float *probs,
                       float *out, float *scratch) {
    for (int h = 0; h < n_head; h++) {
        struct head t = find_head(n_head, d, n, qkv, h, scratch);
        float *p = probs + (ptrdiff_t)h * n * t.ld;
        turn(&t, t.k);
        for (int i0 = 0, i1; i0 < n; i0 = i1) {
            i1 = block_end(i0, n);
            forward_block(&t, i0, i1, p + (ptrdiff_t)i0 * t.ld, out + h * t.hd);
        }
    }
}

/* Gradients that come through queries i0 ... i1-1. The blocks run from the last to the
 * first: the last one writes the gradients of all keys and values, the others add to
 * them. p: their rows of probs; dq: gradient of the head's queries, keys and values
 * behind it as in qkv. */
static void backward_block(const struct head *t, int i0, int i1, const float *p,
                           const float *dout, float *dq, float *ds) {
    ptrdiff_t row = 3 * t->d, ld = t->ld, m = i1 - i0;
    int add = i1 != t->n;
    const float *go = dout + (ptrdiff_t)i0 * t->d, *q = t->q + i0 * row;
    tile_product((int)m, round_up(i1), t->hd, 1.0f, (struct operand){go, t->d, 1},
                 t->turned, ld, 0, ds, ld);
    tile_product(i1, t->hd, (int)m, 1.0f, (struct operand){p, 1, ld}, go, t->d, add,
                 dq + 2 * t->d, row);
    for (int i = 0; i < m; i++) vec_softmax_grad(i1, p + i * ld, t->scale, ds + i * ld);
    tile_product((int)m, t->hd, i1, 1.0f, (struct operand){ds, ld, 1}, t->k, row, 0,
                 dq + i0 * row, row);
    tile_product(i1, t->hd, (int)m, 1.0f, (struct operand){ds, 1, ld}, q, row, add,
                 dq + t->d, row);
}

void attention_backward(int n_head, int d, int n, const float *qkv, const float *probs,
                        const float *dout, float *dqkv, float *scratch) {
    int last = (n - 1) / BLOCK * BLOCK;
    for (int h = 0; h < n_head; h++) {
        struct head t = find_head(n_head, d, n, qkv, h, scratch);
        const float *p = probs + (ptrdiff_t)h * n * t.ld;
        turn(&t, t.v);
        for (int i0 = last; i0 >= 0; i0 -= BLOCK)
            backward_block(&t, i0, block_end(i0, n), p + (ptrdiff_t)i0 * t.ld,
                           dout + h * t.hd, dqkv + h * t.hd,
                           scratch + (ptrdiff_t)t.hd * t.ld);
    }
}
