/* SPDX-License-Identifier: Apache-2.0
 * tile.c - see tile.h. C is computed in tiles of up to six rows and a vector of columns,
 * held in registers over the whole sum. Compiled for several instruction sets, with fused
 * products and sums where there are any: like BLIS, the bits are those of the machine. */
#include "tile.h"

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) &&              \
    !defined(__SANITIZE_THREAD__)
#define CLONES                                                                           \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 6, WIDE = 16, NARROW = 4 };

typedef float wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));
typedef float narrow __attribute__((vector_size(4 * NARROW), aligned(4), may_alias));

/* One tile of `rows` (a constant to the compiler) by the width of vec. */
#define DEFINE_TILE(name, vec)                                                           \
    INLINE void name(const int rows, int k, float alpha, struct operand a,               \
                     const float *b, ptrdiff_t ldb, int add, float *c, ptrdiff_t ldc) {  \
        vec s[ROWS] = {0};                                                               \
        for (ptrdiff_t l = 0; l < k; l++) {                                              \
            vec x = *(const vec *)(b + l * ldb);                                         \
            for (int r = 0; r < rows; r++) s[r] += a.p[r * a.row + l * a.col] * x;       \
        }                                                                                \
        for (int r = 0; r < rows; r++) {                                                 \
            vec *out = (vec *)(c + r * ldc);                                             \
            *out = add ? *out + alpha * s[r] : alpha * s[r];                             \
        }                                                                                \
    }
DEFINE_TILE(tile_wide, wide)
DEFINE_TILE(tile_narrow, narrow)
DEFINE_TILE(tile_single, float)

/* All columns of `rows` rows. */
INLINE void band(const int rows, int n, int k, float alpha, struct operand a,
                 const float *b, ptrdiff_t ldb, int add, float *c, ptrdiff_t ldc) {
    int j = 0;
    for (; j + WIDE <= n; j += WIDE)
        tile_wide(rows, k, alpha, a, b + j, ldb, add, c + j, ldc);
    for (; j + NARROW <= n; j += NARROW)
        tile_narrow(rows, k, alpha, a, b + j, ldb, add, c + j, ldc);
    for (; j < n; j++) tile_single(rows, k, alpha, a, b + j, ldb, add, c + j, ldc);
}

CLONES void tile_product(int m, int n, int k, float alpha, struct operand a,
                         const float *b, ptrdiff_t ldb, int add, float *c,
                         ptrdiff_t ldc) {
    int i = 0;
    for (; i + ROWS <= m; i += ROWS, a.p += ROWS * a.row, c += ROWS * ldc)
        band(ROWS, n, k, alpha, a, b, ldb, add, c, ldc);
    switch (m - i) {
    case 5: band(5, n, k, alpha, a, b, ldb, add, c, ldc); break;
    case 4: band(4, n, k, alpha, a, b, ldb, add, c, ldc); break;
    case 3: band(3, n, k, alpha, a, b, ldb, add, c, ldc); break;
    case 2: band(2, n, k, alpha, a, b, ldb, add, c, ldc); break;
    case 1: band(1, n, k, alpha, a, b, ldb, add, c, ldc); break;
    default: break;
    }
}
