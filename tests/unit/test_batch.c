/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batch.c - what a lane produces depends on its own job alone. Every job is run by
 * itself first; then all of them in random company, at random lanes, with random holds
 * and cancelled neighbours, over batch sizes, chunks, instruction sets and both kinds of
 * KV cache. Bytes are compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/model.h"
#include "../../core/ops.h"
#include "make_model.h"

enum { N_JOBS = 40, BLOCK = 48, MAX_LANES = 64, TEXT_CAP = 4 * BLOCK + 8 };

struct reply {
    char text[TEXT_CAP];
    size_t len;
    int n_generated;
    enum mg_finish finish;
};

struct work {
    struct mg_model *model;
    char *dir;
    struct mg_job job[N_JOBS];
    int32_t prompt[N_JOBS][BLOCK];
    struct reply alone[N_JOBS];
};

/* ---- jobs -------------------------------------------------------------------------- */

/* Half of the prompts are chat, of any length that leaves room, a quarter texts that go
 * on, a quarter begin; the tokens are any. */
static void make_job(struct work *w, int i, uint64_t *random) {
    const struct mg_model_info *info = mg_model_info(w->model);
    static const double temperatures[] = {0, 0.3, 0.5, 1, 3};
    struct mg_job job = {
        .prompt = w->prompt[i],
        .n_prompt = random_int(random, 1, BLOCK - 1),
        .sampling = {.temperature = temperatures[random_int(random, 0, 4)]},
        .seed = random_u64(random),
        .max_tokens = i % 3 ? 0 : (uint64_t)random_int(random, 1, BLOCK),
    };
    for (int k = 0; k < job.n_prompt; k++)
        w->prompt[i][k] = random_int(random, 0, info->vocab_size - 1);
    if (i % 4 == 0) job.prompt = NULL; /* from bos */
    if (info->has_chat && i % 2)
        assert_int_equal(mg_job_chat(w->model, &job, NULL), 0);
    else
        mg_job_text(w->model, &job);
    w->job[i] = job;
}

static void copy_reply(struct reply *r, const struct mg_output *out) {
    assert_true(out->len <= sizeof r->text);
    *r = (struct reply){
        .len = out->len, .n_generated = out->n_generated, .finish = out->finish};
    memcpy(r->text, out->text, out->len);
}

static struct mg_batch *new_batch(const struct mg_model *model, int lanes, int chunk,
                                  enum mg_kv kv) {
    struct mg_error err = {0};
    struct mg_batch *b = mg_batch_new(
        model, &(struct mg_batch_options){.lanes = lanes, .chunk = chunk, .kv = kv},
        &err);
    if (!b) fail_msg("%s", err.text);
    return b;
}

static void run_alone(struct work *w, enum mg_kv kv) {
    struct mg_batch *b = new_batch(w->model, 1, BLOCK, kv);
    for (int i = 0; i < N_JOBS; i++) {
        int lane = mg_batch_admit(b, &w->job[i], NULL);
        assert_int_equal(lane, 0);
        while (mg_batch_step(b) > 0) continue;
        copy_reply(&w->alone[i], mg_batch_output(b, lane));
        mg_batch_release(b, lane);
    }
    mg_batch_free(b);
}

static void open_work(struct work *w, int chat, enum make_dtype dtype, int n_embd,
                      int n_head) {
    struct make_model spec = {.vocab_size = chat ? 44 : 30,
                              .n_embd = n_embd,
                              .n_head = n_head,
                              .n_layer = 2,
                              .block_size = BLOCK,
                              .chat = chat,
                              .dtype = dtype,
                              .std = 0.2,
                              .seed = 5};
    uint64_t random = 11;
    *w = (struct work){.dir = make_model(&spec)};
    struct mg_error err = {0};
    w->model = mg_model_open(w->dir, NULL, &err);
    if (!w->model) fail_msg("%s", err.text);
    for (int i = 0; i < N_JOBS; i++) make_job(w, i, &random);
}

static void close_work(struct work *w) {
    mg_model_close(w->model);
    remove_model(w->dir);
}

/* ---- random company ---------------------------------------------------------------- */

/* The state of a run as the test knows it; the batch must agree. */
struct mix {
    struct work *w;
    struct mg_batch *b;
    uint64_t random;
    int lanes;
    int job_at[MAX_LANES]; /* -1: the lane is free */
    int held[MAX_LANES];
    size_t seen[MAX_LANES]; /* bytes that were visible */
    int done[N_JOBS];
    int n_done, n_used;
};

static int find_waiting(struct mix *m) {
    int start = random_int(&m->random, 0, N_JOBS - 1);
    for (int i = 0; i < N_JOBS; i++) {
        int job = (start + i) % N_JOBS, taken = m->done[job];
        for (int lane = 0; lane < m->lanes; lane++) taken |= m->job_at[lane] == job;
        if (!taken) return job;
    }
    return -1;
}

static void admit_one(struct mix *m) {
    int job = find_waiting(m);
    if (job < 0) return;
    struct mg_job copy = m->w->job[job];
    size_t bytes = (size_t)copy.n_prompt * sizeof *copy.prompt;
    copy.prompt = memcpy(malloc(bytes), copy.prompt, bytes);
    int lane = mg_batch_admit(m->b, &copy, NULL);
    free((void *)copy.prompt); /* the batch has its own */
    if (m->n_used == m->lanes) {
        assert_int_equal(lane, -1);
        return;
    }
    assert_in_range(lane, 0, m->lanes - 1);
    assert_int_equal(m->job_at[lane], -1);
    m->job_at[lane] = job;
    m->held[lane] = 0;
    m->seen[lane] = 0;
    m->n_used++;
}

static void release_one(struct mix *m, int lane) {
    mg_batch_release(m->b, lane);
    m->job_at[lane] = -1;
    m->n_used--;
}

static void check_lane(struct mix *m, int lane) {
    int job = m->job_at[lane];
    const struct reply *want = &m->w->alone[job];
    const struct mg_output *out = mg_batch_output(m->b, lane);
    assert_true(out->len >= m->seen[lane]); /* grows only, along the final text */
    assert_true(out->len <= want->len);
    assert_memory_equal(out->text, want->text, out->len);
    m->seen[lane] = out->len;
    if (out->finish == MG_RUNNING) return;
    assert_int_equal(out->finish, want->finish);
    assert_int_equal(out->n_generated, want->n_generated);
    assert_int_equal(out->len, want->len);
    m->n_done += !m->done[job];
    m->done[job] = 1;
    release_one(m, lane);
}

static void step_all(struct mix *m) {
    int expected = 0;
    for (int lane = 0; lane < m->lanes; lane++)
        expected += m->job_at[lane] >= 0 && !m->held[lane];
    assert_int_equal(mg_batch_step(m->b), expected);
    for (int lane = 0; lane < m->lanes; lane++)
        if (m->job_at[lane] >= 0) check_lane(m, lane);
}

static void touch_random_lane(struct mix *m, int action) {
    int lane = random_int(&m->random, 0, m->lanes - 1);
    if (m->job_at[lane] < 0) {
        mg_batch_hold(m->b, lane, 1); /* free lanes: no effect */
        mg_batch_release(m->b, lane);
        assert_null(mg_batch_output(m->b, lane));
    } else if (action == 0) {
        release_one(m, lane); /* cancelled: the job waits again */
    } else {
        m->held[lane] = !m->held[lane];
        mg_batch_hold(m->b, lane, m->held[lane]);
    }
}

static void run_mixed(struct work *w, int lanes, int chunk, enum mg_kv kv,
                      uint64_t seed) {
    struct mix m = {.w = w,
                    .b = new_batch(w->model, lanes, chunk, kv),
                    .random = seed,
                    .lanes = lanes};
    memset(m.job_at, 0xFF, sizeof m.job_at);
    while (m.n_done < N_JOBS) {
        int dice = random_int(&m.random, 0, 99);
        if (dice < 35)
            admit_one(&m);
        else if (dice < 37)
            touch_random_lane(&m, 0);
        else if (dice < 45)
            touch_random_lane(&m, 1);
        else
            step_all(&m);
    }
    mg_batch_free(m.b);
}

static void run_all_mixes(struct work *w, enum mg_kv kv, int rounds, uint64_t seed) {
    static const int lanes[] = {1, 2, 3, 5, 8, 16, 33, MAX_LANES};
    static const int chunks[] = {1, 2, 3, 7, 16, 31, BLOCK, 1000};
    for (int i = 0; i < rounds; i++)
        run_mixed(w, lanes[random_int(&seed, 0, 7)], chunks[i % 8], kv,
                  random_u64(&seed));
}

static void check_model(int chat, enum make_dtype dtype, int n_embd, int n_head,
                        int rounds) {
    struct work w;
    open_work(&w, chat, dtype, n_embd, n_head);
    for (int kv = MG_KV_F32; kv <= MG_KV_F16; kv++) {
        run_alone(&w, (enum mg_kv)kv);
        run_all_mixes(&w, (enum mg_kv)kv, rounds, (uint64_t)kv + 100);
    }
    close_work(&w);
}

static void test_same_in_any_company(void **state) {
    (void)state;
    check_model(1, MAKE_F32, 24, 3, 16);
    check_model(1, MAKE_F16, 32, 4, 8);
    check_model(0, MAKE_BF16, 15, 15, 8);
    check_model(1, MAKE_MIXED, 35, 5, 8);
}

static void test_same_on_every_instruction_set(void **state) {
    (void)state;
    for (int kv = MG_KV_F32; kv <= MG_KV_F16; kv++) {
        struct work w;
        open_work(&w, 1, MAKE_MIXED, 35, 5);
        run_alone(&w, (enum mg_kv)kv);
        int n = 0;
        for (const struct mg_ops *ops; (ops = mg_ops_get(n)); n++) {
            w.model->ops = ops;
            run_all_mixes(&w, (enum mg_kv)kv, 4, 200);
        }
        print_message("same bytes from %d instruction sets\n", n);
        assert_true(n > 0);
        close_work(&w);
    }
}

static void test_fifty_samples_are_fifty_singles(void **state) {
    (void)state;
    struct work w;
    open_work(&w, 0, MAKE_F32, 16, 4);
    struct mg_batch *one = new_batch(w.model, 1, 96, MG_KV_F32);
    struct mg_batch *fifty = new_batch(w.model, 50, 96, MG_KV_F32);
    struct mg_job job = {.sampling = {.temperature = 0.7}, .seed = UINT64_MAX - 20};
    mg_job_text(w.model, &job);
    for (int i = 0; i < 50; i++, job.seed++) /* wraps on the way */
        assert_int_equal(mg_batch_admit(fifty, &job, NULL), i);
    while (mg_batch_step(fifty) > 0) continue;
    job.seed = UINT64_MAX - 20;
    for (int i = 0; i < 50; i++, job.seed++) {
        mg_batch_admit(one, &job, NULL);
        while (mg_batch_step(one) > 0) continue;
        const struct mg_output *a = mg_batch_output(one, 0),
                               *b = mg_batch_output(fifty, i);
        assert_int_equal(a->len, b->len);
        assert_memory_equal(a->text, b->text, a->len);
        mg_batch_release(one, 0);
    }
    mg_batch_free(one);
    mg_batch_free(fifty);
    close_work(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_in_any_company),
        cmocka_unit_test(test_same_on_every_instruction_set),
        cmocka_unit_test(test_fifty_samples_are_fifty_singles),
    };
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
