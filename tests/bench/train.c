/* SPDX-License-Identifier: Apache-2.0
 *
 * train.c - measures training steps and prints one JSON object a line.
 *
 *   train N_EMBD N_HEAD N_LAYER BLOCK_SIZE VOCAB TOKENS [BATCH]
 *
 * BATCH documents of TOKENS predictions each, random tokens, one thread; the best of a
 * few steps in processor time, so that other programs do not count. flops:
 * multiplications and additions that the model needs, forward and backward: 6 per
 * parameter of a product and token, and the lower triangle of the attention. */
#include <stdio.h>
#include <stdlib.h>

#include "../../core/train/rng.h"
#include "../../core/train/trainer.h"
#include "peak.h"

enum { STEPS = 6, MAX_BATCH = 512 };

static double count_flops(const struct net_shape *s, int tokens) {
    double d = s->n_embd, linears = 12 * d * d * s->n_layer + d * s->vocab_size;
    double attention = 2 * d * s->n_layer * (tokens + 1) / 2; /* q k and p v, per token */
    return 6 * (linears + attention);
}

static double measure(struct trainer *t, const struct net_doc *docs, int n) {
    double best = 1e9, loss;
    for (int i = 1; i <= STEPS; i++) {
        double start = now();
        if (trainer_step(t, docs, n, i, 0.001, &loss) != 0) exit(71);
        double took = now() - start;
        if (took < best) best = took;
    }
    return best;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fputs("train N_EMBD N_HEAD N_LAYER BLOCK_SIZE VOCAB TOKENS [BATCH]\n", stderr);
        return 64;
    }
    int v[8] = {0, 0, 0, 0, 0, 0, 0, 8};
    for (int i = 1; i < argc && i < 8; i++) v[i] = (int)strtol(argv[i], NULL, 10);
    struct net_shape shape = {v[5], v[1], v[2], v[3], v[4]};
    int tokens = v[6], batch = v[7] < MAX_BATCH ? v[7] : MAX_BATCH;
    struct trainer *t = trainer_new(&shape, 1);
    int32_t *ids = calloc((size_t)(tokens + batch), sizeof *ids);
    if (!t || !ids) return 71;
    struct rng rng = rng_begin(1, 0);
    rng_normal(&rng, 0.08f, t->n_params, t->params);
    for (int i = 0; i < tokens + batch; i++)
        ids[i] = (int32_t)rng_below(&rng, (uint64_t)shape.vocab_size);
    struct net_doc docs[MAX_BATCH];
    for (int i = 0; i < batch; i++) docs[i] = (struct net_doc){ids + i, tokens};
    double took = measure(t, docs, batch), peak = peak_flops();
    double rate = tokens * batch / took, flops = rate * count_flops(&shape, tokens);
    printf("{\"what\": \"train\", \"shape\": \"%d/%d/%d/%d\", \"document\": %d, "
           "\"batch\": %d, "
           "\"tokens_per_s\": %.0f, \"gflops\": %.1f, \"peak\": %.1f, \"share\": %.2f}\n",
           shape.n_embd, shape.n_head, shape.n_layer, shape.block_size, tokens, batch,
           rate, flops / 1e9, peak / 1e9, flops / peak);
    free(ids);
    trainer_free(t);
    return 0;
}
