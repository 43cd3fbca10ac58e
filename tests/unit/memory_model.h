/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_model.h - a random model in memory, bound to a table of kernels: for tests of
 * the kernels and the forward pass that need no file, no JSON and no tokenizer. The
 * numbers are the same on every machine. */
#ifndef MEMORY_MODEL_H
#define MEMORY_MODEL_H

#include "../../core/forward.h"
#include "../../core/ops.h"

struct shape {
    int vocab_size, n_embd, n_head, n_layer, block_size;
};

/* n zeros, aligned for vectors; free() them. */
float *floats(size_t n);

/* Uniform in [-1, 1) from a 64-bit state; exact in float. */
float random_float(uint64_t *state);
/* n elements of type, about as large as trained weights; f16 ones subnormal now and then.
 */
void random_elements(uint64_t *state, enum mg_dtype type, void *data, size_t n);
uint64_t hash_bytes(uint64_t hash, const void *data, size_t n);

struct mg_matrix matrix_of(const void *data, enum mg_dtype, int rows, int cols);

struct mg_model *memory_model_new(const struct shape *, enum mg_dtype, uint64_t seed,
                                  const struct mg_ops *);
void memory_model_free(struct mg_model *);

#endif
