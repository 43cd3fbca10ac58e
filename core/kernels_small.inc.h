/* SPDX-License-Identifier: Apache-2.0
 * kernels_small.inc.h - rmsnorm, embedding, the sampler's exp, checks; part of kernels.c.
 */

static void rmsnorm(int n, const float *x, float *y) {
    struct x16 sum = x16_set(0);
    int k = 0;
    for (; k + 16 <= n; k += 16) {
        struct x16 v = load(MG_F32, x + k);
        sum = x16_fma(v, v, sum);
    }
    if (k < n) {
        struct x16 v = load_some(MG_F32, x + k, n - k);
        sum = x16_fma(v, v, sum);
    }
    const float mean = sum1(sum) / (float)n;
    /* Inf: too large for float, which is not to be hidden */
    const float scale = mean <= FLT_MAX ? 1.0f / sqrtf(mean + 1e-5f) : NAN;
    for (k = 0; k + 16 <= n; k += 16) {
        struct x16 v = load(MG_F32, x + k);
        EACH(i) v.p[i] *= scale;
        store(y + k, v);
    }
    for (; k < n; k++) y[k] = x[k] * scale;
}

/* One element, for edges. */
INLINE float widen1(enum mg_dtype type, const void *p) {
    return load_some(type, p, 1).p[0][0];
}

INLINE void widen_typed(enum mg_dtype type, const char *src, size_t n, float *dst) {
    const size_t size = type == MG_F32 ? 4 : 2;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) store(dst + i, load(type, src + i * size));
    for (; i < n; i++) dst[i] = widen1(type, src + i * size);
}

static void widen(enum mg_dtype type, const void *src, size_t n, float *dst) {
    if (type == MG_F32)
        memcpy(dst, src, n * 4);
    else if (type == MG_F16)
        widen_typed(MG_F16, src, n, dst);
    else
        widen_typed(MG_BF16, src, n, dst);
}

static const char *row_at(const struct mg_matrix *m, int row) {
    return (const char *)m->data +
           (size_t)row * (size_t)m->cols * mg_dtype_size(m->dtype);
}

static void embed(const struct mg_matrix *a, int row_a, const struct mg_matrix *b,
                  int row_b, float *y) {
    const char *pa = row_at(a, row_a), *pb = row_at(b, row_b);
    const size_t sa = mg_dtype_size(a->dtype), sb = mg_dtype_size(b->dtype);
    float part[2][64];
    for (int k = 0; k < a->cols; k += 64) {
        const int n = a->cols - k < 64 ? a->cols - k : 64;
        widen(a->dtype, pa + (size_t)k * sa, (size_t)n, part[0]);
        widen(b->dtype, pb + (size_t)k * sb, (size_t)n, part[1]);
        for (int i = 0; i < n; i++) y[k + i] = part[0][i] + part[1][i];
    }
}

/* ---- exp in double for the sampler -------------------------------------------- */

#define WIDE (VEC_BYTES / 8)
typedef double wide __attribute__((vector_size(VEC_BYTES)));
typedef double wide_mem __attribute__((vector_size(VEC_BYTES), aligned(8), may_alias));
typedef float half_floats __attribute__((vector_size(VEC_BYTES / 2)));
typedef int64_t wide_int __attribute__((vector_size(VEC_BYTES)));

/* exp(x), below 1 ulp, with + and * alone, so that no build needs an fma. x above 0
 * counts as 0; under -745.2 the result is 0. */
INLINE wide exp_wide(wide x) {
    const wide zero = {0}, magic = zero + 0x1.8p52;
    x = (wide)((wide_int)x & ~(wide_int)(x > zero));
    const wide_int low = x < zero - 746.0;
    x = (wide)((low & (wide_int)(zero - 746.0)) | (~low & (wide_int)x));
    wide t = x * 0x1.71547652b82fep+0 + magic, n = t - magic;
    wide r = (x - n * 0x1.62e42feep-1) -
             n * 0x1.a39ef35793c76p-33;    /* n times 33 bits: exact */
    wide p = zero + 0x1.6124613a86d09p-33; /* 1 / 13! and so on: Taylor, |r| <= 0.3466 */
    p = p * r + 0x1.1eed8eff8d898p-29;
    p = p * r + 0x1.ae64567f544e4p-26;
    p = p * r + 0x1.27e4fb7789f5cp-22;
    p = p * r + 0x1.71de3a556c734p-19;
    p = p * r + 0x1.a01a01a01a01ap-16;
    p = p * r + 0x1.a01a01a01a01ap-13;
    p = p * r + 0x1.6c16c16c16c17p-10;
    p = p * r + 0x1.1111111111111p-7;
    p = p * r + 0x1.5555555555555p-5;
    p = p * r + 0x1.5555555555555p-3;
    p = p * r + 0.5;
    wide e = (p * (r * r) + r) + 1.0;
    /* 2^n in two factors: n goes down to -1076, and a subnormal result is rounded once */
    wide half = n * 0.5 + magic, n1 = half - magic;
    wide_int i1 = (wide_int)half - (wide_int)magic;
    wide_int i2 = (wide_int)(n - n1 + magic) - (wide_int)magic;
    return e * (wide)((i1 + 1023) << 52) * (wide)((i2 + 1023) << 52);
}

static void weights(int n, const float *l, float max, double temperature, double *p) {
    for (int k = 0; k < n; k += 16) {
        struct x16 v = n - k < 16 ? load_some(MG_F32, l + k, n - k) : load(MG_F32, l + k);
        EACH(i) {
            half_floats low, high;
            memcpy(&low, &v.p[i], sizeof low);
            memcpy(&high, (char *)&v.p[i] + sizeof low, sizeof high);
            wide x = __builtin_convertvector(low, wide) - (double)max;
            wide y = __builtin_convertvector(high, wide) - (double)max;
            *(wide_mem *)(p + k + i * VEC) = exp_wide(x / temperature);
            *(wide_mem *)(p + k + i * VEC + WIDE) = exp_wide(y / temperature);
        }
    }
}

/* ---- checks ------------------------------------------------------------------- */

static int max_finite(int n, const float *l, float *max) {
    struct x16 top = x16_set(-INFINITY);
    ivec bad[PIECES] = {{0}};
    int k = 0;
    for (; k < n; k += 16) {
        struct x16 v = n - k < 16 ? load_some(MG_F32, l + k, n - k) : load(MG_F32, l + k);
        if (n - k < 16) /* what is missing is the first element again */
            v = keep_below(v, n - k, l[0]);
        EACH(i) {
            bad[i] |= ((ivec)v.p[i] & 0x7f800000) == 0x7f800000;
            top.p[i] = vec_pick(v.p[i] > top.p[i], v.p[i], top.p[i]);
        }
    }
    int any = 0;
    EACH(i) for (int j = 0; j < VEC; j++) any |= bad[i][j];
    *max = max1(top);
    return any ? -1 : 0;
}

typedef uint32_t word_vec __attribute__((vector_size(64)));
typedef uint32_t word_mem __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint16_t short_vec __attribute__((vector_size(64)));

/* All bits of the exponent set means NaN or Inf. Blocks first, then the one element. */
static int is_nonfinite(enum mg_dtype type, const char *p) {
    const float f = widen1(type, p);
    return !(f - f == 0);
}

static int block_nonfinite(enum mg_dtype type, const char *p, size_t bytes) {
    word_vec bad = {0};
    for (size_t i = 0; i < bytes; i += 64) {
        word_vec v = *(const word_mem *)(p + i);
        if (type == MG_F32)
            bad |= (word_vec)((v & 0x7f800000) == 0x7f800000);
        else if (type == MG_F16)
            bad |= (word_vec)(((short_vec)v & 0x7c00) == 0x7c00);
        else
            bad |= (word_vec)(((short_vec)v & 0x7f80) == 0x7f80);
    }
    uint32_t any = 0;
    for (int i = 0; i < 16; i++) any |= bad[i];
    return any != 0;
}

INLINE int64_t find_typed(enum mg_dtype type, const char *p, size_t n) {
    const size_t size = type == MG_F32 ? 4 : 2;
    const size_t block = 4096 / size;
    size_t i = 0;
    while (i + block <= n && !block_nonfinite(type, p + i * size, 4096)) i += block;
    for (; i < n; i++)
        if (is_nonfinite(type, p + i * size)) return (int64_t)i;
    return -1;
}

static int64_t find_nonfinite(enum mg_dtype type, const void *data, size_t n) {
    if (type == MG_F32) return find_typed(MG_F32, data, n);
    if (type == MG_F16) return find_typed(MG_F16, data, n);
    return find_typed(MG_BF16, data, n);
}
