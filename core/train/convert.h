/* SPDX-License-Identifier: Apache-2.0
 * convert.h - float to the 16-bit formats, for export. Leaf. */
#ifndef TRAIN_CONVERT_H
#define TRAIN_CONVERT_H

#include <stdint.h>

#include "../matrix.h"

/* dst[i] = src[i] as MG_F16 or MG_BF16, round to nearest even; what is too large becomes
 * Inf. */
void convert_to_half(enum mg_dtype, const float *src, size_t n, uint16_t *dst);

#endif
