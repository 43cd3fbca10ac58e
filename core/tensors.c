/* SPDX-License-Identifier: Apache-2.0
 * tensors.c - the table of tensors; see tensors.h. */
#include "tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "meta.h"

/* A dimension is so many times one of the sizes. */
struct dimension {
    int times;
    size_t size; /* offset in struct mg_sizes */
};

struct row {
    const char *name;
    struct dimension rows, cols;
    size_t place; /* offset in struct mg_tensors, or in struct mg_layer */
};

#define SIZE(times, name)                                                                \
    { times, offsetof(struct mg_sizes, name) }
#define IN_MODEL(name) offsetof(struct mg_tensors, name)
#define IN_LAYER(name) offsetof(struct mg_layer, name)

static const struct row once[] = {
    {"wte", SIZE(1, vocab_size), SIZE(1, n_embd), IN_MODEL(wte)},
    {"wpe", SIZE(1, block_size), SIZE(1, n_embd), IN_MODEL(wpe)},
    {"lm_head", SIZE(1, vocab_size), SIZE(1, n_embd), IN_MODEL(lm_head)},
};

static const struct row every_layer[] = {
    {"attn_wq", SIZE(1, n_embd), SIZE(1, n_embd), IN_LAYER(wq)},
    {"attn_wk", SIZE(1, n_embd), SIZE(1, n_embd), IN_LAYER(wk)},
    {"attn_wv", SIZE(1, n_embd), SIZE(1, n_embd), IN_LAYER(wv)},
    {"attn_wo", SIZE(1, n_embd), SIZE(1, n_embd), IN_LAYER(wo)},
    {"mlp_fc1", SIZE(4, n_embd), SIZE(1, n_embd), IN_LAYER(fc1)},
    {"mlp_fc2", SIZE(1, n_embd), SIZE(4, n_embd), IN_LAYER(fc2)},
};

enum {
    ONCE = sizeof once / sizeof *once,
    PER_LAYER = sizeof every_layer / sizeof *every_layer,
};

static int measure(const struct mg_sizes *s, struct dimension d) {
    return d.times * *(const int *)(const void *)((const char *)s + d.size);
}

static size_t count_elements(const struct mg_sizes *s, const struct row *r, int n) {
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += (size_t)measure(s, r[i].rows) * (size_t)measure(s, r[i].cols);
    return sum;
}

int mg_tensor_count(const struct mg_sizes *s) {
    return ONCE + PER_LAYER * s->n_layer;
}

size_t mg_tensor_elements(const struct mg_sizes *s) {
    return count_elements(s, once, ONCE) +
           (size_t)s->n_layer * count_elements(s, every_layer, PER_LAYER);
}

struct mg_tensor mg_tensor_describe(const struct mg_sizes *s, int i) {
    struct mg_tensor t;
    const struct row *r = once;
    if (i < ONCE) {
        r += i;
        t.at = count_elements(s, once, i);
        snprintf(t.name, sizeof t.name, "%s", r->name);
    } else {
        int layer = (i - ONCE) / PER_LAYER, part = (i - ONCE) % PER_LAYER;
        r = &every_layer[part];
        t.at = count_elements(s, once, ONCE) +
               (size_t)layer * count_elements(s, every_layer, PER_LAYER) +
               count_elements(s, every_layer, part);
        snprintf(t.name, sizeof t.name, "layer%d.%s", layer, r->name);
    }
    t.rows = measure(s, r->rows);
    t.cols = measure(s, r->cols);
    return t;
}

static int find_row(const struct row *r, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(r[i].name, name) == 0) return i;
    return -1;
}

int mg_tensor_find(const char *name) {
    const char *digits = name + 5;
    if (strncmp(name, "layer", 5) != 0) return find_row(once, ONCE, name);
    size_t n = strspn(digits, "0123456789");
    long layer = strtol(digits, NULL, 10);
    if (n == 0 || (n > 1 && *digits == '0') || digits[n] != '.' || layer >= MG_MAX_LAYER)
        return -1;
    int part = find_row(every_layer, PER_LAYER, digits + n + 1);
    return part < 0 ? -1 : ONCE + PER_LAYER * (int)layer + part;
}

struct mg_matrix *mg_tensor_place(struct mg_tensors *t, int i) {
    char *base = (char *)t;
    size_t place = once[i < ONCE ? i : 0].place;
    if (i >= ONCE) {
        base = (char *)&t->layer[(i - ONCE) / PER_LAYER];
        place = every_layer[(i - ONCE) % PER_LAYER].place;
    }
    return (struct mg_matrix *)(void *)(base + place);
}
