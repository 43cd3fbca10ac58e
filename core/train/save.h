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
/* meta.json: sizes and characters (NULL: tokenizer.json has the text), and whether the
 * model was trained for chat. */
int save_meta(struct save *, const struct net_shape *, const uint32_t *chars, int n_chars,
              int chat);
/* safetensors of all tensors of shape, from the parameter array, as dtype. */
int save_tensors(struct save *, const char *name, const struct net_shape *,
                 const float *params, enum mg_dtype dtype);
/* The same as F32 where the weights are not in memory: read gives n rows of tensor i from
 * row on, [n][cols], SAVE_ROWS floats at most, and returns 0 or an exit code, told. */
enum { SAVE_ROWS = 4 * (1 << 16) }; /* the longest row of all */
struct save_source {
    int (*read)(void *from, int i, int row, int n, float *out);
    void *from;
};
int save_stream(struct save *, const char *name, const struct net_shape *,
                const struct save_source *);
/* A new file beside the others that has no name and is gone when it is closed: its
 * descriptor, or -1, told. */
int save_scratch(struct save *);
/* Sync and move into place; on error (told) nothing has changed. Frees in every case. */
int save_commit(struct save *);
/* Throw away what was written. */
void save_abort(struct save *);

#endif
