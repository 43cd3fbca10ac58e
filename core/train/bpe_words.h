/* SPDX-License-Identifier: Apache-2.0
 * bpe_words.h - the pieces of a corpus that byte-level BPE merges within, each once, and
 * how often it is there. */
#ifndef TRAIN_BPE_WORDS_H
#define TRAIN_BPE_WORDS_H

#include <stddef.h>
#include <stdint.h>

struct bpe_word {
    size_t at, len; /* bytes[at, at + len) */
    uint64_t count;
};

struct bpe_words {
    struct bpe_word *word; /* [n] in the order of their first appearance */
    size_t n, cap;
    char *bytes;
    size_t n_bytes, cap_bytes;
    uint32_t *place; /* [n_places] open addressing: index of a word + 1, 0 = empty */
    size_t n_places;
};

/* Count the pieces of text, valid UTF-8, into words that begin as {0}: line by line, the
 * newline being part of its line. -1: out of memory. */
int bpe_words_add(struct bpe_words *, const char *text, size_t len);
void bpe_words_free(struct bpe_words *);

#endif
