/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forward.c - the forward pass gives the same logits, bit for bit, whatever the
 * batch, the chunks of a prompt, the lane and the instruction set; it stays inside its
 * reservation and close to what it says it reserves. How close the logits are to the
 * truth is test_oracle's business. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/forward.h"
#include "../../core/ops.h"
#include "memory_model.h"

enum { STREAMS = 5, MAX_LANES = 64, MAX_T = 40, MAX_ROWS = 96 };

/* n_head = n_embd, head_dim 3, 5, 20 and 64, products of 7, 15, 60 ... elements. */
static const struct {
    struct shape shape;
    enum mg_dtype type;
} cases[] = {{{27, 16, 4, 1, 16}, MG_F32},  {{11, 7, 7, 2, 19}, MG_F16},
             {{30, 15, 5, 2, 40}, MG_BF16}, {{9, 25, 5, 1, 33}, MG_F32},
             {{40, 60, 3, 2, 36}, MG_F16},  {{21, 64, 1, 1, 40}, MG_F32},
             {{5, 128, 4, 2, 24}, MG_BF16}, {{2, 1, 1, 1, 1}, MG_F32},
             {{100, 18, 2, 1, 3}, MG_F16}};
enum { CASES = sizeof cases / sizeof *cases };

struct fixture {
    struct mg_model *model;
    enum mg_kv kv;
    int t; /* positions of a stream */
    int32_t tokens[STREAMS][MAX_T];
    uint64_t want[STREAMS][MAX_T]; /* hash of the logits at each position */
};

static uint64_t hash_logits(const struct mg_model *m, const float *logits) {
    for (int i = 0; i < m->info.vocab_size; i++) assert_true(isfinite(logits[i]));
    return hash_bytes(1, logits, (size_t)m->info.vocab_size * sizeof *logits);
}

/* Every stream alone, one token a step, by the first table. */
static struct fixture fixture_new(int c, enum mg_kv kv) {
    struct fixture f = {.kv = kv, .t = cases[c].shape.block_size};
    uint64_t random = (uint64_t)c * 2 + 1;
    f.model =
        memory_model_new(&cases[c].shape, cases[c].type, (uint64_t)c, mg_ops_get(0));
    for (int s = 0; s < STREAMS; s++) {
        struct mg_forward *fw = mg_forward_new(f.model, 1, 1, kv, NULL);
        assert_non_null(fw);
        for (int p = 0; p < f.t; p++) {
            random_float(&random);
            f.tokens[s][p] = (int32_t)(random % (uint64_t)f.model->info.vocab_size);
            struct mg_span span = {0, p, 1, &f.tokens[s][p], 1};
            f.want[s][p] = hash_logits(f.model, mg_forward_run(fw, &span, 1));
        }
        mg_forward_free(fw);
    }
    return f;
}

static int random_below(uint64_t *random, int n) {
    random_float(random);
    return (int)((*random >> 20) % (uint64_t)n);
}

/* One call: some lanes, each with some tokens of its stream. Returns the spans. */
static int plan(const struct fixture *f, int lanes, const int *pos, int longest,
                uint64_t *random, struct mg_span *spans) {
    int n = 0, rows = 0;
    for (int i = 0; i < lanes; i++) {
        const int lane = lanes - 1 - i; /* in another order than the lanes */
        const int left = f->t - pos[lane];
        if (left == 0 || random_below(random, 8) == 0) continue;
        int count = 1 + random_below(random, longest);
        count = count < left ? count : left;
        count = count < MAX_ROWS - rows ? count : MAX_ROWS - rows;
        if (count == 0) break;
        rows += count;
        spans[n++] = (struct mg_span){lane, pos[lane], count,
                                      &f->tokens[lane % STREAMS][pos[lane]],
                                      random_below(random, 4) != 0};
    }
    return n;
}

/* All lanes from the first position to the last, in steps of random make. */
static void run_schedule(const struct fixture *f, int lanes, int longest, uint64_t seed) {
    struct mg_forward *fw = mg_forward_new(f->model, lanes, MAX_ROWS, f->kv, NULL);
    struct mg_span spans[MAX_LANES];
    int pos[MAX_LANES] = {0}, left = lanes * f->t;
    assert_non_null(fw);
    while (left > 0) {
        const int n = plan(f, lanes, pos, longest, &seed, spans);
        const float *logits = mg_forward_run(fw, spans, n);
        for (int i = 0; i < n; i++) {
            const int lane = spans[i].lane, last = spans[i].pos + spans[i].n - 1;
            left -= spans[i].n;
            pos[lane] += spans[i].n;
            if (!spans[i].want_logits) continue;
            if (hash_logits(f->model, logits) != f->want[lane % STREAMS][last])
                fail_msg(
                    "%s: %d/%d kv %d: %d lanes, spans of up to %d: lane %d differs at %d",
                    f->model->ops->name, f->model->info.n_embd, f->model->info.n_head,
                    f->kv, lanes, longest, lane, last);
            logits += mg_forward_ld(fw);
        }
    }
    mg_forward_free(fw);
}

static void test_any_batch_any_chunks(void **state) {
    (void)state;
    static const int some[] = {1, 2, 3, 4, 5, 9, 16, 33, 64};
    for (int c = 0; c < CASES; c++)
        for (int kv = MG_KV_F32; kv <= MG_KV_F16; kv++) {
            struct fixture f = fixture_new(c, (enum mg_kv)kv);
            for (int i = 0; mg_ops_get(i); i++) {
                f.model->ops = mg_ops_get(i);
                for (size_t l = 0; l < sizeof some / sizeof *some; l++)
                    run_schedule(&f, some[l], 1 + (int)(l * 5) % 23, l + 1);
            }
            memory_model_free(f.model);
        }
}

static void test_every_batch_size(void **state) {
    (void)state;
    struct fixture f = fixture_new(0, MG_KV_F32);
    for (int i = 0; mg_ops_get(i); i++) {
        f.model->ops = mg_ops_get(i);
        for (int lanes = 1; lanes <= MAX_LANES; lanes++)
            run_schedule(&f, lanes, 1 + lanes % 3, (uint64_t)lanes);
    }
    memory_model_free(f.model);
}

static void test_blis_any_batch(void **state) {
    (void)state;
    for (int c = 0; c < CASES; c++) {
        struct fixture f = fixture_new(c, MG_KV_F32);
        f.model->ops = mg_ops_choose(MG_KERNELS_BLIS, NULL);
        struct mg_forward *fw = mg_forward_new(f.model, 1, 1, MG_KV_F32, NULL);
        for (int p = 0; p < f.t; p++) /* its own bits, so its own reference */
            for (int s = 0; s < 1; s++) {
                struct mg_span span = {0, p, 1, &f.tokens[s][p], 1};
                f.want[s][p] = hash_logits(f.model, mg_forward_run(fw, &span, 1));
            }
        mg_forward_free(fw);
        fw = mg_forward_new(f.model, 1, MAX_T, MG_KV_F32, NULL);
        for (int n = 1; n <= f.t; n++) {
            struct mg_span span = {0, 0, n, f.tokens[0], 1};
            assert_int_equal(hash_logits(f.model, mg_forward_run(fw, &span, 1)),
                             f.want[0][n - 1]);
        }
        mg_forward_free(fw);
        memory_model_free(f.model);
    }
}

/* A lane can be used again from position 0: nothing of its last job is left, NaN
 * included. */
static void test_lanes_are_used_again(void **state) {
    (void)state;
    struct fixture f = fixture_new(2, MG_KV_F32);
    struct mg_model *m = f.model;
    struct mg_forward *fw = mg_forward_new(m, 1, MAX_T, MG_KV_F32, NULL);
    float *wte =
        malloc((size_t)m->info.vocab_size * (size_t)m->info.n_embd * sizeof *wte);
    const struct mg_matrix good = m->tensors.wte;
    for (int i = 0; i < m->info.vocab_size * m->info.n_embd; i++) wte[i] = 3e38f;
    m->tensors.wte = matrix_of(wte, MG_F32, good.rows, good.cols);
    struct mg_span bad = {0, 0, f.t, f.tokens[1], 1};
    assert_false(isfinite(mg_forward_run(fw, &bad, 1)[0]));
    m->tensors.wte = good;
    for (int p = 0; p < f.t; p++) {
        struct mg_span span = {0, p, 1, &f.tokens[0][p], 1};
        assert_int_equal(hash_logits(m, mg_forward_run(fw, &span, 1)), f.want[0][p]);
    }
    free(wte);
    mg_forward_free(fw);
    memory_model_free(m);
}

static void test_reservation(void **state) {
    (void)state;
    const struct shape s = {100, 128, 4, 4, 256};
    struct mg_model *m = memory_model_new(&s, MG_F16, 1, mg_ops_get(0));
    const size_t one = mg_forward_bytes(m, 1, 96, MG_KV_F32);
    const size_t eight = mg_forward_bytes(m, 8, 96, MG_KV_F32);
    const size_t lane = 2 * 4 * 256 * 128 * sizeof(float);
    assert_in_range(eight - one, 7 * lane, 7 * lane + 7 * 1024);
    assert_in_range(mg_forward_bytes(m, 8, 96, MG_KV_F16), eight - 4 * lane,
                    eight - 4 * lane + 64);
    struct mg_error err = {0};
    m->info.block_size = 1 << 30;
    m->info.n_layer = 1 << 20;
    assert_null(mg_forward_new(m, 1 << 20, 96, MG_KV_F32, &err));
    assert_int_equal(err.code, MG_ENOMEM);
    m->info.n_layer = 4;
    memory_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_batch_any_chunks),
        cmocka_unit_test(test_every_batch_size),
        cmocka_unit_test(test_blis_any_batch),
        cmocka_unit_test(test_lanes_are_used_again),
        cmocka_unit_test(test_reservation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
