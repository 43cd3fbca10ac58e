/* SPDX-License-Identifier: Apache-2.0
 * vec.c - see vec.h. Plain C that the compiler turns into vectors: no intrinsics, no libm
 * but sqrtf. Every sum has 16 lanes, lane i takes elements i, i+16, ..., then a tree. */
#include "vec.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };

static inline float add_lanes(const float *l) {
    float a[8], b[4];
    for (int i = 0; i < 8; i++) a[i] = l[i] + l[i + 8];
    for (int i = 0; i < 4; i++) b[i] = a[i] + a[i + 4];
    return (b[0] + b[2]) + (b[1] + b[3]);
}

static inline float dot(int n, const float *x, const float *y) {
    float l[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) l[j] += x[i + j] * y[i + j];
    for (int j = 0; i + j < n; j++) l[j] += x[i + j] * y[i + j];
    return add_lanes(l);
}

VEC_CLONES float vec_rmsnorm(int n, const float *x, float *y) {
    float s = 1.0f / sqrtf(dot(n, x, x) / (float)n + 1e-5f);
    for (int i = 0; i < n; i++) y[i] = x[i] * s;
    return s;
}

VEC_CLONES void vec_rmsnorm_grad(int n, const float *dy, const float *y, float s,
                                 float *dx) {
    float m = dot(n, dy, y) / (float)n;
    for (int i = 0; i < n; i++) dx[i] += s * (dy[i] - y[i] * m);
}

VEC_CLONES void vec_relu(size_t n, float *x) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

VEC_CLONES void vec_relu_grad(size_t n, const float *y, float *dy) {
    for (size_t i = 0; i < n; i++) dy[i] = y[i] > 0.0f ? dy[i] : 0.0f;
}

VEC_CLONES void vec_add(size_t n, const float *x, float *y) {
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

/* e^x for x <= 0, relative error below 2e-7: x = n ln2 + r, a polynomial in r, 2^n by
 * bits. */
static inline float exp_negative(float x) {
    const float round =
        12582912.0f; /* 1.5 * 2^23: adding it leaves the integer in the low bits */
    x = x < -87.0f ? -87.0f : x;
    float t = x * 1.44269504f + round;
    float n = t - round;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.98756915e-4f;
    p = p * r + 1.39819995e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666657e-1f;
    p = p * r + 5.00000000e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (int32_t)((uint32_t)(bits + 127) << 23);
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline float max_of(int n, const float *p) {
    float l[LANES];
    for (int j = 0; j < LANES; j++) l[j] = p[0];
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) l[j] = p[i + j] > l[j] ? p[i + j] : l[j];
    for (; i < n; i++) l[0] = p[i] > l[0] ? p[i] : l[0];
    float m = l[0];
    for (int j = 1; j < LANES; j++) m = l[j] > m ? l[j] : m;
    return m;
}

VEC_CLONES float vec_softmax(int n, int full, float *p) {
    float max = max_of(n, p);
    float l[LANES] = {0};
    for (int i = 0; i < n; i++) p[i] = exp_negative(p[i] - max);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) l[j] += p[i + j];
    for (int j = 0; i + j < n; j++) l[j] += p[i + j];
    float sum = add_lanes(l);
    float inv = 1.0f / sum;
    for (i = 0; i < n; i++) p[i] *= inv;
    for (i = n; i < full; i++) p[i] = 0.0f;
    return max + logf(sum);
}

VEC_CLONES void vec_softmax_grad(int n, const float *p, float scale, float *ds) {
    float m = dot(n, p, ds);
    for (int i = 0; i < n; i++) ds[i] = p[i] * (ds[i] - m) * scale;
}
