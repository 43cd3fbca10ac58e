/* SPDX-License-Identifier: Apache-2.0
 * convert.c - see convert.h. By bits, so that every machine writes the same file. */
#include "convert.h"

#include <string.h>

static uint16_t to_bf16(uint32_t x) {
    return (uint16_t)((x + 0x7FFF + (x >> 16 & 1)) >> 16);
}

/* Shift right by n >= 1 with round to nearest even. */
static uint32_t shift_even(uint32_t x, int n) {
    uint32_t half = 1u << (n - 1), low = x & ((1u << n) - 1), r = x >> n;
    return r + (low > half || (low == half && (r & 1)));
}

static uint16_t to_f16(uint32_t x) {
    uint32_t sign = x >> 16 & 0x8000, mag = x & 0x7FFFFFFF;
    if (mag >= 0x47800000) return (uint16_t)(sign | 0x7C00); /* 65536 and more */
    int e = (int)(mag >> 23) - 127;
    if (e < -25) return (uint16_t)sign;
    if (e < -14)
        return (uint16_t)(sign | shift_even((mag & 0x7FFFFF) | 0x800000, -1 - e));
    return (uint16_t)(sign | shift_even(mag - (112u << 23), 13)); /* may carry into Inf */
}

void convert_to_half(enum mg_dtype dtype, const float *src, size_t n, uint16_t *dst) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, src + i, sizeof bits);
        dst[i] = dtype == MG_F16 ? to_f16(bits) : to_bf16(bits);
    }
}
