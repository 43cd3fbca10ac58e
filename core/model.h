/* SPDX-License-Identifier: Apache-2.0
 * model.h - what an open checkpoint is. Filled once by mg_model_open, then read only.
 * Internal to core. */
#ifndef MG_MODEL_H
#define MG_MODEL_H

#include "checkpoint.h"
#include "microgpt.h"
#include "tensors.h"
#include "tokenizer.h"

struct mg_ops;

#define MG_MAX_WARNINGS 8

struct mg_model {
    struct mg_model_info info;
    struct mg_model_options options;
    int head_dim;              /* n_embd / n_head */
    struct mg_tensors tensors; /* point into weights */
    struct mg_tokenizer *tokenizer;
    const struct mg_ops *ops; /* the kernels chosen for this machine */
    struct mg_weights *weights;
    uint64_t meta_digest, tokenizer_digest;    /* the latter in format B only */
    int has_tokenizer_file;                    /* format B */
    unsigned char tokenizer_sha256[MG_SHA256]; /* of it */
    char *warning[MG_MAX_WARNINGS];
};

struct mg_sizes mg_model_sizes(const struct mg_model *);

/* 0 if all elements of w are finite numbers; else -1, and the text names the file path,
 * the tensor and the first element that is none. Reads all of it. */
int mg_check_finite(const struct mg_ops *, const struct mg_matrix *w, const char *path,
                    const char *name, struct mg_error *err);

#endif
