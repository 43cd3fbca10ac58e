/* SPDX-License-Identifier: Apache-2.0
 * bpe.h - what a byte-level BPE tokenizer is in memory, and one piece of text on its way
 * through the merges. bpe_load.c and bpe_vocab.c fill the first, bpe_merge.c works on the
 * second, tok_bpe.c is the tokenizer that callers see. Internal to core. */
#ifndef MG_BPE_H
#define MG_BPE_H

#include "json.h"
#include "tokenizer.h"

enum {
    MG_BPE_MAX_TOKEN = 4096, /* bytes of one token's string */
    MG_BPE_MAX_MERGES = 1 << 19,
    MG_BPE_MAX_ADDED = 1024,
};

/* What a merge does: its rank << 32 | the id of its product; the least one goes first. */
#define MG_BPE_NO_MERGE UINT64_MAX

struct mg_bpe_pair {
    uint64_t pair;  /* left id << 32 | right id */
    uint64_t merge; /* MG_BPE_NO_MERGE = an empty place */
};

struct mg_bpe_token {
    uint32_t at, len; /* its text: bytes[at, at + len) */
    int hidden;       /* a special token: has no text in a reply */
};

struct mg_bpe_special {
    char *content; /* [len] as it is written */
    size_t len;
    int32_t id;
};

struct mg_bpe {
    struct mg_tokenizer head;   /* first */
    int32_t byte_id[256];       /* the token of one byte, -1 = none */
    struct mg_bpe_token *token; /* [head.vocab_size] */
    char *bytes;
    struct mg_bpe_pair *pairs; /* [mask + 1] open addressing */
    size_t mask;
    struct mg_bpe_special *special; /* [n_special] the longest first */
    int n_special;
};

/* The symbol that stands for a byte in tokenizer.json, a code point below 0x800, and the
 * byte that a code point stands for, -1 = none. */
uint32_t mg_bpe_symbol(unsigned char byte);
int mg_bpe_byte(uint32_t c);

/* What merging ids a, b means. */
uint64_t mg_bpe_find(const struct mg_bpe *, int32_t a, int32_t b);
/* Room for n pairs, then each of them: of a repeated one the last counts. */
int mg_bpe_reserve_pairs(struct mg_bpe *, size_t n);
void mg_bpe_put_pair(struct mg_bpe *, int32_t a, int32_t b, uint64_t merge);

/* Fill all but head.calls from a parsed tokenizer.json. -1 on error, then what is
 * filled is the caller's to free. */
int mg_bpe_load(struct mg_bpe *, const char *path, const struct mg_json *root,
                struct mg_error *err);
/* The part of it that is in vocab and added_tokens; the part that is in merges. */
int mg_bpe_load_tokens(struct mg_bpe *, const char *path, const struct mg_json *root,
                       struct mg_error *err);
int mg_bpe_load_merges(struct mg_bpe *, const char *path, const struct mg_json *model,
                       struct mg_error *err);

/* ---- one piece of text ------------------------------------------------------------- */

/* Its symbols are a list in arrays: one for each byte that the tokenizer knows, then ever
 * fewer and longer ones. */
struct mg_bpe_word {
    const unsigned char *bytes; /* [len] borrowed */
    size_t len, at;             /* at: bytes loaded, then symbols written */
    uint32_t n; /* symbols loaded; of those that live, first is the head */
    uint32_t n_heap;
    int32_t *id;    /* [longest] -1 = merged into its left neighbour */
    uint32_t *next; /* [longest] */
    uint32_t *prev; /* [longest] */
    uint64_t *heap; /* [2 longest] merges to come: rank << 32 | place of the left one */
};

/* Bytes of memory for pieces of at most `longest` bytes; at most 28 a byte. */
size_t mg_bpe_word_bytes(size_t longest);
/* memory: aligned for uint64_t. */
void mg_bpe_word_init(struct mg_bpe_word *, void *memory, size_t longest);
void mg_bpe_word_begin(struct mg_bpe_word *, const char *bytes, size_t len);
/* Merge on, at most about *budget steps, which are taken off: 1 = all is merged. */
int mg_bpe_word_merge(struct mg_bpe_word *, const struct mg_bpe *, size_t *budget);
/* Write its next ids, at most cap and *budget: how many; *done after the last. */
size_t mg_bpe_word_write(struct mg_bpe_word *, int32_t *out, size_t cap, size_t *budget,
                         int *done);

#endif
