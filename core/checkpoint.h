/* SPDX-License-Identifier: Apache-2.0
 * checkpoint.h - weights.safetensors: map, check every byte of the header, hand out
 * tensors. Knows the file format, not the model. Internal to core. */
#ifndef MG_CHECKPOINT_H
#define MG_CHECKPOINT_H

#include "matrix.h"
#include "microgpt.h"

struct mg_weights; /* one mapped file */

/* Map path read-only and shared; check the header, and that every byte of the data
 * belongs to one tensor. NULL on error. */
struct mg_weights *mg_weights_open(const char *path, struct mg_error *err);
/* The same for name below the directory dirfd; path is for messages. */
struct mg_weights *mg_weights_openat(int dirfd, const char *name, const char *path,
                                     struct mg_error *err);
void mg_weights_close(struct mg_weights *);

/* The tensor called name with shape [rows, cols] into *out: -1 and a text with name,
 * found and wanted when it is missing or has another shape. Reads none of its data. */
int mg_weights_bind(struct mg_weights *, const char *name, int rows, int cols,
                    struct mg_matrix *out, struct mg_error *err);

/* Name of a tensor that was never bound (for one warning), NULL when all were; *count of
 * them. */
const char *mg_weights_unbound(const struct mg_weights *, size_t *count);

const void *mg_weights_map(const struct mg_weights *, size_t *size);

#endif
