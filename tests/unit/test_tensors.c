/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tensors.c - the table of tensors against a list written by hand: names, shapes,
 * where each stands in one array of all, and that every place of a model is given once.
 * */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/tensors.h"

static const struct mg_sizes sizes = {
    .vocab_size = 7, .n_embd = 6, .n_head = 2, .n_layer = 2, .block_size = 5};

static const struct {
    const char *name;
    int rows, cols;
} want[] = {
    {"wte", 7, 6},
    {"wpe", 5, 6},
    {"lm_head", 7, 6},
    {"layer0.attn_wq", 6, 6},
    {"layer0.attn_wk", 6, 6},
    {"layer0.attn_wv", 6, 6},
    {"layer0.attn_wo", 6, 6},
    {"layer0.mlp_fc1", 24, 6},
    {"layer0.mlp_fc2", 6, 24},
    {"layer1.attn_wq", 6, 6},
    {"layer1.attn_wk", 6, 6},
    {"layer1.attn_wv", 6, 6},
    {"layer1.attn_wo", 6, 6},
    {"layer1.mlp_fc1", 24, 6},
    {"layer1.mlp_fc2", 6, 24},
};
enum { N = sizeof want / sizeof *want };

static void test_table(void **state) {
    (void)state;
    size_t at = 0;
    assert_int_equal(mg_tensor_count(&sizes), N);
    for (int i = 0; i < N; i++) {
        struct mg_tensor t = mg_tensor_describe(&sizes, i);
        assert_string_equal(t.name, want[i].name);
        assert_int_equal(t.rows, want[i].rows);
        assert_int_equal(t.cols, want[i].cols);
        assert_int_equal(t.at, at);
        at += (size_t)t.rows * (size_t)t.cols;
    }
    assert_int_equal(mg_tensor_elements(&sizes), at);
}

static void test_find(void **state) {
    (void)state;
    static const char *const none[] = {"",
                                       "wt",
                                       "wtee",
                                       "Wte",
                                       "layer",
                                       "layer0",
                                       "layer0.",
                                       "layer.attn_wq",
                                       "layer-1.attn_wq",
                                       "layer00.attn_wq",
                                       "layer01.attn_wq",
                                       "layer0 .attn_wq",
                                       "layer0.attn_wq2",
                                       "layer0.wte",
                                       "layer4096.attn_wq",
                                       "layer99999999999999999999.attn_wq"};
    for (int i = 0; i < N; i++) assert_int_equal(mg_tensor_find(want[i].name), i);
    assert_int_equal(mg_tensor_find("layer4095.mlp_fc2"), 3 + 6 * 4096 - 1);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(mg_tensor_find(none[i]), -1);
}

static void test_places(void **state) {
    (void)state;
    struct mg_layer layer[2] = {0};
    struct mg_tensors all = {.layer = layer};
    for (int i = 0; i < N; i++) mg_tensor_place(&all, i)->rows = i + 1;
    const int got[] = {
        all.wte.rows,      all.wpe.rows,      all.lm_head.rows,  layer[0].wq.rows,
        layer[0].wk.rows,  layer[0].wv.rows,  layer[0].wo.rows,  layer[0].fc1.rows,
        layer[0].fc2.rows, layer[1].wq.rows,  layer[1].wk.rows,  layer[1].wv.rows,
        layer[1].wo.rows,  layer[1].fc1.rows, layer[1].fc2.rows,
    };
    for (int i = 0; i < N; i++) assert_int_equal(got[i], i + 1);
}

/* The largest model that meta.json may describe: no offset wraps, the name fits. */
static void test_largest(void **state) {
    (void)state;
    const struct mg_sizes most = {
        .vocab_size = 0x110004, .n_embd = 1 << 16, .n_layer = 1 << 12, .block_size = 1};
    struct mg_tensor t = mg_tensor_describe(&most, mg_tensor_count(&most) - 1);
    assert_string_equal(t.name, "layer4095.mlp_fc2");
    assert_int_equal(t.at + ((uint64_t)4 << 32), mg_tensor_elements(&most));
    assert_int_equal(mg_tensor_elements(&most),
                     ((2 * (uint64_t)0x110004 + 1) << 16) + ((uint64_t)12 << 32 << 12));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_largest),
    };
    return cmocka_run_group_tests_name("tensors", tests, NULL, NULL);
}
