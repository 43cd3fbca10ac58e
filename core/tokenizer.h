/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.h - text to token ids and back: a table of calls, and the head that every
 * tokenizer begins with. tok_char.c is format A (a table of characters), tok_bpe.c is
 * format B (byte-level BPE). Immutable after open. Internal to core.
 *
 * The rule to keep: no text ever becomes a special token, unless the caller of an
 * encoding asks for it. */
#ifndef MG_TOKENIZER_H
#define MG_TOKENIZER_H

#include "microgpt.h"

struct mg_tokenizer_calls;

struct mg_tokenizer {
    const struct mg_tokenizer_calls *calls;
    const char *name; /* "char", "bpe" */
    int vocab_size;
    int32_t bos;
    int32_t user, assistant, end_turn; /* -1 without chat */
    size_t max_bytes;                  /* longest text of one token */
    size_t growth; /* bytes of text that one byte of a token may become: 3 where tokens
                      can be ill-formed UTF-8 (U+FFFD), else 1 */
};

/* One text on its way to ids. */
struct mg_encoding {
    const struct mg_tokenizer *tokenizer;
    const char *text; /* valid UTF-8, borrowed until done */
    size_t len, at;   /* bytes; those taken so far */
    int done;
    int special;   /* set it after begin: text that spells a special token becomes it */
    void *scratch; /* the caller's, scratch_bytes of it; keeps the state between runs */
};

struct mg_tokenizer_calls {
    void (*free)(struct mg_tokenizer *);
    /* Bytes of one token, *len of them; special tokens have none. */
    const char *(*text)(const struct mg_tokenizer *, int32_t id, size_t *len);
    /* The same, but special tokens have what spells them, if anything does. */
    const char *(*spelling)(const struct mg_tokenizer *, int32_t id, size_t *len);
    /* What an encoding of at most `longest` bytes needs; 64-byte aligned. */
    size_t (*scratch_bytes)(const struct mg_tokenizer *, size_t longest);
    void (*begin)(struct mg_encoding *);
    /* Work on, for about budget bytes of text or as many steps of another kind, and write
     * at most cap ids; returns how many: fewer than cap only when the budget is used up,
     * or all is done, which it says in done. Allocates nothing. */
    size_t (*run)(struct mg_encoding *, size_t budget, int32_t *out, size_t cap);
};

/* From the chars of meta.json: n different code points, token id = index, behind them the
 * special tokens (user, assistant, end_turn when has_chat) and bos; copied. Characters it
 * does not know are skipped. */
struct mg_tokenizer *mg_tokenizer_chars(const uint32_t *chars, int n, int has_chat,
                                        struct mg_error *err);
enum { MG_BPE_MAX_FILE = 64 << 20 }; /* bytes of a tokenizer.json */

/* From the text of a tokenizer.json: byte-level BPE. path is for messages. Bytes that it
 * does not know are skipped. */
struct mg_tokenizer *mg_tokenizer_bpe(const char *path, const char *text, size_t len,
                                      struct mg_error *err);
void mg_tokenizer_free(struct mg_tokenizer *); /* NULL is fine */

/* Begin with text; scratch as scratch_bytes says (NULL where that is 0). */
void mg_encoding_begin(struct mg_encoding *, const struct mg_tokenizer *,
                       const char *text, size_t len, void *scratch);
size_t mg_encoding_run(struct mg_encoding *, size_t budget, int32_t *out, size_t cap);

const char *mg_tokenizer_text(const struct mg_tokenizer *, int32_t id, size_t *len);
const char *mg_tokenizer_spelling(const struct mg_tokenizer *, int32_t id, size_t *len);

#endif
