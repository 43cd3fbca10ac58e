/* SPDX-License-Identifier: Apache-2.0
 * net.h - the network of microgpt-checkpoint(5) in float, forward and backward, for
 * training. Parameters are one array; documents of a slice are computed together, one
 * matrix product per linear. Knows nothing of files, text, threads or the optimiser. */
#ifndef TRAIN_NET_H
#define TRAIN_NET_H

#include <stddef.h>
#include <stdint.h>

struct net_shape {
    int vocab_size, n_embd, n_head, n_layer, block_size;
};

/* One tensor of the parameter array: row-major [rows, cols] at offset `at` (floats). */
struct net_tensor {
    char name[32]; /* as in weights.safetensors */
    int rows, cols;
    size_t at;
};

/* n inputs tokens[0 ... n-1], which predict tokens[1 ... n]. 1 <= n <= block_size. */
struct net_doc {
    const int32_t *tokens;
    int n;
};

size_t net_params(const struct net_shape *);
int net_tensors(const struct net_shape *); /* how many */
struct net_tensor net_tensor(const struct net_shape *,
                             int i); /* in the order of the array */

struct net_work; /* activations of one slice; belongs to one thread; grows as needed */

struct net_work *net_work_new(void); /* NULL: out of memory */
void net_work_free(struct net_work *);

/* Run documents through the network. *loss = sum of the cross entropies of their
 * predictions. With grad (net_params floats, written whole) also the gradient of scale *
 * *loss. -1 when memory for the activations ran out. */
int net_run(const struct net_shape *, const float *params, const struct net_doc *docs,
            int n_docs, float scale, struct net_work *, double *loss, float *grad);

#endif
