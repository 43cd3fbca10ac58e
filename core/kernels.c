/* SPDX-License-Identifier: Apache-2.0
 * kernels.c - the kernels of one instruction set. Compiled once for each (the Makefile
 * gives the machine flags and -DMG_ISA=name), with the same bits from all of them: the
 * width of a vector only says how many of the sixteen parts of a sum advance at once
 * (ops.h).
 *
 * Knows matrices and floats; nothing of models, batches or requests. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined __AVX512F__ || defined __AVX2__
#include <immintrin.h>
#elif defined __ARM_NEON
#include <arm_neon.h>
#endif
#include "ops.h"

static size_t kv_blocks(const struct mg_kv_shape *kv) {
    return ((size_t)kv->block_size + 15) / 16;
}

#include "kernels_vec.inc.h"
#include "kernels_linear.inc.h"
#include "kernels_attend.inc.h"
#include "kernels_small.inc.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b)  JOIN2(a, b)
#define NAME2(a)    #a
#define NAME(a)     NAME2(a)

extern const struct mg_ops JOIN(mg_ops_, MG_ISA);
const struct mg_ops JOIN(mg_ops_, MG_ISA) = {
    .name = NAME(MG_ISA),
    .linear = linear,
    .rmsnorm = rmsnorm,
    .embed = embed,
    .kv_store = kv_store,
    .attend = attend,
    .weights = weights,
    .max_finite = max_finite,
    .find_nonfinite = find_nonfinite,
    .widen = widen,
};
