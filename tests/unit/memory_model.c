/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_model.c - see memory_model.h. Knows struct mg_model and nothing of files. */
#include "memory_model.h"

#include <stdlib.h>
#include <string.h>

float *floats(size_t n) {
    const size_t bytes = (n * sizeof(float) + 63) / 64 * 64;
    float *p = aligned_alloc(64, bytes);
    if (!p) abort();
    memset(p, 0, bytes);
    return p;
}

static uint32_t random_bits(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

float random_float(uint64_t *state) {
    return (float)((int32_t)(random_bits(state) >> 8) - (1 << 23)) / (float)(1 << 23);
}

void random_elements(uint64_t *state, enum mg_dtype type, void *data, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float f = random_float(state) * 0.25f;
        uint32_t u;
        memcpy(&u, &f, 4);
        uint16_t half = (uint16_t)(u >> 16); /* bf16: the upper half */
        if (type == MG_F16)                  /* sign, exponent 2^-7 ... 2^-2, 10 bits */
            half = (uint16_t)((u >> 16 & 0x8000) | (8 + (u & 0xffff) % 6) << 10 |
                              (u & 0x3ff));
        if (type == MG_F16 && u % 53 == 0) half &= 0x83ff;
        memcpy((char *)data + i * mg_dtype_size(type),
               type == MG_F32 ? (void *)&f : &half, mg_dtype_size(type));
    }
}

uint64_t hash_bytes(uint64_t hash, const void *data, size_t n) {
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * 1099511628211u;
    return hash;
}

struct mg_matrix matrix_of(const void *data, enum mg_dtype type, int rows, int cols) {
    return (struct mg_matrix){.data = data, .dtype = type, .rows = rows, .cols = cols};
}

static struct mg_matrix random_matrix(uint64_t *state, enum mg_dtype type, int rows,
                                      int cols) {
    const size_t n = (size_t)rows * (size_t)cols;
    char *data = malloc(n * mg_dtype_size(type));
    if (!data) abort();
    random_elements(state, type, data, n);
    return matrix_of(data, type, rows, cols);
}

struct mg_model *memory_model_new(const struct shape *s, enum mg_dtype type,
                                  uint64_t seed, const struct mg_ops *ops) {
    struct mg_model *m = calloc(1, sizeof *m);
    uint64_t state = seed * 2 + 1;
    const int d = s->n_embd;
    const struct mg_sizes sizes = {s->vocab_size, d, s->n_head, s->n_layer,
                                   s->block_size};
    if (!m || !(m->tensors.layer = calloc((size_t)s->n_layer, sizeof *m->tensors.layer)))
        abort();
    m->info = (struct mg_model_info){.vocab_size = s->vocab_size,
                                     .n_embd = d,
                                     .n_head = s->n_head,
                                     .n_layer = s->n_layer,
                                     .block_size = s->block_size};
    m->head_dim = d / s->n_head;
    m->ops = ops;
    for (int i = 0; i < mg_tensor_count(&sizes); i++) {
        struct mg_tensor t = mg_tensor_describe(&sizes, i);
        *mg_tensor_place(&m->tensors, i) = random_matrix(&state, type, t.rows, t.cols);
    }
    return m;
}

void memory_model_free(struct mg_model *m) {
    const struct mg_sizes sizes = {.n_layer = m->info.n_layer};
    for (int i = 0; i < mg_tensor_count(&sizes); i++)
        free((void *)mg_tensor_place(&m->tensors, i)->data);
    free(m->tensors.layer);
    free(m);
}
