/* SPDX-License-Identifier: Apache-2.0
 * ops.h - the kernels: one table of functions per instruction set, same bits from all of
 * them.
 *
 * Order of every float sum, the promise that makes replies reproducible: 16 parts over k,
 * part i takes k = i, i+16, ... by fma from 0 (tail padded with zeros), then a tree:
 * p[i]+p[i+8], +4, +2, +1. Attention: a score is fma chains over eight elements of the
 * head each, added up in their order; exp(score - max) are added up in 16 parts by
 * position, without fma, and the same tree; so are share * value, by fma.
 * A NaN or Inf that arises is handed on to the logits, never hidden.
 * Internal to core. */
#ifndef MG_OPS_H
#define MG_OPS_H

#include "matrix.h"
#include "microgpt.h"

enum mg_epilogue { MG_SET, MG_ADD, MG_RELU }; /* y = s;  y += s;  y = max(s, 0) */

/* The KV cache of one lane and layer; its layout is the kernels' own business. */
struct mg_kv_shape {
    int n_head, head_dim, block_size;
    enum mg_kv type;
};

struct mg_ops {
    const char *name;
    /* y[r][o] (op)= sum_k x[r][k] w[o][k]; x: rows at ldx floats, y: rows at ldy floats.
     * x rows may be read up to the next multiple of 16 floats (finite values, not
     * used). */
    void (*linear)(const struct mg_matrix *w, int rows, const float *x, size_t ldx,
                   float *y, size_t ldy, enum mg_epilogue op);
    /* y = x / sqrt(mean(x^2) + 1e-5) */
    void (*rmsnorm)(int n, const float *x, float *y);
    /* y[k] = a[row_a][k] + b[row_b][k], widened to float */
    void (*embed)(const struct mg_matrix *a, int row_a, const struct mg_matrix *b,
                  int row_b, float *y);
    /* Store rows of keys and values for positions pos ... pos+rows-1. */
    void (*kv_store)(const struct mg_kv_shape *, void *kv, int pos, int rows,
                     const float *k, const float *v, size_t ld);
    /* Causal attention of rows queries at positions pos ...; o may not overlap q. */
    void (*attend)(const struct mg_kv_shape *, const void *kv, int pos, int rows,
                   const float *q, size_t ldq, float *o, size_t ldo, float *scratch);
    /* p[i] = exp((l[i] - max) / temperature) in double; p has room for a multiple of 16.
     * An l[i] above max counts as max. */
    void (*weights)(int n, const float *l, float max, double temperature, double *p);
    /* Largest logit into *max; 0, or -1 if one of them is not finite. */
    int (*max_finite)(int n, const float *l, float *max);
    /* Index of the first element that is NaN or Inf, -1 if none. */
    int64_t (*find_nonfinite)(enum mg_dtype, const void *data, size_t n);
    /* dst[i] = src[i] widened to float */
    void (*widen)(enum mg_dtype, const void *src, size_t n, float *dst);
};

size_t mg_kv_bytes(const struct mg_kv_shape *);              /* one lane, one layer */
size_t mg_attend_scratch_floats(const struct mg_kv_shape *); /* for attend */

/* The table for this machine. MG_KERNELS_BLIS: the native one with products by BLIS. */
const struct mg_ops *mg_ops_choose(enum mg_kernels, const char *no_better);
/* All tables this CPU can run, by index, NULL after the last: for tests and the bench. */
const struct mg_ops *mg_ops_get(int i);

#endif
