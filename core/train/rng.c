/* SPDX-License-Identifier: Apache-2.0
 * rng.c - see rng.h. */
#include "rng.h"

#include <math.h>
#include <string.h>

uint64_t rng_next(struct rng *r) {
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

struct rng rng_begin(uint64_t seed, uint64_t stream) {
    struct rng r = {seed};
    uint64_t s = rng_next(&r);
    r.state = s ^ (stream * 0xD1342543DE82EF95u);
    r.state = rng_next(&r);
    return r;
}

uint64_t rng_below(struct rng *r, uint64_t n) {
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do x = rng_next(r);
    while (x >= limit);
    return x % n;
}

/* Uniform in (-1, 1), 53 bits. */
static double uniform(struct rng *r) {
    return (double)(rng_next(r) >> 11) * 0x1p-52 - 1.0;
}

/* ln x for normal x in (0, 1): x = m 2^e with m in [sqrt 1/2, sqrt 2), then the series of
 * 2 atanh((m - 1) / (m + 1)). */
static double ln(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1022;
    bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FE0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m < 0.70710678118654752) m *= 2, e--;
    double z = (m - 1) / (m + 1), zz = z * z, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * zz + 1.0 / k;
    return 2 * z * sum + e * 0.69314718055994531;
}

/* Marsaglia's polar method, two values at a time. */
void rng_normal(struct rng *r, float std, size_t n, float *out) {
    for (size_t i = 0; i < n; i += 2) {
        double u, v, s;
        do u = uniform(r), v = uniform(r), s = u * u + v * v;
        while (s >= 1 || s < 1e-300);
        double f = sqrt(-2 * ln(s) / s) * (double)std;
        out[i] = (float)(u * f);
        if (i + 1 < n) out[i + 1] = (float)(v * f);
    }
}

void rng_shuffle(struct rng *r, int32_t *a, int32_t n) {
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = (int32_t)rng_below(r, (uint64_t)i + 1), t = a[i];
        a[i] = a[j], a[j] = t;
    }
}
