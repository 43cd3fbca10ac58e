/* SPDX-License-Identifier: Apache-2.0
 * gemm.h - what BLIS does for us: matrix products of training, and the second engine of
 * the forward pass. Internal to core; ops_blis.c is the only file that includes BLIS. */
#ifndef MG_GEMM_H
#define MG_GEMM_H

#include "ops.h"

/* C = alpha op(A) op(B) + beta C, row-major; C is [m, n], op(A) [m, k], op(B) [k, n],
 * op(X) = X' where the trans flag is 1. ld: floats between rows as stored. beta 0 does
 * not read C. One thread per call; any number of threads may call. */
void mg_gemm(int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
             size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);

/* The native table with products by BLIS. Their bits do not depend on the number of rows.
 */
const struct mg_ops *mg_ops_blis(const struct mg_ops *native);

#endif
