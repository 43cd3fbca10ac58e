/* SPDX-License-Identifier: Apache-2.0
 *
 * oracle.h - a second forward pass, plain and in double, written from
 * microgpt-checkpoint(5) alone. It shares no code with core and is what core is
 * compared with. A bad file ends the test. */
#ifndef ORACLE_H
#define ORACLE_H

#include <stddef.h>

struct oracle {
    int vocab_size, n_embd, n_head, n_layer, block_size;
    int n_pos; /* tokens fed so far */
    int n_tensors;
    struct oracle_tensor *tensors;
    double *keys;   /* [n_layer][block_size][n_embd] */
    double *values; /* [n_layer][block_size][n_embd] */
    double *logits; /* [vocab_size] */
};

struct oracle_tensor {
    char name[64];
    int rows, cols;
    double *data; /* [rows][cols]; tests may change it */
};

struct oracle *oracle_open(const char *dir);
void oracle_close(struct oracle *);
const struct oracle_tensor *oracle_find(const struct oracle *, const char *name);

/* Forget all positions. */
void oracle_reset(struct oracle *);
/* Feed the token at the next position; returns its logits[vocab_size]. */
const double *oracle_feed(struct oracle *, int token);

#endif
