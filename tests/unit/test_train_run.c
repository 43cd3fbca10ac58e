/* SPDX-License-Identifier: Apache-2.0
 *
 * A training run that is saved in the middle of a row of its report, and of an epoch, and
 * taken up again ends with the same files; with other threads too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/train/run.h"
#include "../../core/train/state.h"
#include "folder.h"
#include "make_model.h"

enum { STEPS = 40, BREAK = 25 };

static const char corpus[] =
    "anna\notto\nhanna\nlena\nnora\nada\neva\nella\nnina\ntina\nmona\n";

/* 1500 steps: a row every third, so neither BREAK nor STEPS ends one. */
static const struct run_options options = {
    .steps = 1500,
    .warmup_steps = 10,
    .batch_size = 4,
    .n_embd = 16,
    .n_head = 2,
    .n_layer = 1,
    .block_size = 16,
    .lr = 0.01,
    .eval = 0.2,
    .seed = 7,
    .threads = 2,
};

static void advance(struct run *r, int64_t to) {
    while (r->step < to) assert_int_equal(run_step(r), 0);
}

static void compare(const char *a, const char *b) {
    size_t n;
    char **names = folder_list(a, &n);
    assert_int_equal(n, 7);
    for (size_t i = 0; i < n; i++) {
        size_t la, lb;
        char *fa = folder_read(a, names[i], &la), *fb = folder_read(b, names[i], &lb);
        if (la != lb || memcmp(fa, fb, la) != 0) fail_msg("%s differs", names[i]);
        free(fa), free(fb), free(names[i]);
    }
    free(names);
}

static void test_break(void **state) {
    (void)state;
    char *dir = folder_new();
    folder_write(dir, "corpus", corpus, sizeof corpus - 1);
    char *input = folder_path(dir, "corpus"), *whole = folder_path(dir, "whole");
    char *half = folder_path(dir, "half"), *joined = folder_path(dir, "joined");
    struct run r;
    assert_int_equal(run_start(&r, &options, input), 0);
    advance(&r, STEPS);
    assert_true(r.report.count > 0 && r.report.sum > 0);
    assert_int_equal(state_save(&r, whole), 0);
    run_close(&r);

    assert_int_equal(run_start(&r, &options, input), 0);
    advance(&r, BREAK);
    assert_int_equal(state_save(&r, half), 0);
    run_close(&r);

    struct run_options again = {.threads = 1};
    assert_int_equal(state_options(half, &again), 0);
    assert_int_equal(again.steps, options.steps);
    assert_true(again.lr == options.lr && again.eval == options.eval);
    assert_int_equal(state_resume(&r, &again, input, half), 0);
    assert_int_equal(r.step, BREAK);
    advance(&r, STEPS);
    assert_int_equal(state_save(&r, joined), 0);
    run_close(&r);
    compare(whole, joined);
    remove_model(whole), remove_model(half), remove_model(joined);
    free(input);
    remove_model(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_break)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
