/* SPDX-License-Identifier: Apache-2.0
 * run.h - a training run as a thing that can be saved and taken up again: its options,
 * its corpus, how far it is. train.c drives it. */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "corpus.h"
#include "report.h"
#include "trainer.h"

enum { RUN_MAX_BATCH = 1 << 16 };

struct run_options {
    int64_t steps, warmup_steps, batch_size;
    int64_t n_embd, n_head, n_layer, block_size;
    double lr, eval; /* eval: fraction of the documents that is held out */
    uint64_t seed;
    int chat, skip_long;
    enum corpus_tokenizer tokenizer;
    int64_t vocab_size; /* BPE: wanted */
    int64_t threads;
};

struct run {
    struct run_options opt;
    struct corpus corpus;
    struct trainer *trainer;
    struct report report;
    int resumed;
    int64_t step;   /* steps done */
    int32_t *order; /* documents; the last n_eval of them are held out */
    int32_t n_train, n_eval;
    struct net_doc *held_out; /* [n_eval] */
    struct net_doc *batch;    /* [batch_size] */
    int64_t epoch;            /* the one that order is shuffled for; -1: none */
};

/* Start from the beginning. 0, or an exit code after the complaint. run_close in either
 * case. */
int run_start(struct run *, const struct run_options *, const char *input);
/* Read corpus and options, weights all 0; NULL = the vocabulary that the corpus has. As
 * run_start. */
int run_open(struct run *, const struct run_options *, const char *input,
             const struct corpus_vocab *);
void run_close(struct run *);

/* Start the report of a run that has done so many steps. */
void run_begin_report(struct run *, int64_t step);

/* One step, with what it tells. */
int run_step(struct run *);
#endif
