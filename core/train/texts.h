/* SPDX-License-Identifier: Apache-2.0
 * texts.h - the documents of a corpus between two passes: code points, and marks where
 * special tokens will be; and what byte-level BPE makes of them. */
#ifndef TRAIN_TEXTS_H
#define TRAIN_TEXTS_H

#include "bpe_train.h"

#include "../tokenizer.h"

/* Marks. In format A id = vocab_size + mark, as in microgpt-checkpoint(5). */
enum { TEXTS_BOS = -1, TEXTS_END_TURN = -2, TEXTS_ASSISTANT = -3, TEXTS_USER = -4 };

struct texts {
    int32_t *tokens; /* [n_tokens] code points and marks, later ids; from malloc */
    size_t n_tokens;
    size_t *start; /* [n_docs + 1] where each document begins */
    int32_t n_docs;
};

/* Learn a tokenizer from the messages of conversations, each as a line, or else from the
 * file as it is: its tokenizer.json, *len bytes in new memory. 0, or an exit code after
 * the complaint. */
int texts_learn(const struct texts *, const struct bpe_options *, const char *file,
                size_t size, char **json, size_t *len);

/* Turn code points and marks into ids, as a request's messages would be; tokens are
 * replaced, start follows. *lost: bytes of text that are in no token. 0 or an exit code
 * as above. */
int texts_encode(struct texts *, const struct mg_tokenizer *, size_t *lost);

#endif
