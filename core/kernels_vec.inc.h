/* SPDX-License-Identifier: Apache-2.0
 * kernels_vec.inc.h - sixteen floats at a time, in vectors of the width this build has.
 *
 * Part of kernels.c. GCC's vector extensions carry the arithmetic; intrinsics are used
 * only where the extensions have no word for it: fma, conversion from and to f16, the
 * 16-way reduction. Memory is read through types of alignment 1: tensors may be
 * misaligned in their file. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif
#define INLINE  static inline __attribute__((always_inline))
#define SHUFFLE __builtin_shufflevector

#if defined __AVX512F__
#define VEC_BYTES 64
#elif defined __AVX2__
#define VEC_BYTES 32
#else
#define VEC_BYTES 16
#endif
#define VEC     (VEC_BYTES / 4) /* floats in a vector */
#define PIECES  (16 / VEC)      /* vectors in sixteen floats */
#define EACH(i) UNROLL for (int i = 0; i < PIECES; i++)

typedef float vec __attribute__((vector_size(VEC_BYTES)));
typedef int32_t ivec __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t uvec __attribute__((vector_size(VEC_BYTES)));
typedef float vec_mem __attribute__((vector_size(VEC_BYTES), aligned(1), may_alias));
typedef uint16_t half_vec __attribute__((vector_size(VEC_BYTES / 2)));
typedef uint16_t half_mem
    __attribute__((vector_size(VEC_BYTES / 2), aligned(1), may_alias));
typedef float vec4 __attribute__((vector_size(16)));
typedef float vec4_mem __attribute__((vector_size(16), aligned(1), may_alias));
typedef float vec8 __attribute__((vector_size(32)));

/* Sixteen floats: what every sum is made of. */
struct x16 {
    vec p[PIECES];
};

INLINE vec vec_set(float f) {
    return f - (vec){0};
}

#if VEC_BYTES == 16 && !defined FP_FAST_FMAF
/* fma without the instruction, four at a time. The product is exact in double; the sum
 * there is rounded to odd, from which rounding to float gives what one rounding would
 * have given. */
typedef double two __attribute__((vector_size(16)));
typedef int64_t two_bits __attribute__((vector_size(16)));
typedef float two_floats __attribute__((vector_size(8)));

INLINE two_floats slow_fma2(two_floats a, two_floats b, two_floats c) {
    const two p = __builtin_convertvector(a, two) * __builtin_convertvector(b, two);
    const two z = __builtin_convertvector(c, two);
    two s = p + z, t = s - p;
    const two rest = (p - (s - t)) + (z - t); /* s + rest is exact */
    /* an even s with a rest: its neighbour on the side of the rest is odd */
    const two_bits even = ((two_bits)s & 1) - 1, inexact = (rest > 0) | (rest < 0);
    const two_bits step = ((rest > 0) ^ (s > 0)) | 1; /* bits of s grow away from zero */
    s = (two)((two_bits)s + (even & inexact & step));
    return __builtin_convertvector(s, two_floats);
}

INLINE vec slow_fma(vec a, vec b, vec c) {
    two_floats l =
        slow_fma2(SHUFFLE(a, a, 0, 1), SHUFFLE(b, b, 0, 1), SHUFFLE(c, c, 0, 1));
    two_floats h =
        slow_fma2(SHUFFLE(a, a, 2, 3), SHUFFLE(b, b, 2, 3), SHUFFLE(c, c, 2, 3));
    return SHUFFLE(l, h, 0, 1, 2, 3);
}
#endif

/* a * b + c, rounded once. */
INLINE vec vec_fma(vec a, vec b, vec c) {
#if VEC_BYTES == 64
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VEC_BYTES == 32
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined __ARM_NEON
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined FP_FAST_FMAF
    for (int i = 0; i < VEC; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#else
    return slow_fma(a, b, c);
#endif
}

/* Where mask is all ones take a, where it is zero take b. */
INLINE vec vec_pick(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* f16 bits to float: exact, with subnormals, Inf and NaN. */
INLINE vec widen_f16(half_vec h) {
#if VEC_BYTES == 64
    return (vec)_mm512_cvtph_ps((__m256i)h);
#elif VEC_BYTES == 32
    return (vec)_mm256_cvtph_ps((__m128i)h);
#else
    ivec u = __builtin_convertvector(h, ivec), magnitude = u & 0x7fff;
    vec f = (vec)(magnitude << 13) * 0x1p112f; /* moves the exponent's bias */
    return (vec)((ivec)f | ((magnitude >= 0x7c00) & 0x7f800000) |
                 (ivec)(((uvec)u & 0x8000) << 16));
#endif
}

/* float to f16 bits, to nearest even, overflow to Inf: what the hardware does. */
INLINE half_vec narrow_f16(vec v) {
#if VEC_BYTES == 64
    return (half_vec)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif VEC_BYTES == 32
    return (half_vec)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    ivec u = (ivec)v, sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    /* subnormal f16: adding 0.5 leaves multiples of 2^-24 in the low bits, rounded to
     * even */
    ivec small = (ivec)((vec)a + 0.5f) - 0x3f000000;
    ivec big = (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13;
    ivec overflow = a >= 0x477ff000, nan = a > 0x7f800000, tiny = a < 0x38800000;
    ivec r = (tiny & small) | (~tiny & big);
    r = (overflow & 0x7c00) | (~overflow & r);
    r |= nan & (0x200 | (a >> 13 & 0x3ff));
    return __builtin_convertvector(r | sign, half_vec);
#endif
}

INLINE struct x16 x16_set(float f) {
    struct x16 r;
    EACH(i) r.p[i] = vec_set(f);
    return r;
}

INLINE struct x16 x16_fma(struct x16 a, struct x16 b, struct x16 c) {
    EACH(i) c.p[i] = vec_fma(a.p[i], b.p[i], c.p[i]);
    return c;
}

/* Sixteen elements of type at p. */
INLINE struct x16 load(enum mg_dtype type, const void *p) {
    struct x16 r;
    EACH(i) {
        if (type == MG_F32) {
            r.p[i] = *(const vec_mem *)((const char *)p + i * VEC_BYTES);
            continue;
        }
        half_vec h = *(const half_mem *)((const char *)p + i * (VEC_BYTES / 2));
        if (type == MG_F16)
            r.p[i] = widen_f16(h);
        else
            r.p[i] = (vec)(__builtin_convertvector(h, ivec) << 16);
    }
    return r;
}

/* n < 16 elements at p, the rest zeros; reads no byte beyond them. */
INLINE struct x16 load_some(enum mg_dtype type, const void *p, int n) {
#if VEC_BYTES == 64
    __mmask16 mask = (__mmask16)((1u << n) - 1);
    if (type == MG_F32) return (struct x16){{(vec)_mm512_maskz_loadu_ps(mask, p)}};
    if (type == MG_F16)
        return (struct x16){{(vec)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p))}};
#endif
    char part[64] = {0};
    memcpy(part, p, (size_t)n * (type == MG_F32 ? 4 : 2));
    return load(type, part);
}

INLINE void store(float *p, struct x16 a) {
    EACH(i) * (vec_mem *)(p + i * VEC) = a.p[i];
}

/* The largest; NaN or not is undefined where one is NaN. */
INLINE float max1(struct x16 a) {
#if VEC_BYTES == 64
    return _mm512_reduce_max_ps((__m512)a.p[0]);
#else
    UNROLL for (int half = PIECES / 2; half; half /= 2) for (int i = 0; i < half; i++)
        a.p[i] = vec_pick(a.p[i] > a.p[i + half], a.p[i], a.p[i + half]);
    float max = a.p[0][0];
    UNROLL for (int i = 1; i < VEC; i++) max = a.p[0][i] > max ? a.p[0][i] : max;
    return max;
#endif
}

/* ---- the tree: l[i] + l[i+8], then +4, +2, +1 --------------------------------- */

/* The first two levels: four sums are left. */
INLINE vec4 fold(struct x16 a) {
#if VEC_BYTES == 64
    vec v = a.p[0];
    vec8 h = SHUFFLE(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
             SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return SHUFFLE(h, h, 0, 1, 2, 3) + SHUFFLE(h, h, 4, 5, 6, 7);
#elif VEC_BYTES == 32
    vec8 h = a.p[0] + a.p[1];
    return SHUFFLE(h, h, 0, 1, 2, 3) + SHUFFLE(h, h, 4, 5, 6, 7);
#else
    return (a.p[0] + a.p[2]) + (a.p[1] + a.p[3]);
#endif
}

/* The last two levels for four sums at once. */
INLINE vec4 fold4(vec4 a, vec4 b, vec4 c, vec4 d) {
    vec4 p = SHUFFLE(a, b, 0, 1, 4, 5) + SHUFFLE(a, b, 2, 3, 6, 7);
    vec4 q = SHUFFLE(c, d, 0, 1, 4, 5) + SHUFFLE(c, d, 2, 3, 6, 7);
    return SHUFFLE(p, q, 0, 2, 4, 6) + SHUFFLE(p, q, 1, 3, 5, 7);
}

INLINE float sum1(struct x16 a) {
    vec4 s = fold(a);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

INLINE vec4 sum4(const struct x16 a[4]) {
    return fold4(fold(a[0]), fold(a[1]), fold(a[2]), fold(a[3]));
}

/* r[i][j] = sum of a[4 * i + j] */
INLINE void sum16(const struct x16 a[16], vec4 r[4]) {
#if VEC_BYTES == 64
#define QUARTERS(a, b, how) ((vec)_mm512_shuffle_f32x4((__m512)(a), (__m512)(b), how))
#define WITHIN(a, b, how)   ((vec)_mm512_shuffle_ps((__m512)(a), (__m512)(b), how))
    vec t[4];
    UNROLL for (int j = 0; j < 4; j++) {
        vec a0 = a[j].p[0], a1 = a[4 + j].p[0], a2 = a[8 + j].p[0], a3 = a[12 + j].p[0];
        vec u = QUARTERS(a0, a1, 0x44) + QUARTERS(a0, a1, 0xee);
        vec v = QUARTERS(a2, a3, 0x44) + QUARTERS(a2, a3, 0xee);
        t[j] = QUARTERS(u, v, 0x88) + QUARTERS(u, v, 0xdd);
    }
    vec p = WITHIN(t[0], t[1], 0x44) + WITHIN(t[0], t[1], 0xee);
    vec q = WITHIN(t[2], t[3], 0x44) + WITHIN(t[2], t[3], 0xee);
    vec s = WITHIN(p, q, 0x88) + WITHIN(p, q, 0xdd);
    r[0] = SHUFFLE(s, s, 0, 1, 2, 3);
    r[1] = SHUFFLE(s, s, 4, 5, 6, 7);
    r[2] = SHUFFLE(s, s, 8, 9, 10, 11);
    r[3] = SHUFFLE(s, s, 12, 13, 14, 15);
#else
    UNROLL for (int i = 0; i < 4; i++) r[i] = sum4(a + 4 * i);
#endif
}
