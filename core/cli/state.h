/* SPDX-License-Identifier: Apache-2.0
 * state.h - reading a training checkpoint back into a run; saving is run_save. */
#ifndef CLI_STATE_H
#define CLI_STATE_H

#include "run.h"

/* The characters of dir/meta.json, in new memory. 0 or an exit code. */
int state_chars(const char *dir, uint32_t **chars, int *n);
/* Weights, moments, step and report of dir into a run with corpus and trainer. 0 or an
 * exit code. */
int state_load(struct run *, const char *dir);

#endif
