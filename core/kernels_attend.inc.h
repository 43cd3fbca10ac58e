/* SPDX-License-Identifier: Apache-2.0
 * kernels_attend.inc.h - the KV cache and causal attention over it, part of kernels.c.
 *
 * Layout of one lane and layer: all keys, then all values; per head, per block of sixteen
 * positions, [head_dim][16]. So sixteen positions are one vector, whatever head_dim is,
 * and nothing has to be shuffled but the final sums.
 *
 * Orders (ops.h). Score: fma chains over eight elements of the head each, added up in
 * their order. Softmax and output: sixteen sums by position, then the tree. */

/* What all functions here need to know of a cache. */
struct heads {
    int n, dim;
    size_t line;  /* bytes of one element of sixteen positions */
    size_t block; /* bytes of a block: dim lines */
    size_t head;  /* bytes of a head: all its blocks */
};

INLINE struct heads heads_of(const struct mg_kv_shape *kv) {
    const size_t line = kv->type == MG_KV_F32 ? 64 : 32;
    const size_t block = line * (size_t)kv->head_dim;
    return (struct heads){kv->n_head, kv->head_dim, line, block, block * kv_blocks(kv)};
}

/* One query reads its keys and values once: while it reads a head's keys it fetches the
 * values, line by line, and with the values the keys of the next head. Only in f16: with
 * f32 the processor's own fetching already takes what the memory gives, and is
 * disturbed. */
INLINE void fetch(enum mg_dtype type, int rows, int line, const char *at) {
    if (type == MG_F16 && rows == 1 && line % 2 == 0) __builtin_prefetch(at);
}

/* ---- softmax ------------------------------------------------------------------ */

/* exp(x) for x <= 0, below 1.5 ulp; NaN stays NaN. Under -87 it stays at exp(-87). */
INLINE vec exp_neg(vec x) {
    const vec zero = {0}, magic = zero + 0x1.8p23f;
    x = vec_pick(x < -87.0f, zero - 87.0f, x);
    vec t = vec_fma(x, zero + 0x1.715476p+0f, magic), n = t - magic; /* round(x / ln 2) */
    vec r = vec_fma(n, zero - 0x1.62ep-1f, x); /* ln 2 in two parts */
    r = vec_fma(n, zero - 0x1.0bfbe8p-15f, r);
    /* (exp(r) - 1 - r) / r^2 through Chebyshev nodes, |r| <= ln 2 / 2 */
    vec p = vec_fma(zero + 0x1.6d1109p-10f, r, zero + 0x1.120b6ep-7f);
    p = vec_fma(p, r, zero + 0x1.55551ap-5f);
    p = vec_fma(p, r, zero + 0x1.5554dcp-3f);
    p = vec_fma(p, r, zero + 0.5f);
    vec e = vec_fma(p, r * r, r + 1.0f);
    /* unsigned: for NaN the sum wraps, and stays a NaN */
    return (vec)((uvec)e + (((uvec)t - (uvec)magic) << 23));
}

/* All ones where the number of the element is below n. */
INLINE ivec mask_below(int piece, int n) {
    ivec at = {0};
    for (int i = 0; i < VEC; i++) at[i] = piece * VEC + i;
    return at < n;
}

INLINE struct x16 keep_below(struct x16 v, int n, float other) {
    EACH(i) v.p[i] = vec_pick(mask_below(i, n), v.p[i], vec_set(other));
    return v;
}

/* s[0 ... n) = softmax(s * scale), zeros up to the next multiple of sixteen. n >= 1 */
INLINE void softmax(float *s, int n, float scale) {
    const int last = (n - 1) / 16 * 16; /* the block that may be partial */
    struct x16 top = keep_below(load(MG_F32, s + last), n - last, -INFINITY);
    store(s + last, top);
    for (int t = 0; t < last; t += 16) {
        struct x16 v = load(MG_F32, s + t);
        EACH(i) top.p[i] = vec_pick(v.p[i] > top.p[i], v.p[i], top.p[i]);
    }
    const float max = max1(top);
    struct x16 sum = x16_set(0), e;
    for (int t = 0; t <= last; t += 16) {
        e = load(MG_F32, s + t);
        EACH(i) e.p[i] = exp_neg((e.p[i] - max) * scale);
        if (t == last) e = keep_below(e, n - last, 0);
        store(s + t, e);
        EACH(i) sum.p[i] += e.p[i];
    }
    const vec share = vec_set(1.0f / sum1(sum));
    for (int t = 0; t <= last; t += 16) {
        e = load(MG_F32, s + t);
        EACH(i) e.p[i] *= share;
        store(s + t, e);
    }
}

/* ---- scores ------------------------------------------------------------------- */

/* Elements in a chain: a softmax lays the absolute error of large scores open, and short
 * chains err half as much as one over the whole head. It costs no time. */
enum { SCORE_CHAIN = 8 };

/* s[r][t] = q[r] . k[t] for rows queries and blocks blocks of keys; what is fetched lies
 * so many bytes ahead of what is read. */
INLINE void score_tile(enum mg_dtype type, int rows, int blocks, const struct heads *hs,
                       const char *k, const float *q, size_t ldq, float *s, size_t lds,
                       ptrdiff_t ahead) {
    for (int first = 0; first < hs->dim; first += SCORE_CHAIN) {
        const int end = hs->dim - first < SCORE_CHAIN ? hs->dim : first + SCORE_CHAIN;
        struct x16 a[16];
        UNROLL for (int i = 0; i < rows * blocks; i++) a[i] = x16_set(0);
        for (int d = first; d < end; d++) {
            UNROLL for (int b = 0; b < blocks; b++) {
                const char *line = k + (size_t)b * hs->block + (size_t)d * hs->line;
                struct x16 key = load(type, line);
                fetch(type, rows, d, line + ahead);
                UNROLL for (int r = 0; r < rows; r++) a[r * blocks + b] =
                    x16_fma(key, x16_set(q[(size_t)r * ldq + d]), a[r * blocks + b]);
            }
        }
        UNROLL for (int i = 0; i < rows * blocks; i++) {
            float *to = s + (size_t)(i / blocks) * lds + 16 * (i % blocks);
            if (first > 0) {
                struct x16 before = load(MG_F32, to);
                EACH(j) a[i].p[j] += before.p[j];
            }
            store(to, a[i]);
        }
    }
}

#if VEC_BYTES == 64
/* Blocks in a tile of one row, and in one of a group of rows. */
enum { SCORE_ONE = 8, SCORE_FEW = 4 };
#else
enum { SCORE_ONE = 4, SCORE_FEW = 1 };
#endif
enum { GROUP = 4 }; /* rows that share what they read */

INLINE void score_rows(enum mg_dtype type, int rows, const struct heads *hs, int blocks,
                       const char *k, const float *q, size_t ldq, float *s, size_t lds,
                       ptrdiff_t ahead) {
    const int step = rows == 1 ? SCORE_ONE : SCORE_FEW;
    int b = 0;
    for (; b + step <= blocks; b += step, k += (size_t)step * hs->block)
        score_tile(type, rows, step, hs, k, q, ldq, s + 16 * b, lds, ahead);
    for (; b < blocks; b++, k += hs->block)
        score_tile(type, rows, 1, hs, k, q, ldq, s + 16 * b, lds, ahead);
}

/* ---- the mix of values -------------------------------------------------------- */

/* a[d] += share * v[d] for dims lines of values; n <= 16 of the positions count. */
INLINE void mix_lines(enum mg_dtype type, int dims, const char *v, size_t line, int n,
                      struct x16 share, struct x16 *a) {
    UNROLL for (int d = 0; d < dims; d++) {
        struct x16 x = load(type, v + (size_t)d * line);
        a[d] = x16_fma(n < 16 ? keep_below(x, n, 0) : x, share, a[d]);
    }
}

/* One whole block of values into the sums of rows * dims. */
INLINE void mix_block(enum mg_dtype type, int rows, int dims, const char *v, size_t line,
                      const float *p, size_t ldp, struct x16 *a, ptrdiff_t ahead) {
    struct x16 share[GROUP];
    UNROLL for (int r = 0; r < rows; r++) share[r] = load(MG_F32, p + (size_t)r * ldp);
    UNROLL for (int d = 0; d < dims; d++) {
        struct x16 x = load(type, v + (size_t)d * line);
        fetch(type, rows, d, v + (size_t)d * line + ahead);
        UNROLL for (int r = 0; r < rows; r++) a[r * dims + d] =
            x16_fma(x, share[r], a[r * dims + d]);
    }
}

/* o[r][d] = sum over t <= pos + r of p[r][t] v[t][d] for dims elements; the rows end in
 * the same block, but not at the same position of it. */
INLINE void mix_tile(enum mg_dtype type, int rows, int dims, const struct heads *hs,
                     const char *v, int pos, const float *p, size_t ldp, float *o,
                     size_t ldo, ptrdiff_t ahead) {
    const int last = pos / 16;
    struct x16 a[16];
    UNROLL for (int i = 0; i < rows * dims; i++) a[i] = x16_set(0);
    for (int b = 0; b < last; b++, v += hs->block)
        mix_block(type, rows, dims, v, hs->line, p + 16 * b, ldp, a, ahead);
    UNROLL for (int r = 0; r < rows; r++)
        mix_lines(type, dims, v, hs->line, pos + r - 16 * last + 1,
                  load(MG_F32, p + (size_t)r * ldp + 16 * last), a + r * dims);
    vec4 s[4];
    if (rows * dims == 16)
        sum16(a, s);
    else if (rows * dims == 4)
        s[0] = sum4(a);
    UNROLL for (int i = 0; i < rows * dims; i++) o[(size_t)(i / dims) * ldo + i % dims] =
        rows * dims < 4 ? sum1(a[i]) : s[i / 4][i % 4];
}

/* Elements of the head in a tile of one row, and in one of MIX_ROWS rows. */
#if VEC_BYTES == 64
enum { MIX_ONE = 16, MIX_FEW = 4, MIX_ROWS = 4 };
#else
enum { MIX_ONE = 4, MIX_FEW = 2, MIX_ROWS = 2 };
#endif

INLINE void mix_row(enum mg_dtype type, const struct heads *hs, const char *v, int pos,
                    const float *p, float *o, ptrdiff_t ahead) {
    int d = 0;
    for (; d + MIX_ONE <= hs->dim; d += MIX_ONE)
        mix_tile(type, 1, MIX_ONE, hs, v + (size_t)d * hs->line, pos, p, 0, o + d, 0,
                 ahead);
    for (; d + 4 <= hs->dim; d += 4)
        mix_tile(type, 1, 4, hs, v + (size_t)d * hs->line, pos, p, 0, o + d, 0, ahead);
    for (; d < hs->dim; d++)
        mix_tile(type, 1, 1, hs, v + (size_t)d * hs->line, pos, p, 0, o + d, 0, ahead);
}

INLINE void mix_group(enum mg_dtype type, const struct heads *hs, const char *v, int pos,
                      const float *p, size_t ldp, float *o, size_t ldo) {
    int d = 0;
    for (; d + MIX_FEW <= hs->dim; d += MIX_FEW)
        for (int r = 0; r < GROUP; r += MIX_ROWS)
            mix_tile(type, MIX_ROWS, MIX_FEW, hs, v + (size_t)d * hs->line, pos + r,
                     p + (size_t)r * ldp, ldp, o + (size_t)r * ldo + d, ldo, 0);
    for (; d < hs->dim; d++)
        for (int r = 0; r < GROUP; r++)
            mix_tile(type, 1, 1, hs, v + (size_t)d * hs->line, pos + r,
                     p + (size_t)r * ldp, 0, o + (size_t)r * ldo + d, 0, 0);
}

/* ---- attention ---------------------------------------------------------------- */

/* One head of rows queries, 1 or GROUP of them in the same block. */
INLINE void attend_head(enum mg_dtype type, int rows, const struct heads *hs,
                        const char *k, const char *v, int pos, const float *q, size_t ldq,
                        float *o, size_t ldo, float *s, size_t lds) {
    score_rows(type, rows, hs, pos / 16 + 1, k, q, ldq, s, lds, v - k);
    const float scale = 1.0f / sqrtf((float)hs->dim);
    for (int r = 0; r < rows; r++) softmax(s + (size_t)r * lds, pos + r + 1, scale);
    if (rows == 1)
        mix_row(type, hs, v, pos, s, o, k + hs->head - v);
    else
        mix_group(type, hs, v, pos, s, lds, o, ldo);
}

/* Four heads of one query that sees n <= 16 positions: nothing leaves the registers. */
INLINE void attend_short(enum mg_dtype type, const struct heads *hs, const char *k,
                         const char *v, int n, const float *q, float *o) {
    const float scale = 1.0f / sqrtf((float)hs->dim);
    struct x16 p[4], a[16];
    UNROLL for (int h = 0; h < 4; h++) p[h] = x16_set(0);
    for (int first = 0; first < hs->dim; first += SCORE_CHAIN) {
        const int end = hs->dim - first < SCORE_CHAIN ? hs->dim : first + SCORE_CHAIN;
        UNROLL for (int h = 0; h < 4; h++) a[h] = x16_set(0);
        for (int d = first; d < end; d++) {
            UNROLL for (int h = 0; h < 4; h++) {
                struct x16 key =
                    load(type, k + (size_t)h * hs->head + (size_t)d * hs->line);
                a[h] = x16_fma(key, x16_set(q[h * hs->dim + d]), a[h]);
            }
        }
        UNROLL for (int h = 0; h < 4; h++) EACH(i) p[h].p[i] += a[h].p[i];
    }
    UNROLL for (int h = 0; h < 4; h++) {
        const float max = max1(keep_below(p[h], n, -INFINITY));
        EACH(i) p[h].p[i] = exp_neg((p[h].p[i] - max) * scale);
        p[h] = keep_below(p[h], n, 0);
    }
    const vec4 share = 1.0f / sum4(p);
    UNROLL for (int h = 0; h < 4; h++) EACH(i) p[h].p[i] *= share[h];
    int d = 0;
    for (; d + 4 <= hs->dim; d += 4) {
        const char *at = v + (size_t)d * hs->line;
        UNROLL for (int i = 0; i < 16; i++) a[i] = x16_set(0);
        UNROLL for (int h = 0; h < 4; h++)
            mix_lines(type, 4, at + (size_t)h * hs->head, hs->line, n, p[h], a + 4 * h);
        vec4 s[4];
        sum16(a, s);
        UNROLL for (int h = 0; h < 4; h++) * (vec4_mem *)(o + h * hs->dim + d) = s[h];
    }
    for (; d < hs->dim; d++)
        for (int h = 0; h < 4; h++) {
            a[0] = x16_set(0);
            mix_lines(type, 1, v + (size_t)h * hs->head + (size_t)d * hs->line, hs->line,
                      n, p[h], a);
            o[h * hs->dim + d] = sum1(a[0]);
        }
}

INLINE void attend_typed(enum mg_dtype type, const struct mg_kv_shape *kv,
                         const char *cache, int pos, int rows, const float *q, size_t ldq,
                         float *o, size_t ldo, float *s) {
    const struct heads hs = heads_of(kv);
    const size_t lds = 16 * kv_blocks(kv) + 16;
    int h = 0;
    for (; rows == 1 && pos < 16 && h + 4 <= hs.n; h += 4) {
        const char *k = cache + (size_t)h * hs.head, *v = k + (size_t)hs.n * hs.head;
        attend_short(type, &hs, k, v, pos + 1, q + h * hs.dim, o + h * hs.dim);
    }
    for (; h < hs.n; h++) {
        const char *k = cache + (size_t)h * hs.head, *v = k + (size_t)hs.n * hs.head;
        const float *qh = q + (size_t)h * (size_t)hs.dim;
        float *oh = o + (size_t)h * (size_t)hs.dim;
        for (int r = 0; r < rows;) {
            const int whole = (pos + r) % GROUP == 0 && r + GROUP <= rows;
            if (whole)
                attend_head(type, GROUP, &hs, k, v, pos + r, qh + (size_t)r * ldq, ldq,
                            oh + (size_t)r * ldo, ldo, s, lds);
            else
                attend_head(type, 1, &hs, k, v, pos + r, qh + (size_t)r * ldq, ldq,
                            oh + (size_t)r * ldo, ldo, s, lds);
            r += whole ? GROUP : 1;
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

/* ---- storing ------------------------------------------------------------------ */

/* Scatter one row of one head into its block: element d goes to [d][at]. */
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
    const struct heads hs = heads_of(kv);
    for (int r = 0; r < rows; r++) {
        char *at = (char *)cache + (size_t)((pos + r) / 16) * hs.block;
        for (int h = 0; h < hs.n; h++, at += hs.head) {
            const size_t from = (size_t)r * ld + (size_t)h * (size_t)hs.dim;
            put_row(kv->type, at, hs.dim, (pos + r) % 16, k + from);
            put_row(kv->type, at + (size_t)hs.n * hs.head, hs.dim, (pos + r) % 16,
                    v + from);
        }
    }
}
