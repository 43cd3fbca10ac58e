/* SPDX-License-Identifier: Apache-2.0
 * rng.h - the generator of training: initial weights and the order of documents. Uses no
 * libm function but sqrt, so a seed means the same on every machine. */
#ifndef TRAIN_RNG_H
#define TRAIN_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

/* Streams of one seed do not meet: stream 0 initial weights, 1 held-out documents, 2 + e
 * the order of epoch e. */
struct rng rng_begin(uint64_t seed, uint64_t stream);
uint64_t rng_next(struct rng *);              /* splitmix64 */
uint64_t rng_below(struct rng *, uint64_t n); /* 0 ... n-1, unbiased; n >= 1 */
void rng_normal(struct rng *, float std, size_t n, float *out);
void rng_shuffle(struct rng *, int32_t *a, int32_t n); /* Fisher-Yates */

#endif
