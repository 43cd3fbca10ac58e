/* SPDX-License-Identifier: Apache-2.0
 * bpe_split.c - see bpe_split.h. A scanner by hand for
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * which looks at every code point once, or twice where white space ends, and can stop
 * within a piece. Knows no tokens. */
#include "bpe_split.h"

#include <string.h>

#include "text.h"

enum { NO_RUN = -1 };

void mg_split_init(struct mg_split *s, const char *text, size_t from, size_t len) {
    *s = (struct mg_split){
        .text = text, .len = len, .begin = from, .end = from, .class = NO_RUN};
}

/* The class of the code point at i < len and its length in bytes. */
static int class_at(struct mg_split *s, size_t i, size_t *bytes) {
    uint32_t c;
    *bytes = (size_t)mg_utf8_next(s->text + i, s->text + s->len, &c);
    if (c < s->range.first || c >= s->range.end) s->range = mg_unicode_range(c);
    return s->range.class;
}

/* Length of 's, 't, 're ... at i, 0 if there is none. */
static size_t contraction_at(const struct mg_split *s, size_t i) {
    static const char endings[][3] = {"s", "t", "re", "ve", "m", "ll", "d"};
    const char *p = s->text + i;
    size_t left = s->len - i;
    if (*p != '\'') return 0;
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++) {
        size_t n = strlen(endings[k]);
        if (n < left && !memcmp(p + 1, endings[k], n)) return n + 1;
    }
    return 0;
}

/* A run begins at end, or behind the one space there that goes with it. */
static void begin_run(struct mg_split *s) {
    size_t bytes;
    s->begin = s->last = s->end;
    s->class = class_at(s, s->end, &bytes);
    if (s->text[s->end] != ' ' || s->end + 1 == s->len) return;
    int next = class_at(s, s->end + 1, &bytes);
    if (next == MG_SPACE) return;
    s->class = next;
    s->end++;
}

int mg_split_next(struct mg_split *s, size_t *budget) {
    if (s->class == NO_RUN) {
        size_t n = contraction_at(s, s->end);
        if (n > 0) {
            s->begin = s->end;
            s->end += n;
            return 1;
        }
        begin_run(s);
    }
    size_t bytes, left = *budget;
    while (left > 0 && s->end < s->len && class_at(s, s->end, &bytes) == s->class) {
        s->last = s->end;
        s->end += bytes;
        left--;
    }
    *budget = left;
    if (left == 0 && s->end < s->len) return 0;
    /* white space leaves its last character to what follows */
    if (s->class == MG_SPACE && s->end < s->len && s->last > s->begin) s->end = s->last;
    s->class = NO_RUN;
    return 1;
}
