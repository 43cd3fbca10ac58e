/* SPDX-License-Identifier: Apache-2.0
 * state.h - a run as the files of a training checkpoint, and back. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "run.h"

/* Write the checkpoint to dir, all of it or nothing. 0 or an exit code. */
int state_save(const struct run *, const char *dir);
/* Options of the run that was saved in dir (all but threads). 0 or an exit code. */
int state_options(const char *dir, struct run_options *);
/* Take the run up that was saved in dir. opt holds what state_options gave, changed at
 * will in steps, lr, warmup_steps and threads. 0 or an exit code; run_close in either
 * case. */
int state_resume(struct run *, const struct run_options *, const char *input,
                 const char *dir);

#endif
