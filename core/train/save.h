/* SPDX-License-Identifier: Apache-2.0
 * save.h - writing a checkpoint directory whole or not at all: everything goes to a
 * folder beside the target, is synced, and takes the target's place in one rename. A
 * crash at any moment leaves the old checkpoint. Knows formats and files, not training.
 */
#ifndef TRAIN_SAVE_H
#define TRAIN_SAVE_H

#include <jansson.h>

#include "../matrix.h"
#include "net.h"

struct save; /* one checkpoint being written */

/* 0 when target can be made or replaced: it does not exist, is an empty directory, or
 * (with replace) a directory with nothing but the files of a checkpoint in it. Else an
 * exit code, told. */
int save_check(const char *target, int replace);

/* Start writing; NULL after telling why. The old target must have passed save_check. */
struct save *save_begin(const char *target);
int save_bytes(struct save *, const char *name, const void *data, size_t size);
/* A JSON value on one line. Takes the reference; NULL counts as out of memory. */
int save_json(struct save *, const char *name, json_t *value);
/* safetensors of all tensors of shape, from the parameter array, as dtype. */
int save_tensors(struct save *, const char *name, const struct net_shape *,
                 const float *params, enum mg_dtype dtype);
/* Sync and move into place; on error (told) nothing has changed. Frees in every case. */
int save_commit(struct save *);
/* Throw away what was written. */
void save_abort(struct save *);

#endif
