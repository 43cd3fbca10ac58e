/* SPDX-License-Identifier: Apache-2.0
 * bpe_words.c - see bpe_words.h. Knows no tokens. */
#include "bpe_words.h"

#include "../bpe_split.h"
#include "../digest.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = INT32_MAX };

/* *array, of elements of that size, with room for n at least. */
static int reserve(void **array, size_t *cap, size_t n, size_t size) {
    if (n <= *cap) return 0;
    size_t more = n + n / 2 + 1024;
    void *p = realloc(*array, more * size);
    if (!p) return -1;
    *array = p;
    *cap = more;
    return 0;
}

/* The place of a word, or the empty one where it belongs. */
static uint32_t *find_place(const struct bpe_words *w, const char *text, size_t len) {
    size_t i = mg_digest(text, len) & (w->n_places - 1);
    for (; w->place[i]; i = (i + 1) & (w->n_places - 1)) {
        const struct bpe_word *word = &w->word[w->place[i] - 1];
        if (word->len == len && !memcmp(w->bytes + word->at, text, len)) break;
    }
    return &w->place[i];
}

/* Twice as many places, at most half of them in use. */
static int grow_places(struct bpe_words *w) {
    uint32_t *old = w->place;
    size_t n = w->n_places ? 2 * w->n_places : 1 << 12;
    w->place = calloc(n, sizeof *w->place);
    if (!w->place) {
        w->place = old;
        return -1;
    }
    w->n_places = n;
    free(old);
    for (size_t i = 0; i < w->n; i++)
        *find_place(w, w->bytes + w->word[i].at, w->word[i].len) = (uint32_t)i + 1;
    return 0;
}

static int count_piece(struct bpe_words *w, const char *text, size_t len) {
    if (2 * (w->n + 1) > w->n_places && grow_places(w)) return -1;
    uint32_t *place = find_place(w, text, len);
    if (*place) {
        w->word[*place - 1].count++;
        return 0;
    }
    if (w->n == MAX_WORDS ||
        reserve((void **)&w->word, &w->cap, w->n + 1, sizeof *w->word) ||
        reserve((void **)&w->bytes, &w->cap_bytes, w->n_bytes + len, 1))
        return -1;
    memcpy(w->bytes + w->n_bytes, text, len);
    w->word[w->n++] = (struct bpe_word){w->n_bytes, len, 1};
    w->n_bytes += len;
    *place = (uint32_t)w->n;
    return 0;
}

static int add_line(struct bpe_words *w, const char *line, size_t len) {
    struct mg_split s;
    mg_split_init(&s, line, 0, len);
    while (s.end < len) {
        size_t all = SIZE_MAX;
        mg_split_next(&s, &all);
        if (count_piece(w, line + s.begin, s.end - s.begin)) return -1;
    }
    return 0;
}

int bpe_words_add(struct bpe_words *w, const char *text, size_t len) {
    const char *p = text, *end = text + len;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *next = newline ? newline + 1 : end;
        if (add_line(w, p, (size_t)(next - p))) return -1;
        p = next;
    }
    return 0;
}

void bpe_words_free(struct bpe_words *w) {
    free(w->word);
    free(w->bytes);
    free(w->place);
    *w = (struct bpe_words){0};
}
