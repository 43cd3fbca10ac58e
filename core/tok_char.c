/* SPDX-License-Identifier: Apache-2.0
 * tok_char.c - the tokenizer of checkpoint format A: a table of characters, token id =
 * index, the special tokens behind them. Code points are looked up in a table of two
 * levels, 256 to a page, so that encoding is linear in the text whatever the text and the
 * vocabulary are. Knows no files, messages or limits of context. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "text.h"

/* Four bytes can spell up to 0x1FFFFF: no text, however bad, looks beyond the table. */
enum { PAGE = 256, N_PAGES = 0x200000 / PAGE };

struct token_text {
    char bytes[4];
};

struct char_tokenizer {
    struct mg_tokenizer head; /* first */
    int n_chars;
    struct token_text *text; /* [n_chars] */
    unsigned char *len;      /* [n_chars] bytes of text */
    int32_t *ids;            /* [pages in use + 1][PAGE], -1 = unknown; page 0 is all
                                unknown */
    uint16_t page[N_PAGES];  /* code point / PAGE -> page of ids */
};

static const struct char_tokenizer *chars_of(const struct mg_tokenizer *t) {
    return (const struct char_tokenizer *)t;
}

static int encode_utf8(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(c | (0xF00u >> n & 0xF0u));
    return n;
}

/* Give every page that holds one of the characters its place in ids; returns their
 * number. */
static int number_pages(struct char_tokenizer *t, const uint32_t *chars, int n) {
    int used = 0;
    for (int i = 0; i < n; i++) {
        uint16_t *page = &t->page[chars[i] / PAGE];
        if (*page == 0) *page = (uint16_t)++used;
    }
    return used;
}

static int fill_tables(struct char_tokenizer *t, const uint32_t *chars,
                       struct mg_error *err) {
    for (int i = 0; i < t->n_chars; i++) {
        uint32_t c = chars[i];
        int32_t *id = &t->ids[t->page[c / PAGE] * PAGE + c % PAGE];
        if (*id >= 0)
            return mg_fail(
                err, MG_EFILE,
                "meta.json: chars[%d]: U+%04X is there twice, first as chars[%d]", i,
                (unsigned)c, (int)*id);
        *id = i;
        t->len[i] = (unsigned char)encode_utf8(c, t->text[i].bytes);
        if (t->len[i] > t->head.max_bytes) t->head.max_bytes = t->len[i];
    }
    return 0;
}

static int check_scalars(const uint32_t *chars, int n, struct mg_error *err) {
    for (int i = 0; i < n; i++)
        if (chars[i] > 0x10FFFF || (chars[i] >= 0xD800 && chars[i] <= 0xDFFF))
            return mg_fail(err, MG_EFILE,
                           "meta.json: chars[%d]: U+%04X is not a character", i,
                           (unsigned)chars[i]);
    return 0;
}

/* ---- the table of calls ------------------------------------------------------------ */

static void free_chars(struct mg_tokenizer *head) {
    struct char_tokenizer *t = (struct char_tokenizer *)head;
    free(t->text);
    free(t->len);
    free(t->ids);
    free(t);
}

static const char *text_of(const struct mg_tokenizer *head, int32_t id, size_t *len) {
    const struct char_tokenizer *t = chars_of(head);
    if (id < 0 || id >= t->n_chars) {
        *len = 0;
        return "";
    }
    *len = t->len[id];
    return t->text[id].bytes;
}

static size_t no_scratch(const struct mg_tokenizer *t, size_t longest) {
    (void)t, (void)longest;
    return 0;
}

static void begin_text(struct mg_encoding *e) {
    (void)e;
}

static size_t run_text(struct mg_encoding *e, size_t budget, int32_t *out, size_t cap) {
    const struct char_tokenizer *t = chars_of(e->tokenizer);
    const char *p = e->text + e->at, *end = e->text + e->len;
    const char *stop = budget < (size_t)(end - p) ? p + budget : end;
    size_t n = 0;
    while (p < stop && n < cap) {
        uint32_t c;
        p += mg_utf8_next(p, end, &c);
        int32_t id = t->ids[t->page[c / PAGE] * PAGE + c % PAGE];
        if (id >= 0) out[n++] = id;
    }
    e->at = (size_t)(p - e->text);
    e->done = p == end;
    return n;
}

static const struct mg_tokenizer_calls calls = {.free = free_chars,
                                                .text = text_of,
                                                .spelling = text_of,
                                                .scratch_bytes = no_scratch,
                                                .begin = begin_text,
                                                .run = run_text};

/* ---- opening ----------------------------------------------------------------------- */

static struct mg_tokenizer name_ids(int n, int has_chat) {
    return (struct mg_tokenizer){.calls = &calls,
                                 .name = "char",
                                 .vocab_size = n + (has_chat ? 4 : 1),
                                 .bos = n + (has_chat ? 3 : 0),
                                 .user = has_chat ? n : -1,
                                 .assistant = has_chat ? n + 1 : -1,
                                 .end_turn = has_chat ? n + 2 : -1,
                                 .growth = 1};
}

static int reserve_tables(struct char_tokenizer *t, const uint32_t *chars, int n,
                          struct mg_error *err) {
    size_t n_ids = (size_t)(number_pages(t, chars, n) + 1) * PAGE;
    t->text = calloc((size_t)n + 1, sizeof *t->text);
    t->len = calloc((size_t)n + 1, sizeof *t->len);
    t->ids = malloc(n_ids * sizeof *t->ids);
    if (!t->text || !t->len || !t->ids)
        return mg_fail(err, MG_ENOMEM, "out of memory for a tokenizer of %d characters",
                       n);
    memset(t->ids, 0xFF, n_ids * sizeof *t->ids); /* -1 everywhere */
    return 0;
}

struct mg_tokenizer *mg_tokenizer_chars(const uint32_t *chars, int n, int has_chat,
                                        struct mg_error *err) {
    if (check_scalars(chars, n, err) < 0) return NULL;
    struct char_tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        mg_fail(err, MG_ENOMEM, "out of memory for a tokenizer of %d characters", n);
        return NULL;
    }
    t->head = name_ids(n, has_chat);
    t->n_chars = n;
    if (!reserve_tables(t, chars, n, err) && !fill_tables(t, chars, err)) return &t->head;
    free_chars(&t->head);
    return NULL;
}
