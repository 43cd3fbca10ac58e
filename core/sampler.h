/* SPDX-License-Identifier: Apache-2.0
 * sampler.h - seed to state, and one draw from logits. Internal to
 * core. */
#ifndef MG_SAMPLER_H
#define MG_SAMPLER_H

#include "model.h"

struct mg_sampler {
    uint64_t state;
    double temperature;
};

void mg_sampler_init(struct mg_sampler *, uint64_t seed, double temperature, int compat);

/* Token for logits[n]. suppress: ids that may not be drawn, n_suppress of them (< n).
 * scratch: n doubles (rounded up to a multiple of 16), 64-byte aligned. -1 when a logit
 * is not finite. */
int mg_sampler_draw(struct mg_sampler *, const struct mg_ops *, const float *logits,
                    int n, const int *suppress, int n_suppress, double *scratch);

#endif
