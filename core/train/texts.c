/* SPDX-License-Identifier: Apache-2.0
 * texts.c - see texts.h. A stretch of code points between two special tokens is
 * one text: it is learned from, and encoded, as the message of a request would be. */
#include "texts.h"

#include "bpe_train.h"
#include "say.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

/* One text after the other, of all documents. */
struct walk {
    const struct texts *c;
    size_t at;   /* the next token */
    char *bytes; /* [len] of the text found last */
    size_t len;
};

static int out_of_memory(void) {
    return say_error(EX_OSERR, "out of memory for the corpus");
}

/* The most bytes that a text of c has. */
static size_t longest_text(const struct texts *c) {
    size_t longest = 0, len = 0;
    char s[4];
    for (size_t i = 0; i < c->n_tokens; i++) {
        len = c->tokens[i] < 0 ? 0 : len + utf8_encode((uint32_t)c->tokens[i], s);
        if (len > longest) longest = len;
    }
    return longest;
}

/* The text that begins at t->at, which is no special token, up to the next one. */
static void next_text(struct walk *t) {
    const struct texts *c = t->c;
    for (t->len = 0; t->at < c->n_tokens && c->tokens[t->at] >= 0; t->at++)
        t->len += utf8_encode((uint32_t)c->tokens[t->at], t->bytes + t->len);
}

/* ---- learning ---------------------------------------------------------------------- */

static int add_texts(const struct texts *c, struct bpe_words *words, char *room) {
    struct walk t = {.c = c, .bytes = room};
    while (t.at < c->n_tokens) {
        if (c->tokens[t.at] < 0) {
            t.at++;
            continue;
        }
        next_text(&t);
        t.bytes[t.len++] = '\n';
        if (bpe_words_add(words, t.bytes, t.len)) return -1;
    }
    return 0;
}

/* A text is learned from as the file has it, ends of lines included; a message as a line
 * of such a file, so that a chat model knows the end of a line too. */
static int count_words(const struct texts *c, const struct bpe_options *opt,
                       const char *file, size_t size, struct bpe_words *words) {
    if (!opt->chat) return bpe_words_add(words, file, size);
    char *room = malloc(longest_text(c) + 4);
    int rc = room ? add_texts(c, words, room) : -1;
    free(room);
    return rc;
}

int texts_learn(const struct texts *c, const struct bpe_options *opt, const char *file,
                size_t size, char **json, size_t *len) {
    struct bpe_words words = {0};
    struct bpe_vocab vocab = {0};
    struct mg_error err = {0};
    int rc = count_words(c, opt, file, size, &words) ? out_of_memory() : 0;
    if (!rc && bpe_train(&words, opt, &vocab, &err)) rc = say_model_error(&err);
    *json = rc ? NULL : bpe_vocab_json(&vocab, len);
    if (!rc && !*json) rc = out_of_memory();
    bpe_words_free(&words);
    bpe_vocab_free(&vocab);
    return rc;
}

/* ---- encoding ---------------------------------------------------------------------- */

struct encoder {
    struct texts *c;
    struct walk texts;
    const struct mg_tokenizer *tokenizer;
    void *scratch;
    int32_t *ids; /* [n] the new tokens: never more than bytes of text and special ones */
    size_t n;
    size_t lost; /* bytes of text without a token */
};

static int32_t special_id(const struct mg_tokenizer *t, int32_t mark) {
    return mark == TEXTS_BOS         ? t->bos
           : mark == TEXTS_END_TURN  ? t->end_turn
           : mark == TEXTS_ASSISTANT ? t->assistant
                                     : t->user;
}

/* The text at hand, as ids behind the others. Bytes that are in no token leave no trace
 * in them: those are counted. */
static void encode_text(struct encoder *e) {
    struct mg_encoding run;
    size_t from = e->n, len;
    next_text(&e->texts);
    mg_encoding_begin(&run, e->tokenizer, e->texts.bytes, e->texts.len, e->scratch);
    while (!run.done) e->n += mg_encoding_run(&run, SIZE_MAX, e->ids + e->n, SIZE_MAX);
    e->lost += e->texts.len;
    for (size_t i = from; i < e->n; i++) {
        mg_tokenizer_text(e->tokenizer, e->ids[i], &len);
        e->lost -= len;
    }
}

static void encode_all(struct encoder *e) {
    struct texts *c = e->c;
    int32_t doc = 0;
    while (e->texts.at < c->n_tokens) {
        if (doc < c->n_docs && c->start[doc] == e->texts.at) c->start[doc++] = e->n;
        if (c->tokens[e->texts.at] < 0)
            e->ids[e->n++] = special_id(e->tokenizer, c->tokens[e->texts.at++]);
        else
            encode_text(e);
    }
    c->start[c->n_docs] = e->n;
}

static size_t count_bytes(const struct texts *c) {
    size_t n = 0;
    char s[4];
    for (size_t i = 0; i < c->n_tokens; i++)
        n += c->tokens[i] < 0 ? 1 : utf8_encode((uint32_t)c->tokens[i], s);
    return n;
}

int texts_encode(struct texts *c, const struct mg_tokenizer *t, size_t *lost) {
    size_t longest = longest_text(c), most = count_bytes(c);
    struct encoder e = {.c = c, .texts = {.c = c}, .tokenizer = t};
    e.texts.bytes = malloc(longest + 4);
    e.scratch = aligned_alloc(64, (t->calls->scratch_bytes(t, longest) + 63) / 64 * 64);
    e.ids = calloc(most + 1, sizeof *e.ids);
    int rc = e.texts.bytes && e.scratch && e.ids ? 0 : out_of_memory();
    if (!rc) {
        encode_all(&e);
        free(c->tokens);
        c->tokens = e.ids, c->n_tokens = e.n;
        e.ids = NULL;
    }
    *lost = e.lost;
    free(e.texts.bytes);
    free(e.scratch);
    free(e.ids);
    return rc;
}
