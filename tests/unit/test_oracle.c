/* SPDX-License-Identifier: Apache-2.0
 *
 * test_oracle.c - logits of core against the double oracle, within 1e-4 absolute + 1e-4
 * relative (microgpt-api(7), "Arithmetic"), over random checkpoints of every shape and
 * dtype. Prompts are fed in chunks, so prefill and decode are both compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../core/forward.h"
#include "../../core/ops.h"
#include "make_model.h"
#include "oracle.h"

enum { MAX_TOKENS = 1024 };

struct shape {
    int vocab, n_embd, n_head, n_layer, block, tokens;
    double std; /* 0: 0.2 */
};

/* The corners that matter; random shapes follow. tokens: positions compared. */
static const struct shape shapes[] = {
    {27, 16, 4, 1, 16, 16, 0},   /* names */
    {2, 1, 1, 1, 1, 1, 0},       /* the smallest there is */
    {2, 8, 8, 1, 3, 3, 0},       /* head_dim 1 */
    {33, 40, 40, 1, 9, 9, 0},    /* n_head = n_embd */
    {19, 15, 5, 2, 7, 7, 0},     /* head_dim 3 */
    {50, 35, 7, 3, 33, 33, 0},   /* head_dim 5, odd everywhere */
    {64, 60, 3, 2, 40, 40, 0},   /* head_dim 20 */
    {100, 128, 2, 2, 50, 50, 0}, /* head_dim 64 */
    /* The chat demo. At 0.2 its scores and logits grow so large that an arithmetic which
     * does nothing but store floats uses half of what is allowed. */
    {100, 128, 4, 4, 256, 96, 0.15},
    {5000, 33, 3, 1, 12, 12, 0},
    {40, 24, 2, 1, 1024, 1024, 0},
    {30, 17, 17, 5, 20, 20, 0},
    {30, 100, 1, 1, 20, 20, 0}, /* one head of 100 */
};

static double worst; /* largest error, in units of what is allowed */

static void compare_logits(const float *got, const double *want, int n,
                           const char *what) {
    for (int i = 0; i < n; i++) {
        double error = fabs(got[i] - want[i]) / (1e-4 + 1e-4 * fabs(want[i]));
        worst = error > worst ? error : worst;
        if (!(error <= 1))
            fail_msg("%s: logit %d is %.9g, the oracle says %.9g", what, i,
                     (double)got[i], want[i]);
    }
}

/* Feed the same random tokens to both: core in chunks of at most max_chunk. */
static void compare_run(const struct mg_model *model, struct oracle *oracle, int tokens,
                        int max_chunk, uint64_t *random, const char *what) {
    struct mg_error err = {0};
    struct mg_forward *f = mg_forward_new(model, 2, max_chunk, MG_KV_F32, &err);
    if (!f) fail_msg("%s: %s", what, err.text);
    int32_t ids[MAX_TOKENS];
    for (int i = 0; i < tokens; i++)
        ids[i] = random_int(random, 0, oracle->vocab_size - 1);
    oracle_reset(oracle);
    for (int pos = 0; pos < tokens;) {
        int n = random_int(random, 1, max_chunk);
        n = n < tokens - pos ? n : tokens - pos;
        struct mg_span span = {
            .lane = 1, .pos = pos, .n = n, .tokens = ids + pos, .want_logits = 1};
        const float *got = mg_forward_run(f, &span, 1);
        const double *want = NULL;
        for (int i = 0; i < n; i++) want = oracle_feed(oracle, ids[pos + i]);
        compare_logits(got, want, oracle->vocab_size, what);
        pos += n;
    }
    mg_forward_free(f);
}

static void compare_shape(const struct shape *s, enum make_dtype dtype, double std,
                          uint64_t *random) {
    struct make_model spec = {
        .vocab_size = s->vocab,
        .n_embd = s->n_embd,
        .n_head = s->n_head,
        .n_layer = s->n_layer,
        .block_size = s->block,
        .dtype = dtype,
        .std = std,
        .seed = random_u64(random),
        .pad = random_int(random, 0, 3),
    };
    char what[128];
    snprintf(what, sizeof what, "vocab %d, %d/%d/%d/%d, dtype %d, std %g", s->vocab,
             s->n_embd, s->n_head, s->n_layer, s->block, (int)dtype, std);
    char *dir = make_model(&spec);
    struct mg_error err = {0};
    struct mg_model *model = mg_model_open(dir, NULL, &err);
    if (!model) fail_msg("%s: %s", what, err.text);
    struct oracle *oracle = oracle_open(dir);
    compare_run(model, oracle, s->tokens, 1, random, what);
    compare_run(model, oracle, s->tokens, random_int(random, 2, 40), random, what);
    oracle_close(oracle);
    mg_model_close(model);
    remove_model(dir);
}

static void test_chosen_shapes_all_dtypes(void **state) {
    (void)state;
    uint64_t random = 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int dtype = MAKE_F32; dtype <= MAKE_MIXED; dtype++)
            compare_shape(&shapes[i], (enum make_dtype)dtype,
                          shapes[i].std > 0 ? shapes[i].std : 0.2, &random);
    print_message("chosen shapes: largest error %.3f of what is allowed\n", worst);
}

static void test_random_shapes(void **state) {
    (void)state;
    uint64_t random = 2;
    worst = 0;
    for (int i = 0; i < 120; i++) {
        int n_head = random_int(&random, 1, 9), dim = random_int(&random, 1, 24);
        int block = random_int(&random, 1, 60);
        struct shape s = {random_int(&random, 2, 300),
                          n_head * dim,
                          n_head,
                          random_int(&random, 1, 4),
                          block,
                          block,
                          0};
        double std = 0.02 + 0.18 * (double)random_int(&random, 0, 100) / 100;
        compare_shape(&s, (enum make_dtype)random_int(&random, 0, 3), std, &random);
    }
    print_message("random shapes: largest error %.3f of what is allowed\n", worst);
}

/* The oracle itself, where the answer can be seen: with all weights 0 but wte and
 * lm_head, the logits are lm_head times the normalized embedding. */
static void test_oracle_by_hand(void **state) {
    (void)state;
    struct make_model spec = {.vocab_size = 2,
                              .n_embd = 2,
                              .n_head = 1,
                              .n_layer = 1,
                              .block_size = 2,
                              .seed = 3};
    char *dir = make_model(&spec);
    struct oracle *o = oracle_open(dir);
    for (int i = 0; i < o->n_tensors; i++)
        for (int k = 0; k < o->tensors[i].rows * o->tensors[i].cols; k++)
            o->tensors[i].data[k] = 0;
    double *wte = oracle_find(o, "wte")->data, *head = oracle_find(o, "lm_head")->data;
    wte[2] = 3, wte[3] = 4; /* token 1 */
    head[0] = 1, head[3] = 10;
    const double *logits = oracle_feed(o, 1);
    double scale = 1 / sqrt(12.5 + 1e-5);
    assert_true(fabs(logits[0] - 3 * scale) < 1e-12);
    assert_true(fabs(logits[1] - 40 * scale) < 1e-12);
    oracle_close(o);
    remove_model(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_by_hand),
        cmocka_unit_test(test_chosen_shapes_all_dtypes),
        cmocka_unit_test(test_random_shapes),
    };
    return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
