/* SPDX-License-Identifier: Apache-2.0
 * adam.c - see adam.h. Elementwise float loops that the compiler vectorises; the powers
 * are made without libm, so that a checkpoint does not depend on its version. */
#include "adam.h"

#include "vec.h"

#include <math.h>

static const double BETA1 = 0.85, BETA2 = 0.99;

static double power(double x, int64_t n) {
    double r = 1;
    for (; n > 0; n >>= 1, x *= x)
        if (n & 1) r *= x;
    return r;
}

struct adam_step adam_begin(int64_t t, double lr) {
    return (struct adam_step){
        .rate = (float)(lr / (1 - power(BETA1, t))),
        .inv_sqrt = (float)(1 / sqrt(1 - power(BETA2, t))),
    };
}

VEC_CLONES void adam_update(struct adam_step s, size_t n, const float *g, float *w,
                            float *m, float *v) {
    const float b1 = (float)BETA1, b2 = (float)BETA2;
    const float c1 = (float)(1 - BETA1), c2 = (float)(1 - BETA2), eps = 1e-8f;
    for (size_t i = 0; i < n; i++) {
        float x = g[i];
        float mi = b1 * m[i] + c1 * x, vi = b2 * v[i] + c2 * (x * x);
        m[i] = mi, v[i] = vi;
        w[i] -= s.rate * mi / (sqrtf(vi) * s.inv_sqrt + eps);
    }
}

double adam_rate(double lr, int64_t t, int64_t warmup, int64_t steps) {
    if (t <= warmup) return lr * (double)t / (double)warmup;
    return lr * (double)(steps + 1 - t) / (double)(steps + 1 - warmup);
}
