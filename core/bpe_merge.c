/* SPDX-License-Identifier: Apache-2.0
 * bpe_merge.c - the merges of byte-level BPE within one piece of text: always the one of
 * lowest rank, of equal ones the leftmost, one at a time. A short piece is searched anew
 * for each; a long one keeps its merges in a heap, where those that a later merge has
 * made void stay until they come up (lazy deletion), so that its cost is n log n. It
 * can stop after any step. Allocates nothing; knows no text and no file. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT = 24 }; /* bytes that are searched rather than heaped */

#define END UINT32_MAX

/* ---- the table of merges ----------------------------------------------------------- */

static size_t hash_pair(uint64_t pair) {
    uint64_t h = pair * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32);
}

/* The place of the pair, or the empty one where it belongs. */
static struct mg_bpe_pair *find_place(const struct mg_bpe *b, uint64_t pair) {
    size_t i = hash_pair(pair) & b->mask;
    while (b->pairs[i].pair != pair && b->pairs[i].merge != MG_BPE_NO_MERGE)
        i = (i + 1) & b->mask;
    return &b->pairs[i];
}

static uint64_t make_pair(int32_t a, int32_t b) {
    return (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
}

uint64_t mg_bpe_find(const struct mg_bpe *b, int32_t left, int32_t right) {
    return find_place(b, make_pair(left, right))->merge;
}

int mg_bpe_reserve_pairs(struct mg_bpe *b, size_t n) {
    size_t places = 16;
    while (places < 2 * n) places *= 2;
    b->pairs = malloc(places * sizeof *b->pairs);
    if (!b->pairs) return -1;
    b->mask = places - 1;
    memset(b->pairs, 0xFF, places * sizeof *b->pairs); /* no merge, no pair of ids */
    return 0;
}

void mg_bpe_put_pair(struct mg_bpe *b, int32_t left, int32_t right, uint64_t merge) {
    uint64_t pair = make_pair(left, right);
    *find_place(b, pair) = (struct mg_bpe_pair){pair, merge};
}

/* ---- memory ------------------------------------------------------------------------ */

size_t mg_bpe_word_bytes(size_t longest) {
    return longest * (2 * sizeof(uint64_t) + 3 * sizeof(uint32_t));
}

void mg_bpe_word_init(struct mg_bpe_word *w, void *memory, size_t longest) {
    uint64_t *heap = memory;
    uint32_t *list = (uint32_t *)(heap + 2 * longest);
    *w = (struct mg_bpe_word){.heap = heap,
                              .next = list,
                              .prev = list + longest,
                              .id = (int32_t *)(list + 2 * longest)};
}

void mg_bpe_word_begin(struct mg_bpe_word *w, const char *bytes, size_t len) {
    w->bytes = (const unsigned char *)bytes;
    w->len = len;
    w->at = 0;
    w->n = w->n_heap = 0;
}

/* ---- a short piece ----------------------------------------------------------------- */

static uint32_t load_short(struct mg_bpe_word *w, const struct mg_bpe *b) {
    uint32_t n = 0;
    for (size_t i = 0; i < w->len; i++)
        if (b->byte_id[w->bytes[i]] >= 0) w->id[n++] = b->byte_id[w->bytes[i]];
    return n;
}

static void merge_short(struct mg_bpe_word *w, const struct mg_bpe *b) {
    uint64_t merge[SHORT]; /* of symbols i and i + 1 */
    uint32_t n = load_short(w, b);
    for (uint32_t i = 0; i + 1 < n; i++)
        merge[i] = mg_bpe_find(b, w->id[i], w->id[i + 1]);
    for (;;) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < n; i++)
            if (merge[i] < merge[best]) best = i;
        if (n < 2 || merge[best] == MG_BPE_NO_MERGE) break;
        w->id[best] = (int32_t)(uint32_t)merge[best];
        n--;
        for (uint32_t i = best + 1; i < n; i++) {
            w->id[i] = w->id[i + 1];
            merge[i - 1] = merge[i];
        }
        if (best > 0) merge[best - 1] = mg_bpe_find(b, w->id[best - 1], w->id[best]);
        if (best + 1 < n) merge[best] = mg_bpe_find(b, w->id[best], w->id[best + 1]);
    }
    for (uint32_t i = 0; i < n; i++) w->next[i] = i + 1 < n ? i + 1 : END;
    w->n = n;
}

/* ---- the heap ---------------------------------------------------------------------- */

static void push(struct mg_bpe_word *w, uint64_t entry) {
    uint32_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > entry; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = entry;
}

static uint64_t pop(struct mg_bpe_word *w) {
    uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t i = 0, n = w->n_heap;
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && w->heap[child + 1] < w->heap[child];
        if (last <= w->heap[child]) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* ---- a long piece ------------------------------------------------------------------ */

/* Symbols left and right have become neighbours. */
static void push_pair(struct mg_bpe_word *w, const struct mg_bpe *b, uint32_t left,
                      uint32_t right) {
    uint64_t merge = mg_bpe_find(b, w->id[left], w->id[right]);
    if (merge != MG_BPE_NO_MERGE) push(w, merge >> 32 << 32 | left);
}

static void load_byte(struct mg_bpe_word *w, const struct mg_bpe *b) {
    int32_t id = b->byte_id[w->bytes[w->at++]];
    if (id < 0) return;
    uint32_t i = w->n++;
    w->id[i] = id;
    w->next[i] = END;
    w->prev[i] = i - 1; /* END for the first */
    if (i == 0) return;
    w->next[i - 1] = i;
    push_pair(w, b, i - 1, i);
}

/* The heap's first merge, if it still is one: its symbols live, are neighbours and have
 * this rank. */
static void merge_first(struct mg_bpe_word *w, const struct mg_bpe *b) {
    uint64_t entry = pop(w);
    uint32_t left = (uint32_t)entry, right = w->next[left];
    if (w->id[left] < 0 || right == END) return;
    uint64_t merge = mg_bpe_find(b, w->id[left], w->id[right]);
    if (merge >> 32 != entry >> 32) return;
    uint32_t after = w->next[right];
    w->id[left] = (int32_t)(uint32_t)merge;
    w->id[right] = -1;
    w->next[left] = after;
    if (w->prev[left] != END) push_pair(w, b, w->prev[left], left);
    if (after == END) return;
    w->prev[after] = left;
    push_pair(w, b, left, after);
}

static int merge_long(struct mg_bpe_word *w, const struct mg_bpe *b, size_t *budget) {
    size_t left = *budget;
    for (; left > 0 && w->at < w->len; left--) load_byte(w, b);
    if (w->at == w->len)
        for (; left > 0 && w->n_heap > 0; left--) merge_first(w, b);
    *budget = left;
    return w->at == w->len && w->n_heap == 0;
}

/* ---- both -------------------------------------------------------------------------- */

int mg_bpe_word_merge(struct mg_bpe_word *w, const struct mg_bpe *b, size_t *budget) {
    if (w->len <= SHORT) {
        merge_short(w, b);
        *budget -= w->len < *budget ? w->len : *budget;
    } else if (!merge_long(w, b, budget)) {
        return 0;
    }
    w->at = w->n > 0 ? 0 : END;
    return 1;
}

size_t mg_bpe_word_write(struct mg_bpe_word *w, int32_t *out, size_t cap, size_t *budget,
                         int *done) {
    size_t n = 0, most = cap < *budget ? cap : *budget;
    for (; n < most && w->at != END; w->at = w->next[w->at]) out[n++] = w->id[w->at];
    *budget -= n;
    *done = w->at == END;
    return n;
}
