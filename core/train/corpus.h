/* SPDX-License-Identifier: Apache-2.0
 * corpus.h - a text or JSONL file as documents of token ids. Knows the layout of
 * documents and the vocabulary, characters or byte-level BPE; nothing of networks but the
 * type of a document. */
#ifndef TRAIN_CORPUS_H
#define TRAIN_CORPUS_H

#include "net.h"
#include "../tokenizer.h"

enum corpus_tokenizer { CORPUS_AUTO, CORPUS_CHAR, CORPUS_BPE };
enum { CORPUS_AUTO_BPE = 1 << 20 }; /* bytes of a file from which on auto is BPE */

/* What is known of a vocabulary before: characters, or a tokenizer.json. */
struct corpus_vocab {
    uint32_t *chars; /* [n_chars] or NULL */
    int n_chars;
    char *json; /* [json_len] or NULL */
    size_t json_len;
};

struct corpus_options {
    const char *path;
    int chat;      /* JSONL conversations instead of a text with a document per line */
    int skip_long; /* drop documents that do not fit block_size instead of cutting them */
    int block_size;
    enum corpus_tokenizer tokenizer;
    int vocab_size;                   /* BPE: wanted */
    const struct corpus_vocab *vocab; /* to use (resume), or NULL: all characters of the
                                         documents, or what can be learned from them */
};

struct corpus {
    uint32_t *chars; /* [n_chars], ascending; token id = index; NULL: BPE */
    int n_chars;
    struct mg_tokenizer *tokenizer; /* BPE, else NULL */
    char *json;                     /* [json_len] its tokenizer.json */
    size_t json_len;
    int vocab_size;       /* characters: n_chars + 1, with chat + 4 */
    struct net_doc *docs; /* point into tokens */
    int32_t n_docs;
    int32_t *tokens;
    size_t n_tokens, cap_tokens;
    uint64_t digest; /* of the file's bytes */
    /* counts for the operator */
    int64_t n_lines, n_blank, n_trimmed, n_no_reply, n_cut, n_long;
};

/* Read and check the file. 0, or an exit code after the complaint (file:line:column) was
 * printed. */
int corpus_read(struct corpus *, const struct corpus_options *);
void corpus_free(struct corpus *);

/* Bytes of text that a token stands for; special ones: none. */
size_t corpus_token_bytes(const struct corpus *, int32_t id);

#endif
