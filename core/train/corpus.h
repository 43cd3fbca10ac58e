/* SPDX-License-Identifier: Apache-2.0
 * corpus.h - a text or JSONL file as documents of token ids. Knows the layout of
 * documents and the character vocabulary; nothing of networks but the
 * type of a document. */
#ifndef TRAIN_CORPUS_H
#define TRAIN_CORPUS_H

#include "net.h"

struct corpus_options {
    const char *path;
    int chat;      /* JSONL conversations instead of a text with a document per line */
    int skip_long; /* drop documents that do not fit block_size instead of cutting them */
    int block_size;
    /* The vocabulary to use (resume), or NULL: all characters of the documents. */
    const uint32_t *chars;
    int n_chars;
};

struct corpus {
    uint32_t *chars; /* [n_chars], ascending; token id = index */
    int n_chars;
    int vocab_size;       /* n_chars + 1, with chat + 4 */
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

#endif
