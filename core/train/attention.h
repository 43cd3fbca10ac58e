/* SPDX-License-Identifier: Apache-2.0
 * attention.h - causal attention of one document, forward and backward. Internal to
 * training. */
#ifndef TRAIN_ATTENTION_H
#define TRAIN_ATTENTION_H

#include <stddef.h>

/* Floats of probabilities that n positions need: [n_head][n][ld], ld = n rounded up
 * to 16. */
size_t attention_probs(int n_head, int n);
/* Floats of scratch for both calls. */
size_t attention_scratch(int n_head, int d, int n);

/* qkv: [n][3 d] rows of query, key, value; out: [n][d]; probs: attention_probs floats. */
void attention_forward(int n_head, int d, int n, const float *qkv, float *probs,
                       float *out, float *scratch);

/* From dout [n][d] to dqkv [n][3 d] (overwritten). */
void attention_backward(int n_head, int d, int n, const float *qkv, const float *probs,
                        const float *dout, float *dqkv, float *scratch);

#endif
