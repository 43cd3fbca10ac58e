/* SPDX-License-Identifier: Apache-2.0
 * attention.c - causal attention of one document (checkpoint.md, forward pass) by matrix
 * products over blocks of queries: block rows i0 ... i1-1 see keys 0 ... i1-1, so little
 * of the upper triangle is computed. Owns the choice between BLIS and plain loops. */
#include "attention.h"

#include "../gemm.h"
#include "vec.h"

#include <math.h>

enum {
    SMALL = 1024
}; /* multiplications below which a call of BLIS costs more than the work */

static void product_small(int m, int n, int k, float alpha, struct operand a,
                          struct operand b, float beta, float *c, ptrdiff_t ldc) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float s = 0.0f;
            for (int l = 0; l < k; l++)
                s += a.p[i * a.row + l * a.col] * b.p[l * b.row + j * b.col];
            c[i * ldc + j] = alpha * s + (beta != 0.0f ? beta * c[i * ldc + j] : 0.0f);
        }
}

static int is_transposed(struct operand a) {
    return a.col != 1;
}

static size_t stride(struct operand a) {
    return (size_t)(a.col != 1 ? a.col : a.row);
}

void product(int m, int n, int k, float alpha, struct operand a, struct operand b,
             float beta, float *c, ptrdiff_t ldc) {
    if ((long)m * n * k <= SMALL)
        product_small(m, n, k, alpha, a, b, beta, c, ldc);
    else
        mg_gemm(is_transposed(a), is_transposed(b), m, n, k, alpha, a.p, stride(a), b.p,
                stride(b), beta, c, (size_t)ldc);
}

static int round_up(int n) {
    return (n + 15) & ~15;
}

size_t attention_probs(int n_head, int n) {
    return (size_t)n_head * (size_t)n * (size_t)round_up(n);
}

static int block_end(int i0, int n) {
    return n - i0 < ATTENTION_BLOCK ? n : i0 + ATTENTION_BLOCK;
}

void attention_forward(int n_head, int d, int n, const float *qkv, float *probs,
                       float *out) {
    int hd = d / n_head, ld = round_up(n), row = 3 * d;
    float scale = 1.0f / sqrtf((float)hd);
    for (int h = 0; h < n_head; h++) {
        const float *q = qkv + h * hd, *k = q + d, *v = k + d;
        float *p = probs + (size_t)h * (size_t)n * (size_t)ld;
        for (int i0 = 0, i1; i0 < n; i0 = i1) {
            i1 = block_end(i0, n);
            float *b = p + (size_t)i0 * (size_t)ld;
            struct operand qb = {q + (ptrdiff_t)i0 * row, row, 1}, kt = {k, 1, row};
            product(i1 - i0, i1, hd, scale, qb, kt, 0.0f, b, ld);
            for (int i = i0; i < i1; i++)
                vec_softmax(i + 1, i1, p + (size_t)i * (size_t)ld);
            product(i1 - i0, hd, i1, 1.0f, (struct operand){b, ld, 1},
                    (struct operand){v, row, 1}, 0.0f, out + (ptrdiff_t)i0 * d + h * hd,
                    d);
        }
    }
}

/* One block of queries of one head. The blocks run from the last to the first: the last
 * one writes the gradients of all keys and values, the others add to them. */
static void backward_block(int hd, int d, int n, int i0, const float *qkv,
                           const float *probs, const float *dout, float *dqkv,
                           float *ds) {
    int ld = round_up(n), row = 3 * d, i1 = block_end(i0, n), m = i1 - i0;
    float scale = 1.0f / sqrtf((float)hd), beta = i1 == n ? 0.0f : 1.0f;
    const float *q = qkv + (ptrdiff_t)i0 * row, *k = qkv + d, *v = k + d;
    const float *p = probs + (size_t)i0 * (size_t)ld;
    const float *go = dout + (ptrdiff_t)i0 * d;
    product(m, i1, hd, 1.0f, (struct operand){go, d, 1}, (struct operand){v, 1, row},
            0.0f, ds, ld);
    product(i1, hd, m, 1.0f, (struct operand){p, 1, ld}, (struct operand){go, d, 1}, beta,
            dqkv + 2 * d, row);
    for (int i = 0; i < m; i++)
        vec_softmax_grad(i1, p + (size_t)i * (size_t)ld, scale,
                         ds + (size_t)i * (size_t)ld);
    product(m, hd, i1, 1.0f, (struct operand){ds, ld, 1}, (struct operand){k, row, 1},
            0.0f, dqkv + (ptrdiff_t)i0 * row, row);
    product(i1, hd, m, 1.0f, (struct operand){ds, 1, ld}, (struct operand){q, row, 1},
            beta, dqkv + d, row);
}

void attention_backward(int n_head, int d, int n, const float *qkv, const float *probs,
                        const float *dout, float *dqkv, float *scratch) {
    int hd = d / n_head, last = (n - 1) / ATTENTION_BLOCK * ATTENTION_BLOCK;
    size_t size = (size_t)n * (size_t)round_up(n);
    for (int h = 0; h < n_head; h++)
        for (int i0 = last; i0 >= 0; i0 -= ATTENTION_BLOCK)
            backward_block(hd, d, n, i0, qkv + h * hd, probs + (size_t)h * size,
                           dout + h * hd, dqkv + h * hd, scratch);
}
