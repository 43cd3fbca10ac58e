/* SPDX-License-Identifier: Apache-2.0
 * random.h - the generator of training: initial weights and the order of documents. Uses no libm
 * function but sqrt, so a seed means the same on every machine. */
#ifndef CLI_RANDOM_H
#define CLI_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

/* Streams of one seed do not meet: stream 0 initial weights, 1 held-out documents, 2 + e the
 * order of epoch e. */
struct random random_begin(uint64_t seed, uint64_t stream);
uint64_t random_next(struct random *);                      /* splitmix64 */
uint64_t random_below(struct random *, uint64_t n);         /* 0 ... n-1, unbiased; n >= 1 */
void random_normal(struct random *, float std, size_t n, float *out);
void random_shuffle(struct random *, int32_t *a, int32_t n); /* Fisher-Yates */

#endif
