/* SPDX-License-Identifier: Apache-2.0
 * tile.h - the small matrix products of attention, for which a call of BLIS would spend
 * its time on packing: one operand is used as it lies, by rows. Leaf. */
#ifndef TRAIN_TILE_H
#define TRAIN_TILE_H

#include <stddef.h>

/* Element (i, l) at p[i * row + l * col]. */
struct operand {
    const float *p;
    ptrdiff_t row, col;
};

/* C [m][n] = alpha A [m][k] B [k][n], or with add C += alpha A B; rows of B and C at ldb,
 * ldc. Every element is one sum over l = 0 ... k-1, so its bits do not depend on m and n.
 */
void tile_product(int m, int n, int k, float alpha, struct operand a, const float *b,
                  ptrdiff_t ldb, int add, float *c, ptrdiff_t ldc);

#endif
