/* SPDX-License-Identifier: Apache-2.0
 * matrix.h - a matrix of weights as it is stored, and the types of its elements: all that
 * files, kernels, the model and training agree on. Leaf. Internal to core. */
#ifndef MG_MATRIX_H
#define MG_MATRIX_H

#include <stddef.h>

enum mg_dtype { MG_F32, MG_F16, MG_BF16, MG_N_DTYPES };

/* The one table of types: another one is a line here and a case in the kernels. */
extern const struct mg_dtype_info {
    const char *name;   /* in weights.safetensors: "F32" */
    const char *option; /* on the command line: "f32" */
    size_t size;        /* bytes of an element */
} mg_dtypes[MG_N_DTYPES];

static inline size_t mg_dtype_size(enum mg_dtype t) {
    return mg_dtypes[t].size;
}

/* Row-major. Borrowed: data points into the mapped file and may be misaligned. */
struct mg_matrix {
    const void *data; /* [rows][cols] of dtype */
    enum mg_dtype dtype;
    int rows, cols;     /* out, in: y = W x */
    const float *scale; /* [rows] factors, for a type of integers; else NULL */
};

static inline size_t mg_matrix_elements(const struct mg_matrix *m) {
    return (size_t)m->rows * (size_t)m->cols;
}

#endif
