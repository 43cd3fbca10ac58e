/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.h - text to token ids and back. Format A (a table of characters); format B
 * (BPE) gets its own file behind the same calls. Immutable after open. Internal to
 * core. */
#ifndef MG_TOKENIZER_H
#define MG_TOKENIZER_H

#include "microgpt.h"

struct mg_tokenizer;

/* From the chars of meta.json: n code points, token id = index (checkpoint.md);
 * copied. */
struct mg_tokenizer *mg_tokenizer_chars(const uint32_t *chars, int n, int has_chat,
                                        struct mg_error *err);
void mg_tokenizer_free(struct mg_tokenizer *);

int mg_tokenizer_vocab(const struct mg_tokenizer *);
int mg_tokenizer_bos(const struct mg_tokenizer *);
int mg_tokenizer_user(const struct mg_tokenizer *);      /* -1 without chat */
int mg_tokenizer_assistant(const struct mg_tokenizer *); /* -1 without chat */
int mg_tokenizer_end_turn(const struct mg_tokenizer *);  /* -1 without chat */
size_t mg_tokenizer_max_bytes(const struct mg_tokenizer *);

/* Encode len bytes of valid UTF-8. Returns how many tokens the text has; writes those
 * with index skip <= i < skip + cap to out (out may be NULL with cap 0: count only).
 * Unknown characters are skipped. */
size_t mg_tokenizer_encode(const struct mg_tokenizer *, const char *text, size_t len,
                           size_t skip, int32_t *out, size_t cap);

/* Bytes of one token, *len of them; special tokens have none. */
const char *mg_tokenizer_text(const struct mg_tokenizer *, int id, size_t *len);

#endif
