/* SPDX-License-Identifier: Apache-2.0
 * report.h - what a training run tells: the progress line, loss.csv and loss.svg. The
 * files hold nothing that depends on time, so that a resumed run writes the same bytes.
 */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include <stdint.h>

#include "save.h"

struct report_row {
    int64_t step;
    float loss;      /* mean since the last row */
    float eval_loss; /* NaN: not measured here */
};

struct report {
    int64_t steps; /* of the whole run */
    int64_t row_every, eval_every;
    struct report_row *rows;
    int n_rows, cap_rows;
    double sum; /* of the losses since the last row */
    int64_t count;
    float last_loss, last_eval;
    double bits; /* set it after begin: bits per byte of held-out text for a loss of 1;
                    0 = there is none */
    int tty;
    double began, shown; /* monotonic seconds */
    int64_t first_step, tokens;
};

/* step: already done (resume); rows of earlier steps are put in by report_load.
 * eval_least: the fewest steps between two evaluations. */
void report_begin(struct report *, int64_t step, int64_t steps, int64_t eval_least);
void report_free(struct report *);

int report_wants_eval(const struct report *, int64_t step);
/* A step is done: its mean loss, tokens, and the evaluation loss or NaN. -1: out of
 * memory. */
int report_step(struct report *, int64_t step, double loss, int tokens, double eval_loss);
void report_end(struct report *); /* leave the progress line */

/* Add loss.csv and loss.svg to a checkpoint. */
int report_save(const struct report *, struct save *);
/* Read the rows of DIR/loss.csv up to the step; a missing file is none. 0 or an exit
 * code. */
int report_load(struct report *, const char *dir, int64_t step);

#endif
