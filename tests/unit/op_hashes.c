/* SPDX-License-Identifier: Apache-2.0
 *
 * op_hashes.c - see op_hashes.h. Needs kernels, ops.c and forward.c alone, so that it
 * also links for another machine. No NaN goes into a hash: its bits differ between
 * machines. */
#include "op_hashes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory_model.h"

enum { HASH_START = 0x1505 };

static const char *const dtype_name[] = {"f32", "f16", "bf16"};

static uint64_t hash_linear(const struct mg_ops *ops, enum mg_dtype type, int outs,
                            int k) {
    enum { MAX_ROWS = 19 };
    const size_t ldx = ((size_t)k + 15) / 16 * 16, ldy = (size_t)outs + 3;
    const size_t size = (size_t)outs * (size_t)k;
    uint64_t state = 77 + (uint64_t)outs, hash = HASH_START;
    float *x = floats(MAX_ROWS * ldx), *y = floats(MAX_ROWS * ldy);
    char *w = malloc(size * 4);
    random_elements(&state, type, w, size);
    for (size_t i = 0; i < MAX_ROWS * ldx; i++) x[i] = random_float(&state);
    for (int rows = 1; rows <= MAX_ROWS; rows += rows < 7 ? 1 : 6)
        for (int op = MG_SET; op <= MG_RELU; op++) {
            struct mg_matrix m = matrix_of(w, type, outs, k);
            ops->linear(&m, rows, x, ldx, y, ldy, (enum mg_epilogue)op);
            hash = hash_bytes(hash, y, MAX_ROWS * ldy * sizeof *y);
        }
    free(x), free(y), free(w);
    return hash;
}

static uint64_t hash_attend(const struct mg_ops *ops, enum mg_kv type, int heads,
                            int dim) {
    enum { T = 70 };
    const struct mg_kv_shape kv = {heads, dim, T, type};
    const size_t n = (size_t)heads * (size_t)dim;
    uint64_t state = 99 + n, hash = HASH_START;
    float *q = floats(T * n), *k = floats(T * n), *v = floats(T * n), *o = floats(T * n);
    float *scratch = floats(mg_attend_scratch_floats(&kv)),
          *cache = floats(mg_kv_bytes(&kv) / 4);
    for (size_t i = 0; i < T * n; i++) {
        q[i] = 3 * random_float(&state);
        k[i] = random_float(&state);
        v[i] = random_float(&state);
    }
    for (int pos = 0, rows = 1; pos < T; pos += rows, rows = rows % 13 + 3) {
        rows = rows < T - pos ? rows : T - pos;
        ops->kv_store(&kv, cache, pos, rows, k + pos * n, v + pos * n, n);
        ops->attend(&kv, cache, pos, rows, q + pos * n, n, o + pos * n, n, scratch);
    }
    hash = hash_bytes(hash, cache, mg_kv_bytes(&kv));
    hash = hash_bytes(hash, o, T * n * sizeof *o);
    free(q), free(k), free(v), free(o), free(scratch), free(cache);
    return hash;
}

static uint64_t hash_rmsnorm(const struct mg_ops *ops) {
    uint64_t state = 5, hash = HASH_START;
    float x[112], y[112];
    for (int n = 1; n <= 100; n++) {
        for (int i = 0; i < 112; i++) x[i] = random_float(&state) * (float)n;
        ops->rmsnorm(n, x, y);
        hash = hash_bytes(hash, y, (size_t)n * sizeof *y);
    }
    return hash;
}

static uint64_t hash_weights(const struct mg_ops *ops) {
    static const double temperature[] = {0.5, 1, 0.03, 1e-4, 1e-300, 700};
    uint64_t state = 6, hash = HASH_START;
    float l[100];
    double p[112];
    for (int n = 1; n <= 100; n++)
        for (int t = 0; t < 6; t++) {
            for (int i = 0; i < n; i++) l[i] = 20 * random_float(&state);
            ops->weights(n, l, 20, temperature[t], p);
            hash = hash_bytes(hash, p, (size_t)n * sizeof *p);
        }
    return hash;
}

/* Every finite value of the type. */
static uint64_t hash_widen(const struct mg_ops *ops, enum mg_dtype type) {
    uint64_t hash = HASH_START;
    const unsigned inf = type == MG_F16 ? 0x7c00 : 0x7f80;
    float wide[33];
    for (unsigned i = 0; i < 0x10000; i += 33) {
        uint16_t h[33];
        for (unsigned j = 0; j < 33; j++)
            h[j] = (uint16_t)((i + j) & 0x7fff) < inf ? (uint16_t)(i + j) : 0;
        ops->widen(type, h, 33, wide);
        hash = hash_bytes(hash, wide, sizeof wide);
    }
    return hash;
}

static uint64_t hash_embed_and_checks(const struct mg_ops *ops, enum mg_dtype type) {
    uint64_t state = 8, hash = HASH_START;
    char data[7 * 90 * 4];
    float y[96], max;
    random_elements(&state, type, data, 7 * 90);
    for (int n = 1; n <= 90; n++) {
        struct mg_matrix m = matrix_of(data, type, 7, n);
        ops->embed(&m, n % 7, &m, (n + 3) % 7, y);
        int bad = ops->max_finite(n, y, &max);
        hash = hash_bytes(hash, y, (size_t)n * sizeof *y);
        hash = hash_bytes(hash_bytes(hash, &max, sizeof max), &bad, sizeof bad);
        int64_t at = ops->find_nonfinite(type, data, (size_t)(7 * n));
        hash = hash_bytes(hash, &at, sizeof at);
    }
    return hash;
}

static uint64_t hash_forward(const struct mg_ops *ops, const struct shape *s,
                             enum mg_dtype type, enum mg_kv kv) {
    struct mg_model *m = memory_model_new(s, type, 12, ops);
    struct mg_forward *f = mg_forward_new(m, 3, 11, kv, NULL);
    uint64_t hash = HASH_START;
    int32_t tokens[64];
    for (int i = 0; i < 64; i++) tokens[i] = i * 7 % s->vocab_size;
    for (int pos = 0; pos + 5 <= s->block_size; pos += 5) {
        struct mg_span spans[] = {{2, pos, 5, tokens + pos, 1},
                                  {0, pos / 5, 1, tokens + pos, 1}};
        const float *logits = mg_forward_run(f, spans, 2);
        for (int i = 0; i < 2; i++)
            hash = hash_bytes(hash, logits + (size_t)i * mg_forward_ld(f),
                              (size_t)s->vocab_size * sizeof *logits);
    }
    mg_forward_free(f);
    memory_model_free(m);
    return hash;
}

#define ADD(value_, ...)                                                                 \
    do {                                                                                 \
        snprintf(out[n].name, sizeof out[n].name, __VA_ARGS__);                          \
        out[n++].value = (value_);                                                       \
    } while (0)

int hash_ops(const struct mg_ops *ops, struct op_hash *out) {
    static const int linear[][2] = {{16, 16}, {64, 16}, {27, 16}, {16, 64},
                                    {33, 40}, {7, 23},  {3, 1},   {20, 300}};
    static const int heads[][2] = {{4, 4},  {5, 1},  {3, 3}, {2, 5},
                                   {3, 20}, {2, 32}, {1, 64}};
    static const struct shape shapes[] = {
        {27, 16, 4, 1, 16}, {11, 7, 7, 2, 20}, {40, 60, 3, 2, 40}, {9, 64, 1, 1, 33}};
    int n = 0;
    for (int i = 0; i < 8; i++)
        for (int t = MG_F32; t <= MG_BF16; t++)
            ADD(hash_linear(ops, (enum mg_dtype)t, linear[i][0], linear[i][1]),
                "linear %dx%d %s", linear[i][0], linear[i][1], dtype_name[t]);
    for (int i = 0; i < 7; i++)
        for (int t = MG_KV_F32; t <= MG_KV_F16; t++)
            ADD(hash_attend(ops, (enum mg_kv)t, heads[i][0], heads[i][1]),
                "attend %dx%d %s", heads[i][0], heads[i][1], dtype_name[t]);
    ADD(hash_rmsnorm(ops), "rmsnorm");
    ADD(hash_weights(ops), "weights");
    ADD(hash_widen(ops, MG_F16), "widen f16");
    ADD(hash_widen(ops, MG_BF16), "widen bf16");
    for (int t = MG_F32; t <= MG_BF16; t++)
        ADD(hash_embed_and_checks(ops, (enum mg_dtype)t), "embed and checks %s",
            dtype_name[t]);
    for (int i = 0; i < 4; i++)
        for (int kv = MG_KV_F32; kv <= MG_KV_F16; kv++)
            ADD(hash_forward(ops, &shapes[i], (enum mg_dtype)(i % 3), (enum mg_kv)kv),
                "forward %d/%d kv %s", shapes[i].n_embd, shapes[i].n_head,
                dtype_name[kv]);
    return n;
}
