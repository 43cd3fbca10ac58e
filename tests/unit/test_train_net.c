/* SPDX-License-Identifier: Apache-2.0
 *
 * The arithmetic of training: gradients against differences of the double oracle, a step
 * against an Adam computed here, the same bits with any number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/train/adam.h"
#include "../../core/train/convert.h"
#include "../../core/train/rng.h"
#include "../../core/train/trainer.h"
#include "make_model.h"
#include "oracle.h"

enum { MAX_DOCS = 8 };

/* A random model with documents, seen by both sides. */
struct scene {
    char *dir;
    struct oracle *oracle;
    struct net_shape shape;
    size_t n;      /* parameters */
    float *params; /* [n], the oracle's weights */
    int32_t *tokens;
    struct net_doc docs[MAX_DOCS];
    int n_docs, rows;
};

static void open_scene(struct scene *s, struct net_shape shape, int n_docs,
                       const int *lengths) {
    struct make_model make = {
        .vocab_size = shape.vocab_size,
        .n_embd = shape.n_embd,
        .n_head = shape.n_head,
        .n_layer = shape.n_layer,
        .block_size = shape.block_size,
        .std = 0.3,
        .seed = 11,
    };
    *s =
        (struct scene){.dir = make_model(&make), .shape = shape, .n = net_params(&shape)};
    s->oracle = oracle_open(s->dir);
    s->params = calloc(s->n, sizeof *s->params);
    for (int i = 0; i < net_tensors(&shape); i++) {
        struct net_tensor t = net_tensor(&shape, i);
        const struct oracle_tensor *o = oracle_find(s->oracle, t.name);
        assert_non_null(o);
        assert_int_equal(o->rows, t.rows);
        assert_int_equal(o->cols, t.cols);
        for (int j = 0; j < t.rows * t.cols; j++)
            s->params[t.at + (size_t)j] = (float)o->data[j];
    }
    uint64_t state = 5;
    s->tokens =
        calloc((size_t)n_docs * ((size_t)shape.block_size + 1), sizeof *s->tokens);
    int32_t *at = s->tokens;
    for (int i = 0; i < n_docs; i++) {
        s->docs[i] = (struct net_doc){at, lengths[i]};
        for (int t = 0; t <= lengths[i]; t++)
            *at++ = random_int(&state, 0, shape.vocab_size - 1);
        s->rows += lengths[i];
    }
    s->n_docs = n_docs;
}

static void close_scene(struct scene *s) {
    oracle_close(s->oracle);
    remove_model(s->dir);
    free(s->params);
    free(s->tokens);
}

/* Summed cross entropy by the oracle. */
static double oracle_loss(const struct scene *s) {
    double loss = 0;
    for (int i = 0; i < s->n_docs; i++) {
        oracle_reset(s->oracle);
        for (int t = 0; t < s->docs[i].n; t++) {
            const double *l = oracle_feed(s->oracle, s->docs[i].tokens[t]);
            double max = l[0], sum = 0;
            for (int j = 1; j < s->shape.vocab_size; j++) max = fmax(max, l[j]);
            for (int j = 0; j < s->shape.vocab_size; j++) sum += exp(l[j] - max);
            loss += max + log(sum) - l[s->docs[i].tokens[t + 1]];
        }
    }
    return loss;
}

/* The derivative of the oracle's loss when all elements of a tensor move along dir (+1
 * and -1), by central differences. */
static double slope(const struct scene *s, const struct oracle_tensor *t,
                    const double *dir) {
    const double h = 1e-6;
    int n = t->rows * t->cols;
    double *keep = malloc((size_t)n * sizeof *keep), loss[2];
    memcpy(keep, t->data, (size_t)n * sizeof *keep);
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < n; i++) t->data[i] = keep[i] + (side ? -h : h) * dir[i];
        loss[side] = oracle_loss(s);
    }
    memcpy(t->data, keep, (size_t)n * sizeof *keep);
    free(keep);
    return (loss[0] - loss[1]) / (2 * h);
}

static void check_tensor(const struct scene *s, const float *grad, int i,
                         uint64_t *state) {
    struct net_tensor t = net_tensor(&s->shape, i);
    const struct oracle_tensor *o = oracle_find(s->oracle, t.name);
    int n = t.rows * t.cols;
    double *dir = malloc((size_t)n * sizeof *dir);
    for (int round = 0; round < 2; round++) {
        double along = 0, norm = 0;
        for (int j = 0; j < n; j++) {
            double g = (double)grad[t.at + (size_t)j];
            dir[j] = random_u64(state) >> 63 ? 1 : -1;
            along += g * dir[j], norm += g * g;
        }
        double want = slope(s, o, dir), off = fabs(along - want);
        if (!(off <= 1e-4 * sqrt(norm) + 1e-5) || norm == 0)
            fail_msg("%s: gradient %.9g, differences %.9g, norm %.3g", t.name, along,
                     want, sqrt(norm));
    }
    free(dir);
}

static void check_gradients(struct net_shape shape, int n_docs, const int *lengths) {
    struct scene s;
    open_scene(&s, shape, n_docs, lengths);
    struct net_work *w = net_work_new();
    float *grad = malloc(s.n * sizeof *grad);
    double loss;
    memset(grad, 0xFF, s.n * sizeof *grad); /* NaN: everything must be written */
    assert_int_equal(net_run(&shape, s.params, s.docs, n_docs, 1, w, &loss, grad), 0);
    double want = oracle_loss(&s);
    if (!(fabs(loss - want) <= 1e-5 * want))
        fail_msg("loss %.9g, oracle %.9g", loss, want);
    uint64_t state = 3;
    for (int i = 0; i < net_tensors(&shape); i++) check_tensor(&s, grad, i, &state);
    free(grad);
    net_work_free(w);
    close_scene(&s);
}

static void test_gradients(void **state) {
    (void)state;
    check_gradients((struct net_shape){7, 8, 2, 1, 6}, 3, (int[]){6, 1, 4});
    check_gradients((struct net_shape){28, 12, 3, 2, 20}, 2, (int[]){20, 9});
    check_gradients((struct net_shape){40, 16, 1, 3, 12}, 4, (int[]){3, 12, 12, 5});
    check_gradients((struct net_shape){30, 32, 8, 1, 16}, 1, (int[]){16});
    check_gradients((struct net_shape){5, 5, 5, 1, 9}, 2, (int[]){9, 7});
}

/* Longer than a block of the attention, and than two. */
static void test_gradients_of_long_documents(void **state) {
    (void)state;
    check_gradients((struct net_shape){9, 16, 2, 1, 150}, 2, (int[]){70, 139});
}

static void test_scale(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, (struct net_shape){7, 8, 2, 1, 6}, 1, (int[]){6});
    struct net_work *w = net_work_new();
    float *a = malloc(s.n * sizeof *a), *b = malloc(s.n * sizeof *b);
    double loss[2];
    net_run(&s.shape, s.params, s.docs, 1, 1, w, &loss[0], a);
    net_run(&s.shape, s.params, s.docs, 1, 0.25f, w, &loss[1], b);
    assert_true(loss[0] == loss[1]);
    for (size_t i = 0; i < s.n; i++) assert_true(fabsf(a[i] / 4 - b[i]) <= 1e-6f);
    free(a), free(b);
    net_work_free(w);
    close_scene(&s);
}

/* ---- Adam ------------------------------------------------------------------------ */

/* Two steps of the trainer against Adam in double, written down from its definition. */
static void test_step(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, (struct net_shape){28, 16, 4, 2, 300}, 6,
               (int[]){300, 120, 299, 3, 280, 277});
    struct trainer *t = trainer_new(&s.shape, 2);
    struct net_work *w = net_work_new();
    memcpy(t->params, s.params, s.n * sizeof *t->params);
    float *grad = malloc(s.n * sizeof *grad);
    double *m = calloc(s.n, sizeof *m), *v = calloc(s.n, sizeof *v), loss, mean;
    const double lr[] = {0.01, 0.003};
    for (int step = 1; step <= 2; step++) {
        memcpy(s.params, t->params, s.n * sizeof *t->params);
        net_run(&s.shape, s.params, s.docs, s.n_docs, 1.0f / (float)s.rows, w, &loss,
                grad);
        assert_int_equal(trainer_step(t, s.docs, s.n_docs, step, lr[step - 1], &mean), 0);
        assert_true(fabs(mean - loss / s.rows) < 1e-6 * mean);
        for (size_t i = 0; i < s.n; i++) {
            double g = (double)grad[i];
            m[i] = 0.85 * m[i] + 0.15 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            double mh = m[i] / (1 - pow(0.85, step)), vh = v[i] / (1 - pow(0.99, step));
            double want = (double)s.params[i] - lr[step - 1] * mh / (sqrt(vh) + 1e-8);
            /* a gradient of rounding noise has no sign that could be compared */
            if (fabs(g) > 1e-5 && fabs((double)t->params[i] - want) > 2e-5)
                fail_msg("step %d, parameter %zu: %.9g, Adam %.9g (gradient %g)", step, i,
                         (double)t->params[i], want, g);
        }
    }
    free(grad), free(m), free(v);
    net_work_free(w);
    trainer_free(t);
    close_scene(&s);
}

static void test_rate(void **state) {
    (void)state;
    assert_true(fabs(adam_rate(0.01, 1, 200, 5000) - 0.01 / 200) < 1e-12);
    assert_true(fabs(adam_rate(0.01, 200, 200, 5000) - 0.01) < 1e-12);
    assert_true(adam_rate(0.01, 201, 200, 5000) < 0.01);
    assert_true(adam_rate(0.01, 5000, 200, 5000) > 0);
    assert_true(fabs(adam_rate(0.01, 5001, 200, 5000)) < 1e-12);
    assert_true(fabs(adam_rate(0.01, 2600, 200, 5000) - 0.01 * 2401 / 4801) < 1e-12);
    assert_true(adam_rate(0.01, 1, 0, 1) > 0);
}

/* ---- threads --------------------------------------------------------------------- */

static float *train_with(int threads, const struct scene *s, double *eval) {
    struct trainer *t = trainer_new(&s->shape, threads);
    memcpy(t->params, s->params, s->n * sizeof *t->params);
    double loss;
    for (int step = 1; step <= 4; step++)
        assert_int_equal(trainer_step(t, s->docs, s->n_docs, step, 0.01, &loss), 0);
    assert_int_equal(trainer_eval(t, s->docs, s->n_docs, eval), 0);
    float *params = t->params;
    t->params = NULL;
    trainer_free(t);
    return params;
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, (struct net_shape){28, 32, 4, 2, 300}, 8,
               (int[]){300, 20, 299, 230, 240, 277, 300, 299});
    double eval[3];
    float *one = train_with(1, &s, &eval[0]);
    for (int i = 1; i < 3; i++) {
        float *other = train_with(i == 1 ? 2 : 5, &s, &eval[i]);
        assert_memory_equal(one, other, s.n * sizeof *one);
        assert_true(eval[i] == eval[0]);
        free(other);
    }
    free(one);
    close_scene(&s);
}

/* ---- numbers --------------------------------------------------------------------- */

static void test_normal(void **state) {
    (void)state;
    enum { N = 100001 };
    float *x = malloc(N * sizeof *x);
    struct rng rng = rng_begin(42, 0);
    rng_normal(&rng, 0.08f, N, x);
    double mean = 0, var = 0, tail = 0;
    for (int i = 0; i < N; i++) mean += (double)x[i] / N;
    for (int i = 0; i < N; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean) / N;
    for (int i = 0; i < N; i++) tail += fabsf(x[i]) > 0.16f;
    assert_true(fabs(mean) < 0.001);
    assert_true(fabs(sqrt(var) - 0.08) < 0.001);
    assert_true(fabs(tail / N - 0.0455) < 0.004); /* beyond two standard deviations */
    struct rng again = rng_begin(42, 0), other = rng_begin(43, 0),
               stream = rng_begin(42, 1);
    uint64_t first = rng_next(&again);
    assert_true(first != rng_next(&other) && first != rng_next(&stream));
    free(x);
}

static void test_shuffle(void **state) {
    (void)state;
    int32_t a[100], seen[100] = {0}, moved = 0;
    for (int i = 0; i < 100; i++) a[i] = i;
    struct rng rng = rng_begin(1, 2);
    rng_shuffle(&rng, a, 100);
    for (int i = 0; i < 100; i++) seen[a[i]]++, moved += a[i] != i;
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
    assert_true(moved > 90);
}

static uint16_t half(enum mg_dtype type, double x) {
    float f = (float)x;
    uint16_t h;
    convert_to_half(type, &f, 1, &h);
    return h;
}

static void test_f16(void **state) {
    (void)state;
    const struct {
        double x;
        uint16_t bits;
    } known[] = {
        {0, 0x0000},           {-0.0, 0x8000},        {1, 0x3C00},
        {-2, 0xC000},          {65504, 0x7BFF},       {65519.9, 0x7BFF},
        {65520, 0x7C00},       {-1e6, 0xFC00},        {0x1p-14, 0x0400},
        {0x1.ff8p-15, 0x03FF}, {0x1.ffcp-15, 0x0400}, {0x1.fffp-15, 0x0400},
        {0x1p-24, 0x0001},     {0x1p-25, 0x0000},     {0x1.8p-25, 0x0001},
        {0x1.8p-24, 0x0002},   {0x1.4p-23, 0x0002},   {1e-20, 0x0000},
        {1 + 0x1p-11, 0x3C00}, {1 + 0x3p-11, 0x3C02}, {1 + 0x1.8p-11, 0x3C01},
        {0.1, 0x2E66},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (half(MG_F16, known[i].x) != known[i].bits)
            fail_msg("f16 of %a: %04x, not %04x", known[i].x, half(MG_F16, known[i].x),
                     known[i].bits);
    assert_int_equal(half(MG_BF16, 1), 0x3F80);
    assert_int_equal(half(MG_BF16, 1 + 0x1p-8), 0x3F80);
    assert_int_equal(half(MG_BF16, 1 + 0x3p-8), 0x3F82);
    assert_int_equal(half(MG_BF16, -3.0e38), 0xFF62);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_gradients_of_long_documents),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_f16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
