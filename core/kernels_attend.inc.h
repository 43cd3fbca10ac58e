/* SPDX-License-Identifier: Apache-2.0
 * kernels_attend.inc.h - the KV cache and causal attention over it, part of kernels.c.
 *
 * Layout of one lane and layer: all keys, then all values; per head, per block of sixteen
 * positions, [head_dim][16]. So sixteen positions are one vector, whatever head_dim is,
 * and nothing has to be shuffled but the final sums.
 *
 * Orders. Score: one fma chain over the elements of the head. Softmax: maximum, exp, sum
 * in sixteen lanes by position and the tree. Output: sixteen lanes by position and the
 * tree. */

/* exp(x) for x <= 0, below 2 ulp; NaN stays NaN. Under -87 it stays at exp(-87). */
INLINE vec exp_neg(vec x) {
    const vec zero = {0}, magic = zero + 0x1.8p23f;
    x = vec_pick(x < -87.0f, zero - 87.0f, x);
    vec t = vec_fma(x, zero + 0x1.715476p+0f, magic),
        n = t - magic;                         /* n = round(x / ln 2) */
    vec r = vec_fma(n, zero - 0x1.62ep-1f, x); /* ln 2 in two parts */
    r = vec_fma(n, zero - 0x1.0bfbe8p-15f, r);
    vec p = vec_fma(zero + 0x1.a0d2cep-13f, r, zero + 0x1.6e879cp-10f);
    p = vec_fma(p, r, zero + 0x1.1112fp-7f);
    p = vec_fma(p, r, zero + 0x1.5553f2p-5f);
    p = vec_fma(p, r, zero + 0x1.555554p-3f);
    p = vec_fma(p, r, zero + 0.5f);
    vec e = vec_fma(p, r * r, r + 1.0f);
    return (vec)((ivec)e + (((ivec)t - (ivec)magic) << 23));
}

/* The lanes below n: all ones, the others zero. */
INLINE ivec mask_below(int piece, int n) {
    ivec at;
    for (int i = 0; i < VEC; i++) at[i] = piece * VEC + i;
    return at < n;
}

/* s[0 ... n) = softmax(s * scale); up to the next multiple of 16 zeros. n >= 1 */
INLINE void softmax(float *s, int n, float scale) {
    struct lanes top = lanes_set(-INFINITY), sum = lanes_set(0);
    const int blocks = (n + 15) / 16;
    for (int b = 0; b < blocks; b++) {
        struct lanes v = load(MG_F32, s + 16 * b);
        EACH(i) {
            v.p[i] = vec_pick(mask_below(i, n - 16 * b), v.p[i], vec_set(-INFINITY));
            top.p[i] = vec_pick(v.p[i] > top.p[i], v.p[i], top.p[i]);
        }
    }
    float max = -INFINITY;
    EACH(i) for (int j = 0; j < VEC; j++) max = top.p[i][j] > max ? top.p[i][j] : max;
    for (int b = 0; b < blocks; b++) {
        struct lanes v = load(MG_F32, s + 16 * b);
        EACH(i) {
            vec e = exp_neg((v.p[i] - max) * scale);
            v.p[i] = vec_pick(mask_below(i, n - 16 * b), e, (vec){0});
            sum.p[i] += v.p[i];
        }
        store(s + 16 * b, v);
    }
    vec share = vec_set(1.0f / sum1(sum));
    for (int b = 0; b < blocks; b++) {
        struct lanes v = load(MG_F32, s + 16 * b);
        EACH(i) v.p[i] *= share;
        store(s + 16 * b, v);
    }
}

/* Scores of one query against one block: s[t] = q . k[t]. */
INLINE void score_block(enum mg_dtype type, int dim, const char *k, const float *q,
                        float *s) {
    const size_t line = 16 * (type == MG_F32 ? 4 : 2);
    struct lanes a = lanes_set(0);
    for (int d = 0; d < dim; d++)
        a = lanes_fma(load(type, k + d * line), lanes_set(q[d]), a);
    store(s, a);
}

/* o[d] = sum of p[t] v[t][d] over n positions. */
INLINE void mix(enum mg_dtype type, int dim, int n, const char *v, const float *p,
                float *o) {
    const size_t line = 16 * (type == MG_F32 ? 4 : 2);
    for (int d = 0; d < dim; d++) {
        struct lanes a = lanes_set(0);
        for (int b = 0; 16 * b < n; b++) {
            struct lanes x = load(type, v + ((size_t)b * dim + d) * line);
            EACH(i) x.p[i] = vec_pick(mask_below(i, n - 16 * b), x.p[i], (vec){0});
            a = lanes_fma(x, load(MG_F32, p + 16 * b), a);
        }
        o[d] = sum1(a);
    }
}

INLINE void attend_typed(enum mg_dtype type, const struct mg_kv_shape *kv,
                         const char *keys, int pos, int rows, const float *q, size_t ldq,
                         float *o, size_t ldo, float *s) {
    const int dim = kv->head_dim;
    const size_t head = kv_head_bytes(kv), values = kv->n_head * head;
    const float scale = 1.0f / sqrtf((float)dim);
    for (int r = 0; r < rows; r++) {
        for (int h = 0; h < kv->n_head; h++) {
            const char *k = keys + h * head;
            const size_t block = head / (size_t)kv_blocks(kv);
            const float *qh = q + r * ldq + (size_t)h * dim;
            for (int b = 0; 16 * b <= pos + r; b++)
                score_block(type, dim, k + b * block, qh, s + 16 * b);
            softmax(s, pos + r + 1, scale);
            mix(type, dim, pos + r + 1, k + values, s, o + r * ldo + (size_t)h * dim);
        }
    }
}

static void attend(const struct mg_kv_shape *kv, const void *cache, int pos, int rows,
                   const float *q, size_t ldq, float *o, size_t ldo, float *scratch) {
    if (kv->type == MG_KV_F32)
        attend_typed(MG_F32, kv, cache, pos, rows, q, ldq, o, ldo, scratch);
    else
        attend_typed(MG_F16, kv, cache, pos, rows, q, ldq, o, ldo, scratch);
}

/* Scatter one row of one head into its block: element d goes to [d][pos % 16]. */
INLINE void put_row(enum mg_kv type, char *block, int dim, int at, const float *x) {
    if (type == MG_KV_F32) {
        for (int d = 0; d < dim; d++) ((float *)block)[16 * d + at] = x[d];
        return;
    }
    for (int d = 0; d < dim; d += VEC) {
        vec v = {0};
        memcpy(&v, x + d, (size_t)(dim - d < VEC ? dim - d : VEC) * 4);
        half_vec h = narrow_f16(v);
        for (int i = 0; i < VEC && d + i < dim; i++)
            ((uint16_t *)block)[16 * (d + i) + at] = h[i];
    }
}

static void kv_store(const struct mg_kv_shape *kv, void *cache, int pos, int rows,
                     const float *k, const float *v, size_t ld) {
    const size_t head = kv_head_bytes(kv), block = head / (size_t)kv_blocks(kv);
    for (int r = 0; r < rows; r++) {
        const size_t at = (size_t)((pos + r) / 16) * block;
        for (int h = 0; h < kv->n_head; h++) {
            const size_t from = r * ld + (size_t)h * kv->head_dim;
            char *keys = (char *)cache + h * head + at;
            put_row(kv->type, keys, kv->head_dim, (pos + r) % 16, k + from);
            put_row(kv->type, keys + kv->n_head * head, kv->head_dim, (pos + r) % 16,
                    v + from);
        }
    }
}
