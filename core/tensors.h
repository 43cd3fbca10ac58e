/* SPDX-License-Identifier: Apache-2.0
 * tensors.h - which tensors a model has: names, shapes, order, and their places. One
 * table, for all that bind, train, write or count them. Knows no files and no arithmetic.
 * Internal to core. */
#ifndef MG_TENSORS_H
#define MG_TENSORS_H

#include "matrix.h"

/* What shapes depend on, and the number of heads. */
struct mg_sizes {
    int vocab_size, n_embd, n_head, n_layer, block_size;
};

struct mg_layer {
    struct mg_matrix wq, wk, wv, wo; /* [n_embd, n_embd] */
    struct mg_matrix fc1;            /* [4 n_embd, n_embd] */
    struct mg_matrix fc2;            /* [n_embd, 4 n_embd] */
};

/* All of a model's. */
struct mg_tensors {
    struct mg_matrix wte;     /* [vocab_size, n_embd] */
    struct mg_matrix wpe;     /* [block_size, n_embd] */
    struct mg_matrix lm_head; /* [vocab_size, n_embd] */
    struct mg_layer *layer;   /* [n_layer], the owner's */
};

/* One line of the table for a model of certain sizes. */
struct mg_tensor {
    char name[32]; /* as in weights.safetensors */
    int rows, cols;
    size_t at; /* elements before it, where all stand in one array in this order */
};

/* The order: wte, wpe, lm_head, then layer by layer wq, wk, wv, wo, fc1, fc2. So wq, wk
 * and wv lie together in the array, as one matrix [3 n_embd, n_embd]. */
int mg_tensor_count(const struct mg_sizes *);
struct mg_tensor mg_tensor_describe(const struct mg_sizes *, int i);
size_t mg_tensor_elements(const struct mg_sizes *); /* of all together */
/* The tensor of that name, whatever the number of layers, -1 if no model has one. */
int mg_tensor_find(const char *name);
/* The place of tensor i. */
struct mg_matrix *mg_tensor_place(struct mg_tensors *, int i);

#endif
