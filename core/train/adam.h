/* SPDX-License-Identifier: Apache-2.0
 * adam.h - the optimiser: Adam with beta1 0.85, beta2 0.99, epsilon 1e-8, and the
 * schedule of the learning rate. Elementwise, so any part of the arrays may be updated on
 * its own. */
#ifndef TRAIN_ADAM_H
#define TRAIN_ADAM_H

#include <stddef.h>
#include <stdint.h>

/* The factors of one step, the same for all elements. */
struct adam_step {
    float rate;     /* learning rate / (1 - beta1^t) */
    float inv_sqrt; /* 1 / sqrt(1 - beta2^t) */
};

/* Step t = 1, 2, ... at learning rate lr. */
struct adam_step adam_begin(int64_t t, double lr);

/* m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= rate * m / (sqrt(v) * inv_sqrt +
 * eps) */
void adam_update(struct adam_step, size_t n, const float *g, float *w, float *m,
                 float *v);

/* Learning rate of step t = 1 ... steps: linear from lr / warmup up to lr at t = warmup,
 * then linear down; it would be 0 at t = steps + 1. */
double adam_rate(double lr, int64_t t, int64_t warmup, int64_t steps);

#endif
