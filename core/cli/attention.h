/* SPDX-License-Identifier: Apache-2.0
 * attention.h - causal attention of one document, forward and backward. Internal to
 * training. */
#ifndef CLI_ATTENTION_H
#define CLI_ATTENTION_H

#include <stddef.h>

enum { ATTENTION_BLOCK = 64 }; /* queries per matrix product */

/* C[m][n] = beta C + alpha A B; of a and b one stride (rows, columns) is 1; c has rows at
 * ldc. */
struct operand {
    const float *p;
    ptrdiff_t row, col;
};
void product(int m, int n, int k, float alpha, struct operand a, struct operand b,
             float beta, float *c, ptrdiff_t ldc);

/* Floats of probabilities that n positions need: [n_head][n][ld], ld = n rounded up
 * to 16. */
size_t attention_probs(int n_head, int n);

/* qkv: [n][3 d] rows of query, key, value; out: [n][d]; probs: attention_probs floats. */
void attention_forward(int n_head, int d, int n, const float *qkv, float *probs,
                       float *out);

/* From dout [n][d] to dqkv [n][3 d] (overwritten). scratch: ATTENTION_BLOCK * ld floats.
 */
void attention_backward(int n_head, int d, int n, const float *qkv, const float *probs,
                        const float *dout, float *dqkv, float *scratch);

#endif
