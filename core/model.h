/* SPDX-License-Identifier: Apache-2.0
 * model.h - what an open checkpoint is. Filled once by mg_model_open, then read only.
 * Internal to core. */
#ifndef MG_MODEL_H
#define MG_MODEL_H

#include "checkpoint.h"
#include "microgpt.h"
#include "tokenizer.h"

struct mg_ops;

struct mg_layer {
    struct mg_matrix wq, wk, wv, wo; /* [n_embd, n_embd] */
    struct mg_matrix fc1;            /* [4 n_embd, n_embd] */
    struct mg_matrix fc2;            /* [n_embd, 4 n_embd] */
};

#define MG_MAX_WARNINGS 8

struct mg_model {
    struct mg_model_info info;
    struct mg_model_options options;
    int head_dim;             /* n_embd / n_head */
    struct mg_matrix wte;     /* [vocab_size, n_embd] */
    struct mg_matrix wpe;     /* [block_size, n_embd] */
    struct mg_matrix lm_head; /* [vocab_size, n_embd] */
    struct mg_layer *layer;   /* [n_layer] */
    struct mg_tokenizer *tokenizer;
    const struct mg_ops *ops; /* the kernels chosen for this machine */
    struct mg_weights *weights;
    uint64_t meta_digest;
    char *warning[MG_MAX_WARNINGS];
};

#endif
