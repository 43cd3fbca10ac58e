/* SPDX-License-Identifier: Apache-2.0
 * trainer.h - parameters, optimiser state and the step that changes them, on several
 * threads. The result does not depend on how many. Knows nothing of files and schedules.
 */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "net.h"

struct trainer {
    struct net_shape shape;
    size_t n_params;
    float *params, *m, *v; /* [n_params]: weights, Adam's first and second moment */
    struct trainer_private *own;
};

/* Weights and moments are zero. NULL: out of memory or threads. */
struct trainer *trainer_new(const struct net_shape *, int threads);
void trainer_free(struct trainer *);

/* Step 1, 2, ...: one Adam step at learning rate lr on the mean cross entropy of the
 * predictions of docs. *loss = that mean, before the step. -1: out of memory. */
int trainer_step(struct trainer *t, const struct net_doc *docs, int n, int64_t step,
                 double lr, double *loss);

/* *loss = mean cross entropy of docs. -1: out of memory. */
int trainer_eval(struct trainer *, const struct net_doc *docs, int n, double *loss);

#endif
