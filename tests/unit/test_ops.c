/* SPDX-License-Identifier: Apache-2.0
 *
 * test_ops.c - every kernel of every instruction set this machine has: bitwise against
 * plain loops written from the orders in ops.h, against each other, at the edge of a
 * mapping, and against libm for accuracy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/gemm.h"
#include "../../core/ops.h"
#include "memory_model.h"
#include "op_hashes.h"

#define FOR_EACH_OPS(ops)                                                                \
    for (int i_ = 0; i_ < 8; i_++)                                                       \
        for (const struct mg_ops *ops = mg_ops_get(i_); ops; ops = NULL)

static float half_to_float(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    double x = exponent == 31  ? (fraction ? NAN : INFINITY)
               : exponent == 0 ? ldexp(fraction, -24)
                               : ldexp(1024 + fraction, exponent - 25);
    return (float)(h & 0x8000 ? -x : x);
}

static float element(enum mg_dtype type, const void *data, size_t i) {
    float f;
    uint16_t h;
    if (type == MG_F32) {
        memcpy(&f, (const char *)data + 4 * i, 4);
        return f;
    }
    memcpy(&h, (const char *)data + 2 * i, 2);
    if (type == MG_F16) return half_to_float(h);
    uint32_t u = (uint32_t)h << 16;
    memcpy(&f, &u, 4);
    return f;
}

/* The order of ops.h: sixteen lanes, then the tree. */
static float sum_in_order(const float *a, const float *b, int n) {
    float l[16] = {0};
    for (int k = 0; k < n; k += 16)
        for (int i = 0; i < 16; i++)
            l[i] = fmaf(k + i < n ? a[k + i] : 0, k + i < n ? b[k + i] : 0, l[i]);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) l[i] += l[i + half];
    return l[0];
}

/* A mapping whose last byte is followed by a page that may not be touched. */
struct guarded {
    char *map, *end;
    size_t size;
};

static struct guarded guarded_new(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct guarded g = {.size = (bytes + page - 1) / page * page + page};
    g.map =
        mmap(NULL, g.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    g.end = g.map + g.size - page;
    assert_int_equal(mprotect(g.end, page, PROT_NONE), 0);
    return g;
}

static void guarded_free(struct guarded *g) {
    munmap(g->map, g->size);
}

/* ---- linear ------------------------------------------------------------------- */

enum { MAX_ROWS = 64 };

struct linear_case {
    int outs, k;
    enum mg_dtype type;
    size_t ldx, ldy;
    float *x, *start, *want; /* want: the plain sums, [MAX_ROWS][ldy] */
    struct mg_matrix w; /* ends where the guard page begins: misaligned for odd sizes */
    struct guarded mem;
};

static struct linear_case linear_case_new(int outs, int k, enum mg_dtype type) {
    struct linear_case c = {.outs = outs, .k = k, .type = type};
    uint64_t state = (uint64_t)(outs * 1000 + k) * 2 + 1;
    const size_t n = (size_t)outs * (size_t)k, bytes = n * mg_dtype_size(type);
    const int shift = type == MG_F32 && k % 3 == 0 ? 1 : 0; /* some at an odd address */
    c.ldx = ((size_t)k + 15) / 16 * 16;
    c.ldy = (size_t)outs + 1;
    c.mem = guarded_new(bytes + 1);
    c.w = matrix_of(c.mem.end - bytes - shift, type, outs, k);
    random_elements(&state, type, (void *)c.w.data, n);
    c.x = floats(MAX_ROWS * c.ldx);
    c.start = malloc(MAX_ROWS * c.ldy * sizeof *c.start);
    c.want = malloc(MAX_ROWS * c.ldy * sizeof *c.want);
    for (size_t i = 0; i < MAX_ROWS * c.ldx; i++)
        c.x[i] = random_float(&state); /* the padding too: it must not count */
    for (size_t i = 0; i < MAX_ROWS * c.ldy; i++) c.start[i] = random_float(&state);
    float *row = malloc((size_t)k * sizeof *row);
    for (int o = 0; o < outs; o++) {
        for (int j = 0; j < k; j++)
            row[j] = element(type, c.w.data, (size_t)o * (size_t)k + (size_t)j);
        for (int r = 0; r < MAX_ROWS; r++)
            c.want[r * c.ldy + o] = sum_in_order(c.x + r * c.ldx, row, k);
    }
    free(row);
    return c;
}

static void linear_case_free(struct linear_case *c) {
    free(c->x), free(c->start), free(c->want);
    guarded_free(&c->mem);
}

static void check_linear(const struct linear_case *c, const struct mg_ops *ops, int rows,
                         enum mg_epilogue op) {
    float *y = malloc((size_t)rows * c->ldy * sizeof *y);
    memcpy(y, c->start, (size_t)rows * c->ldy * sizeof *y);
    ops->linear(&c->w, rows, c->x, c->ldx, y, c->ldy, op);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o <= c->outs; o++) {
            const size_t i = r * c->ldy + o;
            float want = o == c->outs    ? c->start[i] /* between rows: not written */
                         : op == MG_ADD  ? c->start[i] + c->want[i]
                         : op == MG_RELU ? (c->want[i] < 0 ? 0 : c->want[i])
                                         : c->want[i];
            if (memcmp(&want, &y[i], sizeof want) != 0)
                fail_msg("%s: %dx%d type %d rows %d op %d: [%d][%d] is %a, not %a",
                         ops->name, c->outs, c->k, c->type, rows, op, r, o, y[i], want);
        }
    free(y);
}

static void test_linear_is_the_plain_loop(void **state) {
    (void)state;
    static const int shapes[][2] = {{1, 1},   {2, 3},     {16, 16}, {64, 16}, {27, 16},
                                    {16, 64}, {48, 16},   {5, 17},  {7, 23},  {33, 40},
                                    {20, 80}, {100, 128}, {31, 15}, {36, 48}, {9, 65},
                                    {18, 33}, {3, 500},   {17, 900}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = MG_F32; type <= MG_BF16; type++) {
            struct linear_case c = linear_case_new(shapes[s][0], shapes[s][1], type);
            FOR_EACH_OPS(ops)
            for (int rows = 1; rows <= MAX_ROWS; rows++) {
                if (rows > 22 && rows % 16 != 0 && rows % 16 != 7) continue;
                check_linear(&c, ops, rows, (enum mg_epilogue)(rows % 3));
                if (rows <= 8)
                    check_linear(&c, ops, rows, (enum mg_epilogue)((rows + 1) % 3));
            }
            linear_case_free(&c);
        }
}

/* Bits of all kinds: subnormal, huge, and c close to -a * b. */
static void random_operands(uint64_t *random, float *a, float *b, float *c) {
    float *out[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        random_float(random);
        uint32_t u = (uint32_t)(*random >> 32), exponent = u >> 23 & 255;
        if (*random % 4 != 0) /* mostly of about the same size */
            exponent = 120 + exponent % 16;
        u = (u & 0x807fffff) | (exponent == 255 ? 254 : exponent) << 23;
        memcpy(out[i], &u, 4);
    }
    if (*random % 3 == 0) *c = -(*a * *b);
    if (*random % 7 == 0) *c = nextafterf(*c, (float)(*random >> 60) - 8);
    if (!isfinite(*c)) *c = 1;
    if (*random % 5 == 0) { /* a sum that double rounds to half way between two floats */
        *a = *random >> 40 & 1 ? 0x1.000002p0f : -0x1.000002p0f;
        *b = 0x1.fffffcp-25f;
        *c = 1 + (float)(*random >> 50) * 0x1p-23f;
    }
}

/* The second element of a row is added to the product of the first: w[0] x[0] with x[0]
 * = 1. */
static void test_fma_is_rounded_once(void **state) {
    (void)state;
    enum { N = 20000, K = 17 };
    uint64_t random = 31;
    FOR_EACH_OPS(ops)
    for (int i = 0; i < N; i++) {
        float a, b, c, y, x[32] = {1}, w[K] = {0};
        random_operands(&random, &a, &b, &c);
        w[0] = c, w[16] = a, x[16] = b;
        struct mg_matrix m = matrix_of(w, MG_F32, 1, K);
        ops->linear(&m, 1, x, 32, &y, 1, MG_SET);
        const float want = fmaf(a, b, fmaf(c, 1, 0)) + 0.0f;
        if (want != y)
            fail_msg("%s: %a * %a + %a is %a, not %a", ops->name, a, b, c, y, want);
    }
}

static void test_relu_keeps_nan(void **state) {
    (void)state;
    float x[32] = {0}, w[20 * 16];
    for (int i = 0; i < 20 * 16; i++) w[i] = 1;
    x[3] = INFINITY, x[4] = -INFINITY;
    struct mg_matrix m = matrix_of(w, MG_F32, 20, 16);
    FOR_EACH_OPS(ops) {
        float y[40];
        ops->linear(&m, 2, x, 16, y, 20, MG_RELU);
        for (int i = 0; i < 20; i++) {
            assert_true(isnan(y[i]));
            assert_true(y[20 + i] == 0);
        }
    }
}

/* ---- the other kernels -------------------------------------------------------- */

static void test_all_instruction_sets_agree(void **state) {
    (void)state;
    static struct op_hash want[OP_HASHES], got[OP_HASHES];
    int n = hash_ops(mg_ops_get(0), want);
    FOR_EACH_OPS(ops) {
        assert_int_equal(hash_ops(ops, got), n);
        for (int i = 0; i < n; i++)
            if (want[i].value != got[i].value)
                fail_msg("%s and %s differ in: %s", mg_ops_get(0)->name, ops->name,
                         want[i].name);
    }
}

static void test_rmsnorm_is_the_plain_loop(void **state) {
    (void)state;
    uint64_t random = 3;
    float x[128], y[128];
    FOR_EACH_OPS(ops)
    for (int n = 1; n <= 100; n++) {
        for (int i = 0; i < 128; i++) x[i] = 3 * random_float(&random);
        ops->rmsnorm(n, x, y);
        const float scale = 1.0f / sqrtf(sum_in_order(x, x, n) / (float)n + 1e-5f);
        for (int i = 0; i < n; i++) assert_true(y[i] == x[i] * scale);
        ops->rmsnorm(n, x, x); /* in place */
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
    }
}

static void test_widen_is_exact(void **state) {
    (void)state;
    uint16_t h[0x10000 + 1];
    static float wide[0x10000];
    for (int i = 0; i < 0x10000; i++) h[i] = (uint16_t)i;
    FOR_EACH_OPS(ops)
    for (int type = MG_F16; type <= MG_BF16; type++) {
        ops->widen((enum mg_dtype)type, h, 0x10000, wide);
        for (int i = 0; i < 0x10000; i++) {
            float want = element((enum mg_dtype)type, h, (size_t)i);
            if (isnan(want) ? !isnan(wide[i]) : memcmp(&want, &wide[i], 4) != 0)
                fail_msg("%s: type %d of %#x is %a, not %a", ops->name, type, i, wide[i],
                         want);
        }
    }
}

/* What f16 rounds x to: nearest, of two the even one. */
static float through_half(float x) {
    const float a = fabsf(x);
    if (a >= 65520) return copysignf(INFINITY, x);
    int e;
    frexpf(a, &e);
    const int step = e - 11 < -24 ? -24 : e - 11;
    return copysignf((float)ldexp(nearbyint(ldexp(a, -step)), step), x);
}

/* One position, one element to a head: attention gives back what the cache holds. */
static float through_cache(const struct mg_ops *ops, float x) {
    const struct mg_kv_shape kv = {1, 1, 1, MG_KV_F16};
    _Alignas(64) char cache[64];
    float scratch[512], zero[16] = {0}, v[16] = {x}, o[16];
    assert_true(mg_kv_bytes(&kv) <= sizeof cache);
    assert_true(mg_attend_scratch_floats(&kv) <= 512);
    ops->kv_store(&kv, cache, 0, 1, zero, v, 16);
    ops->attend(&kv, cache, 0, 1, zero, 16, o, 16, scratch);
    return o[0];
}

static void test_kv_f16_is_rounded_to_even(void **state) {
    (void)state;
    FOR_EACH_OPS(ops)
    for (unsigned i = 0; i < 0x7c00; i += 3) {
        /* a value of f16, half way to the next, and a hair beside half way */
        const float low = half_to_float((uint16_t)i),
                    high = half_to_float((uint16_t)(i + 1));
        const float middle = i == 0x7bff ? 65520 : (low + high) / 2;
        const float x[] = {low, middle, nextafterf(middle, 0), nextafterf(middle, 1e9f),
                           -middle};
        for (int j = 0; j < 5; j++) {
            const float got = through_cache(ops, x[j]), want = through_half(x[j]);
            if (got != want && !isinf(want))
                fail_msg("%s: %a became %a, not %a", ops->name, x[j], got, want);
            if (isinf(want) && isfinite(got))
                fail_msg("%s: %a became %a", ops->name, x[j], got);
        }
    }
}

static void test_weights_are_accurate(void **state) {
    (void)state;
    uint64_t random = 21;
    FOR_EACH_OPS(ops)
    for (int i = 0; i < 100000; i++) {
        float l = -random_float(&random) * random_float(&random);
        double temperature = i % 2 ? 1 : 0.001 + (i % 100) / 50.0, p[16];
        l = -fabsf(l) * (i % 3 ? 30 : 800);
        ops->weights(1, &l, 0, temperature, p);
        const double x = (double)l / temperature;
        const double want = (double)expl((long double)x);
        const double ulp = want < DBL_MIN ? ldexp(1, -1074) : want * DBL_EPSILON;
        if (!(fabs(p[0] - want) <= ulp))
            fail_msg("%s: exp(%a) is %a, not %a", ops->name, x, p[0], want);
    }
}

static void test_weights_at_the_edges(void **state) {
    (void)state;
    FOR_EACH_OPS(ops) {
        const float l[5] = {1, 1, 0.999f, -3e38f, 1.5f};
        double p[16];
        ops->weights(5, l, 1, 1e-308, p);
        assert_true(p[0] == 1 && p[1] == 1 && p[2] == 0 && p[3] == 0);
        ops->weights(5, l, 1, 1e300, p);
        assert_true(p[0] == 1 && p[2] == 1 && p[3] == 1);
        assert_true(p[4] == 1); /* above max (it is suppressed): as max */
    }
}

static void test_max_finite(void **state) {
    (void)state;
    uint64_t random = 4;
    FOR_EACH_OPS(ops)
    for (int n = 1; n <= 70; n++)
        for (int at = 0; at < n; at++) {
            float l[70], max;
            for (int i = 0; i < n; i++) l[i] = random_float(&random) - 5;
            l[at] = -2;
            assert_int_equal(ops->max_finite(n, l, &max), 0);
            assert_true(max == -2);
            static const float bad[] = {NAN, INFINITY, -INFINITY, -NAN};
            l[at] = bad[n % 4];
            assert_int_equal(ops->max_finite(n, l, &max), -1);
        }
}

static void test_find_nonfinite(void **state) {
    (void)state;
    static const uint32_t bad[3][3] = {{0x7f800000, 0xff800001, 0x7fc00000},
                                       {0x7c00, 0xfc00, 0x7c01},
                                       {0x7f80, 0xff80, 0xff81}};
    enum { N = 5003 };
    for (int type = MG_F32; type <= MG_BF16; type++) {
        const size_t size = mg_dtype_size((enum mg_dtype)type);
        struct guarded g = guarded_new(N * size + 1);
        char *data = g.end - N * size - (type == MG_F16); /* at an odd address too */
        uint64_t random = 9;
        random_elements(&random, (enum mg_dtype)type, data, N);
        FOR_EACH_OPS(ops) {
            assert_int_equal(ops->find_nonfinite((enum mg_dtype)type, data, N), -1);
            for (int at = 0; at < N; at += at < 40 || at > N - 40 ? 1 : 97) {
                char saved[4];
                memcpy(saved, data + (size_t)at * size, size);
                memcpy(data + (size_t)at * size, &bad[type][at % 3], size);
                assert_int_equal(ops->find_nonfinite((enum mg_dtype)type, data, N), at);
                memcpy(data + (size_t)at * size, saved, size);
            }
        }
        guarded_free(&g);
    }
}

/* ---- attention ---------------------------------------------------------------- */

enum { T = 75, LD = 200 };

struct attend_case {
    struct mg_kv_shape kv;
    float *q, *k, *v, *o, *scratch; /* [T][LD] */
    char *cache;
};

static struct attend_case attend_case_new(int heads, int dim, enum mg_kv type) {
    struct attend_case c = {.kv = {heads, dim, T, type}};
    uint64_t random = (uint64_t)(heads * 100 + dim);
    float **all[] = {&c.q, &c.k, &c.v, &c.o};
    for (int a = 0; a < 4; a++) {
        *all[a] = floats(T * LD);
        for (int i = 0; i < T * LD; i++)
            (*all[a])[i] = random_float(&random) * (a == 0 ? 4 : 1);
    }
    c.scratch = floats(mg_attend_scratch_floats(&c.kv));
    c.cache = (char *)floats(mg_kv_bytes(&c.kv) / sizeof(float));
    return c;
}

static void attend_case_free(struct attend_case *c) {
    free(c->q), free(c->k), free(c->v), free(c->o), free(c->scratch), free(c->cache);
}

/* All T positions in chunks of so many, over a cache full of NaN: what was never stored
 * and what lies behind the query must not count. */
static void attend_chunks(const struct attend_case *c, const struct mg_ops *ops,
                          int chunk) {
    memset(c->cache, 0xff, mg_kv_bytes(&c->kv));
    for (int pos = 0; pos < T; pos += chunk) {
        const int rows = T - pos < chunk ? T - pos : chunk;
        const int at = pos * LD;
        ops->kv_store(&c->kv, c->cache, pos, rows, c->k + at, c->v + at, LD);
        ops->attend(&c->kv, c->cache, pos, rows, c->q + at, LD, c->o + at, LD,
                    c->scratch);
    }
}

/* The same in double, from keys and values as the cache holds them. */
static double attend_exactly(const struct attend_case *c, int pos, int head, int d) {
    const int dim = c->kv.head_dim;
    const float *q = c->q + pos * LD + head * dim;
    double sum = 0, mixed = 0;
    for (int t = 0; t <= pos; t++) {
        double s = 0;
        for (int i = 0; i < dim; i++) {
            const float k = c->k[t * LD + head * dim + i];
            s += (double)q[i] * (c->kv.type == MG_KV_F16 ? through_half(k) : k);
        }
        const float v = c->v[t * LD + head * dim + d];
        sum += exp(s / sqrt(dim));
        mixed += exp(s / sqrt(dim)) * (c->kv.type == MG_KV_F16 ? through_half(v) : v);
    }
    return mixed / sum;
}

static void test_attention(void **state) {
    (void)state;
    static const int heads[][2] = {{1, 1},  {6, 1},  {3, 3},  {4, 4},  {2, 5},
                                   {2, 16}, {3, 20}, {4, 32}, {2, 64}, {1, 100}};
    static float first[T * LD];
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (int type = MG_KV_F32; type <= MG_KV_F16; type++) {
            struct attend_case c =
                attend_case_new(heads[h][0], heads[h][1], (enum mg_kv)type);
            attend_chunks(&c, mg_ops_get(0), 1);
            memcpy(first, c.o, sizeof first);
            for (int pos = 0; pos < T; pos += 3)
                for (int i = 0; i < heads[h][0] * heads[h][1]; i++) {
                    const int dim = heads[h][1];
                    const double want = attend_exactly(&c, pos, i / dim, i % dim);
                    assert_true(fabs(first[pos * LD + i] - want) < 2e-6);
                }
            static const int chunks[] = {1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 64, T};
            FOR_EACH_OPS(ops)
            for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
                attend_chunks(&c, ops, chunks[i]);
                if (memcmp(first, c.o, sizeof first) != 0)
                    fail_msg("%s: %dx%d kv %d in chunks of %d differs", ops->name,
                             heads[h][0], heads[h][1], type, chunks[i]);
            }
            attend_case_free(&c);
        }
}

static void test_attention_hands_nan_on(void **state) {
    (void)state;
    FOR_EACH_OPS(ops) {
        struct attend_case c = attend_case_new(2, 8, MG_KV_F32);
        c.k[20 * LD + 3] = INFINITY; /* head 0 */
        attend_chunks(&c, ops, 9);
        assert_true(isfinite(c.o[19 * LD]) && isnan(c.o[20 * LD]) &&
                    isnan(c.o[70 * LD + 7]));
        assert_true(isfinite(c.o[20 * LD + 8]));
        attend_case_free(&c);
    }
}

/* ---- BLIS --------------------------------------------------------------------- */

static void test_blis_rows_do_not_matter(void **state) {
    (void)state;
    static const int shapes[][2] = {{16, 16}, {27, 16},   {16, 64}, {64, 16},
                                    {33, 40}, {128, 512}, {7, 23},  {300, 1030}};
    const struct mg_ops *ops = mg_ops_choose(MG_KERNELS_BLIS, NULL);
    assert_string_equal(ops->name, "blis");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = MG_F32; type <= MG_BF16; type++) {
            struct linear_case c = linear_case_new(shapes[s][0], shapes[s][1], type);
            const size_t bytes = MAX_ROWS * c.ldy * sizeof(float);
            float *all = malloc(bytes), *y = malloc(bytes);
            memcpy(all, c.start, bytes);
            ops->linear(&c.w, MAX_ROWS, c.x, c.ldx, all, c.ldy, MG_ADD);
            for (int r = 0; r < MAX_ROWS; r++)
                for (int o = 0; o < c.outs; o++)
                    assert_true(fabsf(all[r * c.ldy + o] - c.start[r * c.ldy + o] -
                                      c.want[r * c.ldy + o]) < 1e-4f);
            for (int rows = 1; rows < MAX_ROWS; rows++) {
                memcpy(y, c.start, bytes);
                ops->linear(&c.w, rows, c.x, c.ldx, y, c.ldy, MG_ADD);
                if (memcmp(y, all, (size_t)rows * c.ldy * sizeof *y) != 0)
                    fail_msg("%dx%d type %d: %d rows differ", c.outs, c.k, type, rows);
            }
            free(all), free(y);
            linear_case_free(&c);
        }
}

static void test_gemm(void **state) {
    (void)state;
    enum { M = 5, N = 9, K = 13 };
    float a[K * K], b[K * K], c[M * N], start[M * N];
    uint64_t random = 11;
    for (int i = 0; i < K * K; i++)
        a[i] = random_float(&random), b[i] = random_float(&random);
    for (int i = 0; i < M * N; i++) start[i] = random_float(&random);
    for (int how = 0; how < 8; how++) {
        const int ta = how & 1, tb = how >> 1 & 1;
        const float beta = how & 4 ? 0.5f : 0;
        memcpy(c, start, sizeof c);
        if (beta == 0) c[3] = NAN; /* not read */
        mg_gemm(ta, tb, M, N, K, 2, a, K, b, K, beta, c, N);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double want = beta == 0 ? 0 : beta * start[i * N + j];
                for (int k = 0; k < K; k++)
                    want += 2.0 * (ta ? a[k * K + i] : a[i * K + k]) *
                            (tb ? b[j * K + k] : b[k * K + j]);
                assert_true(fabs(c[i * N + j] - want) < 1e-5);
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_is_the_plain_loop),
        cmocka_unit_test(test_fma_is_rounded_once),
        cmocka_unit_test(test_relu_keeps_nan),
        cmocka_unit_test(test_all_instruction_sets_agree),
        cmocka_unit_test(test_rmsnorm_is_the_plain_loop),
        cmocka_unit_test(test_widen_is_exact),
        cmocka_unit_test(test_kv_f16_is_rounded_to_even),
        cmocka_unit_test(test_weights_are_accurate),
        cmocka_unit_test(test_weights_at_the_edges),
        cmocka_unit_test(test_max_finite),
        cmocka_unit_test(test_find_nonfinite),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_hands_nan_on),
        cmocka_unit_test(test_blis_rows_do_not_matter),
        cmocka_unit_test(test_gemm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
