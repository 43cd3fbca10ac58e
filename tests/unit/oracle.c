/* SPDX-License-Identifier: Apache-2.0
 *
 * oracle.c - see oracle.h. Nothing here is fast and nothing is clever. */
#include "oracle.h"

#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what) {
    fprintf(stderr, "oracle: %s\n", what);
    abort();
}

static double *new_doubles(size_t n) {
    double *p = calloc(n ? n : 1, sizeof *p);
    if (!p) die("out of memory");
    return p;
}

/* ---- reading ----------------------------------------------------------------------- */

static unsigned char *read_whole(const char *dir, const char *name, size_t *size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) die(path);
    *size = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, f) != *size) die(path);
    fclose(f);
    return data;
}

/* Value of a half: sign, 5 bits of exponent, 10 of fraction. */
static double half_value(unsigned bits) {
    double sign = bits & 0x8000 ? -1 : 1;
    int exponent = (int)(bits >> 10 & 31);
    double fraction = bits & 1023;
    if (exponent == 0) return sign * ldexp(fraction, -24);
    return sign * ldexp(1024 + fraction, exponent - 25);
}

static double single_value(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static double number_at(const unsigned char *p, const char *dtype) {
    if (strcmp(dtype, "F32") == 0)
        return single_value(p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                            (uint32_t)p[3] << 24);
    unsigned bits = p[0] | (unsigned)p[1] << 8;
    return strcmp(dtype, "F16") == 0 ? half_value(bits)
                                     : single_value((uint32_t)bits << 16);
}

static void read_tensor(struct oracle_tensor *t, const char *name, json_t *entry,
                        const unsigned char *data) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_t *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = (int)json_integer_value(json_array_get(shape, 0));
    t->cols = (int)json_integer_value(json_array_get(shape, 1));
    data += json_integer_value(json_array_get(offsets, 0));
    size_t n = (size_t)t->rows * (size_t)t->cols,
           each = strcmp(dtype, "F32") == 0 ? 4 : 2;
    t->data = new_doubles(n);
    for (size_t i = 0; i < n; i++) t->data[i] = number_at(data + i * each, dtype);
}

static void read_weights(struct oracle *o, const char *dir) {
    size_t size, header = 0;
    unsigned char *file = read_whole(dir, "weights.safetensors", &size);
    for (int i = 0; i < 8; i++) header |= (size_t)file[i] << 8 * i;
    json_error_t error;
    json_t *root = json_loadb((char *)file + 8, header, 0, &error), *entry;
    if (!root) die(error.text);
    o->tensors = calloc(json_object_size(root), sizeof *o->tensors);
    const char *name;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") != 0)
            read_tensor(&o->tensors[o->n_tensors++], name, entry, file + 8 + header);
    }
    json_decref(root);
    free(file);
}

static int read_int(json_t *meta, const char *key) {
    return (int)json_integer_value(json_object_get(meta, key));
}

struct oracle *oracle_open(const char *dir) {
    struct oracle *o = calloc(1, sizeof *o);
    size_t size;
    unsigned char *file = read_whole(dir, "meta.json", &size);
    json_t *meta = json_loadb((char *)file, size, JSON_ALLOW_NUL, NULL);
    if (!o || !meta) die("meta.json");
    o->vocab_size = read_int(meta, "vocab_size");
    o->n_embd = read_int(meta, "n_embd");
    o->n_head = read_int(meta, "n_head");
    o->n_layer = read_int(meta, "n_layer");
    o->block_size = read_int(meta, "block_size");
    json_decref(meta);
    free(file);
    read_weights(o, dir);
    size_t cache = (size_t)o->n_layer * (size_t)o->block_size * (size_t)o->n_embd;
    o->keys = new_doubles(cache);
    o->values = new_doubles(cache);
    o->logits = new_doubles((size_t)o->vocab_size);
    return o;
}

void oracle_close(struct oracle *o) {
    for (int i = 0; i < o->n_tensors; i++) free(o->tensors[i].data);
    free(o->tensors);
    free(o->keys);
    free(o->values);
    free(o->logits);
    free(o);
}

const struct oracle_tensor *oracle_find(const struct oracle *o, const char *name) {
    for (int i = 0; i < o->n_tensors; i++)
        if (strcmp(o->tensors[i].name, name) == 0) return &o->tensors[i];
    die(name);
    return NULL;
}

void oracle_reset(struct oracle *o) {
    o->n_pos = 0;
}

/* ---- the pass ---------------------------------------------------------------------- */

/* y[rows] = W x */
static void multiply(const struct oracle_tensor *w, const double *x, double *y) {
    for (int r = 0; r < w->rows; r++) {
        double sum = 0;
        for (int c = 0; c < w->cols; c++)
            sum += w->data[(size_t)r * (size_t)w->cols + (size_t)c] * x[c];
        y[r] = sum;
    }
}

static void normalize(double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    for (int i = 0; i < n; i++) /* the sum is complete: x may change now */
        x[i] /= sqrt(sum / n + 1e-5);
}

static const struct oracle_tensor *find_layer(const struct oracle *o, int layer,
                                              const char *part) {
    char name[64];
    snprintf(name, sizeof name, "layer%d.%s", layer, part);
    return oracle_find(o, name);
}

/* One head: out[head_dim] of the query at position pos. k, v: this layer's cache. */
static void attend(const struct oracle *o, int head, int pos, const double *q,
                   const double *k, const double *v, double *out) {
    int dim = o->n_embd / o->n_head, first = head * dim;
    double *score = new_doubles((size_t)pos + 1), max = -INFINITY, total = 0;
    for (int j = 0; j <= pos; j++) {
        for (int i = first; i < first + dim; i++) score[j] += q[i] * k[j * o->n_embd + i];
        score[j] /= sqrt(dim);
        max = fmax(max, score[j]);
    }
    for (int j = 0; j <= pos; j++) total += score[j] = exp(score[j] - max);
    for (int i = first; i < first + dim; i++) {
        out[i] = 0;
        for (int j = 0; j <= pos; j++) out[i] += score[j] / total * v[j * o->n_embd + i];
    }
    free(score);
}

static void run_layer(struct oracle *o, int layer, int pos, double *x) {
    int d = o->n_embd;
    size_t start = (size_t)layer * (size_t)o->block_size * (size_t)d;
    double *k = o->keys + start, *v = o->values + start;
    double *r = new_doubles((size_t)d), *q = new_doubles((size_t)d);
    double *a = new_doubles((size_t)d), *h = new_doubles(4 * (size_t)d);
    memcpy(r, x, (size_t)d * sizeof *x);
    normalize(x, d);
    multiply(find_layer(o, layer, "attn_wq"), x, q);
    multiply(find_layer(o, layer, "attn_wk"), x, k + pos * d);
    multiply(find_layer(o, layer, "attn_wv"), x, v + pos * d);
    for (int head = 0; head < o->n_head; head++) attend(o, head, pos, q, k, v, a);
    multiply(find_layer(o, layer, "attn_wo"), a, x);
    for (int i = 0; i < d; i++) r[i] = x[i] += r[i];
    normalize(x, d);
    multiply(find_layer(o, layer, "mlp_fc1"), x, h);
    for (int i = 0; i < 4 * d; i++) h[i] = h[i] > 0 ? h[i] : 0;
    multiply(find_layer(o, layer, "mlp_fc2"), h, x);
    for (int i = 0; i < d; i++) x[i] += r[i];
    free(r), free(q), free(a), free(h);
}

const double *oracle_feed(struct oracle *o, int token) {
    int pos = o->n_pos++, d = o->n_embd;
    if (pos >= o->block_size || token < 0 || token >= o->vocab_size)
        die("fed beyond the context or the vocabulary");
    const double *t = oracle_find(o, "wte")->data + (size_t)token * (size_t)d;
    const double *p = oracle_find(o, "wpe")->data + (size_t)pos * (size_t)d;
    double *x = new_doubles((size_t)d);
    for (int i = 0; i < d; i++) x[i] = t[i] + p[i];
    normalize(x, d);
    for (int layer = 0; layer < o->n_layer; layer++) run_layer(o, layer, pos, x);
    multiply(oracle_find(o, "lm_head"), x, o->logits);
    free(x);
    return o->logits;
}
