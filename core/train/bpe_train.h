/* SPDX-License-Identifier: Apache-2.0
 * bpe_train.h - a byte-level BPE tokenizer from a corpus, to the byte the tokenizer.json
 * that the reference's trainer writes for it. */
#ifndef TRAIN_BPE_TRAIN_H
#define TRAIN_BPE_TRAIN_H

#include "bpe_words.h"

#include "../microgpt.h"

struct bpe_options {
    int vocab_size; /* tokens wanted: special ones, all bytes that occur, merges */
    int chat;       /* with <user>, <assistant>, <end_turn> behind <bos> */
};

struct bpe_merge {
    int32_t left, right; /* ids */
};

struct bpe_token {
    size_t at, len; /* bytes[at, at + len) */
};

/* What training found. */
struct bpe_vocab {
    struct bpe_token *token; /* [vocab_size] by id */
    int vocab_size; /* fewer than wanted when there is nothing left to merge, more
                                when the bytes alone are more */
    int n_special;  /* ids 0 ... n_special - 1 */
    struct bpe_merge *merge; /* [n_merges] by rank */
    size_t n_merges;
    char *bytes;
    size_t cap_token, cap_merge, n_bytes, cap_bytes;
};

/* Learn from the words of a corpus (bpe_words_add) into *v, which bpe_vocab_free frees.
 * The same words give the same vocabulary in any order. -1 on error. */
int bpe_train(const struct bpe_words *, const struct bpe_options *, struct bpe_vocab *v,
              struct mg_error *err);
void bpe_vocab_free(struct bpe_vocab *);

/* The text of tokenizer.json, *len bytes in new memory; NULL: out of memory. */
char *bpe_vocab_json(const struct bpe_vocab *, size_t *len);

#endif
