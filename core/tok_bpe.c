/* SPDX-License-Identifier: Apache-2.0
 * tok_bpe.c - the tokenizer of checkpoint format B: byte-level BPE. An encoding goes from
 * segment (text between special tokens that count) to piece (bpe_split.c) to merges
 * (bpe_merge.c) to ids, and can stop anywhere: all that it knows lies in the caller's
 * scratch. Knows no files, messages or limits of context. */
#include "bpe.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_split.h"
#include "error.h"

enum phase { BEGIN, SEEK, SPLIT, MERGE, WRITE };

struct bpe_state {
    alignas(uint64_t) enum phase phase;
    struct mg_split split; /* of the segment */
    struct mg_bpe_word word;
    size_t seek;                          /* SEEK: no special token begins before it */
    const struct mg_bpe_special *special; /* that ends the segment, NULL = text ends */
};

static const struct mg_bpe *bpe_of(const struct mg_tokenizer *t) {
    return (const struct mg_bpe *)t;
}

static void free_bpe(struct mg_tokenizer *head) {
    struct mg_bpe *b = (struct mg_bpe *)head;
    for (int i = 0; i < b->n_special; i++) free(b->special[i].content);
    free(b->special);
    free(b->token);
    free(b->bytes);
    free(b->pairs);
    free(b);
}

/* ---- decoding ---------------------------------------------------------------------- */

static const char *spelling_of(const struct mg_tokenizer *t, int32_t id, size_t *len) {
    const struct mg_bpe *b = bpe_of(t);
    *len = 0;
    if (id < 0 || id >= t->vocab_size) return "";
    *len = b->token[id].len;
    return b->bytes + b->token[id].at;
}

static const char *text_of(const struct mg_tokenizer *t, int32_t id, size_t *len) {
    const char *bytes = spelling_of(t, id, len);
    if (*len > 0 && bpe_of(t)->token[id].hidden) *len = 0;
    return bytes;
}

/* ---- encoding ---------------------------------------------------------------------- */

static size_t scratch_bytes(const struct mg_tokenizer *t, size_t longest) {
    (void)t;
    return sizeof(struct bpe_state) + mg_bpe_word_bytes(longest);
}

static void begin_text(struct mg_encoding *e) {
    struct bpe_state *s = e->scratch;
    if (!s) return; /* nothing but the empty text */
    s->phase = BEGIN;
    mg_bpe_word_init(&s->word, s + 1, e->len);
}

static void begin_segment(struct mg_encoding *e, struct bpe_state *s) {
    s->special = NULL;
    s->seek = e->special ? e->at : e->len;
    s->phase = SEEK;
}

/* The longest special token that the text at i spells. */
static const struct mg_bpe_special *special_at(const struct mg_encoding *e, size_t i) {
    const struct mg_bpe *b = bpe_of(e->tokenizer);
    for (int k = 0; k < b->n_special; k++) {
        const struct mg_bpe_special *s = &b->special[k];
        if (s->len <= e->len - i && !memcmp(s->content, e->text + i, s->len)) return s;
    }
    return NULL;
}

static void seek_special(struct mg_encoding *e, struct bpe_state *s, size_t *budget) {
    size_t left = *budget;
    for (; left > 0 && s->seek < e->len && !s->special; left--) {
        s->special = special_at(e, s->seek);
        s->seek += !s->special;
    }
    *budget = left;
    if (!s->special && s->seek < e->len) return;
    mg_split_init(&s->split, e->text, e->at, s->seek);
    s->phase = SPLIT;
}

/* The segment is written: the special token behind it follows, if there is one. */
static size_t end_segment(struct mg_encoding *e, struct bpe_state *s, int32_t *out) {
    size_t n = 0;
    if (s->special) {
        out[n++] = s->special->id;
        e->at += s->special->len;
    }
    e->done = e->at == e->len;
    s->phase = BEGIN;
    return n;
}

static size_t split_piece(struct mg_encoding *e, struct bpe_state *s, size_t *budget,
                          int32_t *out) {
    struct mg_split *p = &s->split;
    if (p->end == p->len) {
        --*budget;
        return end_segment(e, s, out);
    }
    if (!mg_split_next(p, budget)) return 0;
    mg_bpe_word_begin(&s->word, p->text + p->begin, p->end - p->begin);
    s->phase = MERGE;
    return 0;
}

static size_t write_piece(struct mg_encoding *e, struct bpe_state *s, size_t *budget,
                          int32_t *out, size_t cap) {
    int done;
    size_t n = mg_bpe_word_write(&s->word, out, cap, budget, &done);
    if (!done) return n;
    e->at = s->split.end;
    e->done = e->at == e->len;
    s->phase = SPLIT;
    return n;
}

static size_t run_text(struct mg_encoding *e, size_t budget, int32_t *out, size_t cap) {
    struct bpe_state *s = e->scratch;
    size_t n = 0;
    while (!e->done && budget > 0 && n < cap) switch (s->phase) {
        case BEGIN: begin_segment(e, s); break;
        case SEEK: seek_special(e, s, &budget); break;
        case SPLIT: n += split_piece(e, s, &budget, out + n); break;
        case MERGE:
            if (mg_bpe_word_merge(&s->word, bpe_of(e->tokenizer), &budget))
                s->phase = WRITE;
            break;
        case WRITE: n += write_piece(e, s, &budget, out + n, cap - n); break;
        }
    return n;
}

static const struct mg_tokenizer_calls calls = {.free = free_bpe,
                                                .text = text_of,
                                                .spelling = spelling_of,
                                                .scratch_bytes = scratch_bytes,
                                                .begin = begin_text,
                                                .run = run_text};

/* ---- opening ----------------------------------------------------------------------- */

struct mg_tokenizer *mg_tokenizer_bpe(const char *path, const char *text, size_t len,
                                      struct mg_error *err) {
    struct mg_json_text *json = mg_json_open(path, text, len, err);
    if (!json) return NULL;
    struct mg_bpe *b = calloc(1, sizeof *b);
    int result = -1;
    if (b) {
        b->head = (struct mg_tokenizer){.calls = &calls, .name = "bpe", .growth = 3};
        result = mg_bpe_load(b, path, mg_json_root(json), err);
    } else {
        mg_fail(err, MG_ENOMEM, "%s: out of memory", path);
    }
    mg_json_close(json);
    if (!result) return &b->head;
    if (b) free_bpe(&b->head);
    return NULL;
}
