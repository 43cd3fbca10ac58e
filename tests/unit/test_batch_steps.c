/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batch_steps.c - the batch step by step: lengths and ends, holds, how a chunk is
 * shared, bad jobs, faults, and the memory it says it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/microgpt.h"
#include "allocfail.h"
#include "make_model.h"

enum { BLOCK = 40, VOCAB = 34, BOS = VOCAB - 1, END_TURN = VOCAB - 2 };

struct fixture {
    char *dir;
    struct mg_model *model;
    struct mg_batch *batch;
};

static struct fixture open_fixture(struct make_model spec, int compat, int lanes,
                                   int chunk) {
    struct fixture f = {.dir = make_model(&spec)};
    struct mg_error err = {0};
    f.model = mg_model_open(f.dir, &(struct mg_model_options){.compat_05 = compat}, &err);
    if (f.model)
        f.batch = mg_batch_new(
            f.model, &(struct mg_batch_options){.lanes = lanes, .chunk = chunk}, &err);
    if (!f.batch) fail_msg("%s", err.text);
    return f;
}

static void close_fixture(struct fixture *f) {
    mg_batch_free(f->batch);
    mg_model_close(f->model);
    remove_model(f->dir);
}

static const struct make_model chat_spec = {
    .vocab_size = VOCAB,
    .n_embd = 12,
    .n_head = 3,
    .n_layer = 1,
    .block_size = BLOCK,
    .chat = 1,
    .std = 0.2,
    .seed = 9,
};

static int32_t some_prompt[BLOCK + 1];

static struct mg_job prompt_job(int n_prompt, uint64_t max_tokens) {
    return (struct mg_job){.prompt = some_prompt,
                           .n_prompt = n_prompt,
                           .sampling = {.temperature = 1},
                           .seed = 3,
                           .max_tokens = max_tokens};
}

static struct mg_job chat_job(const struct mg_model *m, int n_prompt,
                              uint64_t max_tokens) {
    struct mg_job job = prompt_job(n_prompt, max_tokens);
    assert_int_equal(mg_job_chat(m, &job, NULL), 0);
    return job;
}

static struct mg_job text_job(const struct mg_model *m, double temperature) {
    struct mg_job job = {.sampling = {.temperature = temperature}};
    mg_job_text(m, &job);
    return job;
}

static struct mg_output run_job(struct mg_batch *b, struct mg_job job) {
    int lane = mg_batch_admit(b, &job, NULL);
    assert_true(lane >= 0);
    while (mg_batch_step(b) > 0) continue;
    struct mg_output out = *mg_batch_output(b, lane);
    mg_batch_release(b, lane);
    return out;
}

/* ---- lengths ----------------------------------------------------------------------- */

static void test_lengths_of_generate(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 1, 8);
    struct mg_job job = text_job(f.model, 1);
    const uint64_t asked[] = {0, 1, 2, BLOCK, BLOCK + 1, UINT64_MAX};
    const int limit[] = {BLOCK, 1, 2, BLOCK, BLOCK, BLOCK};
    int lengths = 0, stops = 0;
    for (size_t i = 0; i < sizeof limit / sizeof *limit; i++) {
        for (job.seed = 0; job.seed < 200; job.seed++) {
            job.max_tokens = asked[i];
            struct mg_output out = run_job(f.batch, job);
            lengths += out.finish == MG_LENGTH;
            stops += out.finish == MG_STOP;
            assert_true(out.finish == MG_LENGTH ? out.n_generated == limit[i]
                                                : out.n_generated < limit[i]);
            assert_int_equal(out.n_prompt, 1);
            assert_int_equal(out.n_prefilled, 1);
        }
    }
    assert_true(lengths > 0 && stops > 0);
    assert_int_equal(lengths + stops, 1200);
    close_fixture(&f);
}

/* Longest replies of many seeds: the room that is left, and one more in compat. */
static void check_room(int compat, int n_prompt, uint64_t asked, int limit) {
    struct fixture f = open_fixture(chat_spec, compat, 1, 8);
    struct mg_job job = chat_job(f.model, n_prompt, asked);
    int longest = 0;
    for (job.seed = 1; job.seed < 200; job.seed++) {
        struct mg_output out = run_job(f.batch, job);
        assert_true(out.n_generated <= limit);
        assert_int_equal(out.finish == MG_LENGTH, out.n_generated == limit);
        assert_true(compat || out.n_generated > 0); /* the first token never ends a
                                                       reply */
        longest = out.n_generated > longest ? out.n_generated : longest;
    }
    assert_int_equal(longest, limit);
    close_fixture(&f);
}

static void test_lengths_of_chat(void **state) {
    (void)state;
    check_room(0, BLOCK - 1, 0, 1);
    check_room(0, BLOCK - 3, 0, 3);
    check_room(0, BLOCK - 3, 2, 2);
    check_room(0, BLOCK - 3, UINT64_MAX, 3);
    check_room(1, BLOCK, 0, 1);
    check_room(1, BLOCK - 3, 0, 4);
    check_room(1, BLOCK - 3, 4, 4);
    check_room(1, BLOCK - 3, 3, 3);
}

/* A model whose every logit is equal draws all tokens alike: count what comes. */
static void test_suppression(void **state) {
    (void)state;
    uint32_t chars[4] = {'a', 'b', 'c', 'd'};
    struct make_model spec = {.vocab_size = 8,
                              .n_embd = 2,
                              .n_head = 1,
                              .n_layer = 1,
                              .block_size = BLOCK,
                              .chat = 1,
                              .std = 1e-9,
                              .chars = chars};
    for (int compat = 0; compat < 2; compat++) {
        struct fixture f = open_fixture(spec, compat, 1, 8);
        memset(some_prompt, 0, sizeof some_prompt);
        struct mg_job job = chat_job(f.model, 5, 0);
        int empty = 0, specials = 0, stopped = 0;
        for (int i = 0; i < 400; i++) {
            job.seed += 0x9E3779B97F4A7C15u; /* compat does not mix seeds */
            struct mg_output out = run_job(f.batch, job);
            empty += out.n_generated == 0;
            specials += (size_t)out.n_generated - out.len > 0;
            stopped += out.finish == MG_STOP;
        }
        assert_true(stopped > 390); /* 1/8 or 1/5 a token, up to 35 of them */
        assert_int_equal(empty > 0, compat);
        assert_int_equal(specials > 0, compat);
        close_fixture(&f);
    }
}

/* ---- steps ------------------------------------------------------------------------- */

static void test_held_lane_waits(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 2, 4);
    struct mg_job job = chat_job(f.model, 9, 0);
    job.sampling.temperature = 0;
    int a = mg_batch_admit(f.batch, &job, NULL), b = mg_batch_admit(f.batch, &job, NULL);
    mg_batch_hold(f.batch, a, 1);
    while (mg_batch_step(f.batch) > 0)
        assert_int_equal(mg_batch_output(f.batch, a)->n_prefilled, 0);
    assert_int_equal(mg_batch_output(f.batch, a)->finish, MG_RUNNING);
    assert_int_not_equal(mg_batch_output(f.batch, b)->finish, MG_RUNNING);
    mg_batch_hold(f.batch, a, 0);
    while (mg_batch_step(f.batch) > 0) continue;
    const struct mg_output *x = mg_batch_output(f.batch, a),
                           *y = mg_batch_output(f.batch, b);
    assert_int_equal(x->finish, y->finish);
    assert_int_equal(x->len, y->len);
    assert_memory_equal(x->text, y->text, x->len);
    close_fixture(&f);
}

/* Admit prompts of these lengths, step once: so many tokens of each must be computed. */
static void check_shares(int chunk, int n, const int *prompts, const int *shares) {
    struct fixture f = open_fixture(chat_spec, 0, n, chunk);
    int lane[8];
    for (int i = 0; i < n; i++) {
        struct mg_job job = chat_job(f.model, prompts[i], 0);
        lane[i] = mg_batch_admit(f.batch, &job, NULL);
    }
    assert_int_equal(mg_batch_step(f.batch), n);
    for (int i = 0; i < n; i++)
        assert_int_equal(mg_batch_output(f.batch, lane[i])->n_prefilled, shares[i]);
    close_fixture(&f);
}

static void test_chunk_is_shared(void **state) {
    (void)state;
    check_shares(8, 1, (int[]){30}, (int[]){8});
    check_shares(8, 1, (int[]){5}, (int[]){5});
    check_shares(8, 2, (int[]){30, 3}, (int[]){5, 3}); /* what one leaves, the oldest
                                                          takes */
    check_shares(8, 2, (int[]){3, 30}, (int[]){3, 5});
    check_shares(9, 2, (int[]){30, 30}, (int[]){5, 4});
    check_shares(8, 3, (int[]){30, 30, 30}, (int[]){4, 2, 2});
    check_shares(2, 4, (int[]){9, 9, 9, 9}, (int[]){1, 1, 1, 1}); /* nobody is kept out */
    check_shares(8, 3, (int[]){1, 30, 1}, (int[]){1, 8, 1});      /* single tokens take no
                                                                share */
    check_shares(8, 4, (int[]){2, 30, 2, 30}, (int[]){2, 2, 2, 2});
    check_shares(100, 3, (int[]){30, 20, 10}, (int[]){30, 20, 10});
}

static void test_lanes_are_used_again(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 3, 8);
    struct mg_job job = chat_job(f.model, 3, 0);
    struct mg_error err = {0};
    for (int round = 0; round < 3; round++) {
        int lane[3], seen = 0;
        for (int i = 0; i < 3; i++) {
            lane[i] = mg_batch_admit(f.batch, &job, NULL);
            seen |= 1 << lane[i];
        }
        assert_int_equal(seen, 7);
        assert_int_equal(mg_batch_admit(f.batch, &job, &err), -1);
        assert_string_equal(err.text, "all 3 lanes are taken");
        mg_batch_step(f.batch);
        for (int i = 0; i < 3; i++) mg_batch_release(f.batch, lane[i]);
        assert_int_equal(mg_batch_step(f.batch), 0);
    }
    close_fixture(&f);
}

/* ---- what is refused --------------------------------------------------------------- */

static void check_refused(struct mg_batch *b, struct mg_job job, const char *text) {
    struct mg_error err = {0};
    assert_int_equal(mg_batch_admit(b, &job, &err), -1);
    assert_int_equal(err.code, MG_EINPUT);
    assert_string_equal(err.text, text);
    assert_int_equal(mg_batch_step(b), 0);
}

/* A chat of n prompt tokens, refused when it is laid out or when it is admitted. */
static void check_chat_refused(struct fixture *f, int n_prompt, const char *text) {
    struct mg_error err = {0};
    struct mg_job job = prompt_job(n_prompt, 0);
    if (!mg_job_chat(f->model, &job, &err)) {
        check_refused(f->batch, job, text);
        return;
    }
    assert_int_equal(err.code, MG_EINPUT);
    assert_string_equal(err.text, text);
}

static void test_bad_jobs(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 1, 8);
    const double bad[] = {-1, -1e-300, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_refused(f.batch, text_job(f.model, bad[i]),
                      "temperature must be a finite number >= 0");
    }
    check_chat_refused(&f, 0, "a prompt of 0 tokens: 1 to 39 are possible");
    check_chat_refused(&f, 40, "a prompt of 40 tokens: 1 to 39 are possible");
    some_prompt[2] = VOCAB;
    check_chat_refused(&f, 5, "prompt token 2 is 34: 0 to 33 are possible");
    some_prompt[2] = -1;
    check_chat_refused(&f, 5, "prompt token 2 is -1: 0 to 33 are possible");
    some_prompt[2] = 0;
    struct mg_job job = chat_job(f.model, 5, 0);
    job.suppress_first = VOCAB;
    check_refused(f.batch, job, "suppressed token 0 is 34: 0 to 33 are possible");
    job = chat_job(f.model, 5, 0);
    job.suppress[1] = -1;
    check_refused(f.batch, job, "suppressed token 1 is -1: 0 to 33 are possible");
    job.n_suppress = 5;
    check_refused(f.batch, job, "5 suppressed tokens of 34");
    job = text_job(f.model, 1);
    job.n_prompt = BLOCK + 1;
    check_refused(f.batch, job, "a prompt of 41 tokens: 1 to 40 are possible");
    close_fixture(&f);

    struct make_model plain = chat_spec;
    plain.chat = 0;
    f = open_fixture(plain, 0, 1, 8);
    check_chat_refused(&f, 5, "model was not trained with chat tokens");
    close_fixture(&f);
}

static void test_bad_options(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 1, 8);
    const int bad[][2] = {{0, 8}, {-1, 8}, {1, 0}, {1, -5}, {INT32_MAX, INT32_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mg_error err = {0};
        struct mg_batch_options o = {.lanes = bad[i][0], .chunk = bad[i][1]};
        assert_null(mg_batch_new(f.model, &o, &err));
        assert_int_equal(err.code, MG_EINPUT);
    }
    close_fixture(&f);
}

/* Weights so large that the logits overflow: the lane ends at once and says so. */
static void test_fault_ends_the_lane(void **state) {
    (void)state;
    struct make_model spec = chat_spec;
    spec.std = 1e18;
    struct fixture f = open_fixture(spec, 0, 2, 8);
    struct mg_output out = run_job(f.batch, chat_job(f.model, 5, 0));
    assert_int_equal(out.finish, MG_FAULT);
    assert_int_equal(out.len, 0);
    out = run_job(f.batch, text_job(f.model, 0));
    assert_int_equal(out.finish, MG_FAULT);
    close_fixture(&f);
}

/* ---- memory ------------------------------------------------------------------------ */

static size_t read_statm(int field) {
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages[2] = {0};
    assert_int_equal(fscanf(f, "%lu %lu", &pages[0], &pages[1]), 2);
    fclose(f);
    return pages[field] * (size_t)sysconf(_SC_PAGESIZE);
}

static void test_memory_is_as_said_and_untouched(void **state) {
    (void)state;
    struct make_model spec = chat_spec;
    spec.block_size = 4096;
    spec.n_embd = 96;
    struct fixture f = open_fixture(spec, 0, 1, 8);
    struct mg_batch_options o = {.lanes = 256, .chunk = 96};
    size_t said = mg_batch_bytes(f.model, &o), size = read_statm(0), used = read_statm(1);
    assert_true(said > 256 * mg_lane_bytes(f.model, MG_KV_F32));
    assert_true(mg_lane_bytes(f.model, MG_KV_F32) == 2u * 4096 * 96 * 4);
    assert_true(mg_lane_bytes(f.model, MG_KV_F16) == 2u * 4096 * 96 * 2);
    struct mg_batch *b = mg_batch_new(f.model, &o, NULL);
    assert_non_null(b);
    size_t grown = read_statm(0) - size, touched = read_statm(1) - used;
    print_message("said %zu KiB, reserved %zu KiB, touched %zu KiB\n", said >> 10,
                  grown >> 10, touched >> 10);
    assert_true(grown >= said && grown - said < 8u << 20); /* a sanitizer adds a little */
    assert_true(touched < 8u << 20);
    mg_batch_free(b);
    close_fixture(&f);
}

static void test_every_allocation_fails_once(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 1, 8);
    struct mg_batch_options o = {.lanes = 4, .chunk = 8};
    long n = 1;
    for (;; n++) {
        struct mg_error err = {0};
        allocfail_arm(n);
        struct mg_batch *b = mg_batch_new(f.model, &o, &err);
        int failed = allocfail_disarm();
        if (!failed) {
            assert_non_null(b);
            mg_batch_free(b);
            break;
        }
        assert_null(b);
        assert_int_equal(err.code, MG_ENOMEM);
        assert_true(strlen(err.text) > 0);
    }
    assert_true(n > 1);
    close_fixture(&f);
}

static void test_nothing_is_allocated_after_new(void **state) {
    (void)state;
    struct fixture f = open_fixture(chat_spec, 0, 4, 8);
    const struct mg_message message = {MG_USER, "hello", 5};
    uint64_t dropped;
    struct mg_prompt *prompt = mg_prompt_new(f.model, NULL);
    struct mg_job job = prompt_job(0, 0);
    allocfail_arm(0);
    assert_int_equal(mg_prompt_begin(prompt, &message, 1, NULL), 0);
    while (mg_prompt_advance(prompt, 2, NULL) == 1) continue;
    job.prompt = mg_prompt_tokens(prompt, &job.n_prompt, &dropped);
    assert_int_equal(mg_job_chat(f.model, &job, NULL), 0);
    for (int i = 0; i < 20; i++) {
        job.seed = (uint64_t)i;
        int lane = mg_batch_admit(f.batch, &job, NULL);
        while (mg_batch_step(f.batch) > 0) continue;
        mg_batch_release(f.batch, lane);
    }
    allocfail_disarm();
    assert_int_equal(allocfail_count(), 0);
    mg_prompt_free(prompt);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths_of_generate),
        cmocka_unit_test(test_lengths_of_chat),
        cmocka_unit_test(test_suppression),
        cmocka_unit_test(test_held_lane_waits),
        cmocka_unit_test(test_chunk_is_shared),
        cmocka_unit_test(test_lanes_are_used_again),
        cmocka_unit_test(test_bad_jobs),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_fault_ends_the_lane),
        cmocka_unit_test(test_memory_is_as_said_and_untouched),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_nothing_is_allocated_after_new),
    };
    return cmocka_run_group_tests_name("batch steps", tests, NULL, NULL);
}
