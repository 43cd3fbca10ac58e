/* SPDX-License-Identifier: Apache-2.0
 * meta.h - meta.json: the sizes of a model and, in format A, its characters. Internal to
 * core. */
#ifndef MG_META_H
#define MG_META_H

#include "microgpt.h"

/* Largest sizes that are read: products of two of them, and small multiples, stay far
 * from the limits of int64_t, each alone from those of int. */
enum {
    MG_MAX_VOCAB = 0x110000 + 4,
    MG_MAX_EMBD = 1 << 16,
    MG_MAX_LAYER = 1 << 12,
    MG_MAX_BLOCK = 1 << 20,
};

struct mg_meta {
    int vocab_size, n_embd, n_head, n_layer, block_size;
    int has_chat;    /* format A: it was trained with role tokens */
    uint32_t *chars; /* [n_chars] code points, the token id is the index; NULL: format B,
                        tokenizer.json has the text */
    int n_chars;
    int has_bpe;     /* a tokenizer.json lies beside it */
    uint64_t digest; /* of the bytes of the file */
};

/* Read and check dir/meta.json, dirfd being dir. -1 on error; mg_meta_free in either
 * case. */
int mg_meta_read(int dirfd, const char *dir, struct mg_meta *, struct mg_error *err);
void mg_meta_free(struct mg_meta *);

#endif
