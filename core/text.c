/* SPDX-License-Identifier: Apache-2.0
 *
 * text.c - bytes of tokens to whole, trimmed UTF-8 text, a token at a time; and the few
 * facts about UTF-8 that core needs. What has become visible never changes again: an
 * unfinished character and trailing white space are held back until their fate is known,
 * so a reader may send every visible byte at once. Knows no tokens and no model. */
#include "text.h"

#include <string.h>

int mg_is_white_space(uint32_t c) {
    if (c <= 0x20) return c == 0x20 || (c >= 0x09 && c <= 0x0D);
    if (c < 0x1680) return c == 0x85 || c == 0xA0;
    return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

int mg_utf8_next(const char *p, const char *end, uint32_t *c) {
    const unsigned char *s = (const unsigned char *)p;
    int n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (n == 1 || end - p < n) {
        *c = s[0];
        return 1;
    }
    uint32_t v = s[0] & (0xFFu >> (n + 1));
    for (int i = 1; i < n; i++) v = v << 6 | (s[i] & 0x3Fu);
    *c = v;
    return n;
}

int mg_text_is_blank(const char *text, size_t len) {
    const char *end = text + len;
    uint32_t c;
    for (const char *p = text; p < end;) {
        p += mg_utf8_next(p, end, &c);
        if (!mg_is_white_space(c)) return 0;
    }
    return 1;
}

void mg_text_init(struct mg_text *t, char *buf, size_t cap, int trim) {
    *t = (struct mg_text){.buf = buf, .cap = cap, .trim = trim};
}

static int is_punctuation(uint32_t c) {
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) ||
           (c >= 0x5B && c <= 0x60) || (c >= 0x7B && c <= 0x7E);
}

/* Is c, with nothing before it, one more that is left out? A run of punctuation is, once,
 * and the white space around it. */
static int is_stripped(struct mg_text *t, uint32_t c, int space) {
    enum { BEFORE = 1, WITHIN, AFTER }; /* the punctuation, in strip */
    if (t->strip == WITHIN && space) t->strip = AFTER;
    if (space || (t->strip != BEFORE && t->strip != WITHIN)) return space;
    t->strip = is_punctuation(c) ? WITHIN : 0;
    return t->strip;
}

/* One whole character of n bytes. White space is not visible before something follows it,
 * and is not even kept before something precedes it. */
static void put_char(struct mg_text *t, const unsigned char *s, int n) {
    int space = 0;
    if (t->trim) {
        uint32_t c;
        mg_utf8_next((const char *)s, (const char *)s + n, &c);
        space = mg_is_white_space(c);
        if (t->len == 0 && is_stripped(t, c, space)) return;
    }
    if (t->cap - t->len < (size_t)n) /* the caller's arithmetic is wrong: lose, never
                                        overrun */
        return;
    for (int i = 0; i < n; i++) t->buf[t->len + (size_t)i] = (char)s[i];
    t->len += (size_t)n;
    if (!space) t->visible = t->len;
}

static void put_replacement(struct mg_text *t) {
    static const unsigned char replacement[3] = {0xEF, 0xBF, 0xBD}; /* U+FFFD */
    t->n_pending = 0;
    put_char(t, replacement, 3);
}

/* Length of the character that lead byte b begins, 0 if b begins none. */
static int sequence_length(unsigned char b) {
    if (b < 0x80) return 1;
    if (b < 0xC2 || b > 0xF4) return 0;
    return b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

/* 1 if b may follow the n >= 1 bytes of the unfinished character p (Unicode, table
 * 3-7). */
static int may_follow(const unsigned char *p, int n, unsigned char b) {
    if (n > 1) return b >= 0x80 && b <= 0xBF;
    switch (p[0]) {
    case 0xE0: return b >= 0xA0 && b <= 0xBF;
    case 0xED: return b >= 0x80 && b <= 0x9F;
    case 0xF0: return b >= 0x90 && b <= 0xBF;
    case 0xF4: return b >= 0x80 && b <= 0x8F;
    default: return b >= 0x80 && b <= 0xBF;
    }
}

static void put_byte(struct mg_text *t, unsigned char b) {
    if (t->n_pending > 0 && !may_follow(t->pending, t->n_pending, b))
        put_replacement(t); /* a maximal ill-formed part ends; b begins anew */
    if (t->n_pending == 0 && sequence_length(b) == 0) {
        put_replacement(t);
        return;
    }
    t->pending[t->n_pending++] = b;
    if (t->n_pending == sequence_length(t->pending[0])) {
        int n = t->n_pending;
        t->n_pending = 0;
        put_char(t, t->pending, n);
    }
}

void mg_text_append(struct mg_text *t, const char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) put_byte(t, (unsigned char)bytes[i]);
}

void mg_text_break(struct mg_text *t) {
    if (t->n_pending > 0) put_replacement(t);
}

void mg_text_finish(struct mg_text *t) {
    mg_text_break(t);
    t->len = t->visible; /* without trim the two are equal */
}
