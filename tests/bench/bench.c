/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.c - measures whole tokens and prints one JSON object a line; run.py makes the
 * table.
 *
 *   bench peak                        this core's FMA peak
 *   bench open DIR                    opening a checkpoint, validation included
 *   bench decode DIR KV ENGINE BATCH short|half
 *   bench prefill DIR KV ENGINE TOKENS CHUNK
 *   bench linear DIR ENGINE ROWS      the products of a token alone
 *   bench kv DIR                      how far an f16 cache moves the logits
 *   bench plain DIR                   the plain double forward pass of the tests
 *   bench count DIR KV ENGINE BATCH STEPS   nothing but so many steps, for callgrind
 *
 * KV is f32 or f16; ENGINE is blis or the name of an instruction set. A token is what a
 * worker does for it: the forward pass and one draw of the sampler. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/forward.h"
#include "../../core/ops.h"
#include "../../core/sampler.h"
#include "../unit/oracle.h"
#include "peak.h"

enum { REPEAT = 7, SHORT_STEPS = 32, HALF_STEPS = 16 };

struct bench {
    struct mg_model *model;
    struct mg_forward *forward;
    enum mg_kv kv;
    int lanes;
    struct mg_sampler sampler;
    double *scratch;
    struct mg_span *spans; /* [lanes] */
    int32_t *tokens;       /* [lanes or max_rows] */
};

/* Runs of the same thing. The second best counts: the clock of a virtual machine can jump
 * once. */
struct timing {
    double best, second, spent;
    int n;
};

static int timing_wants_more(const struct timing *t) {
    return t->n < REPEAT || (t->spent < 0.3 && t->n < 10000);
}

static void timing_add(struct timing *t, double seconds) {
    if (t->n == 0 || seconds < t->best) {
        t->second = t->n == 0 ? 1e9 : t->best;
        t->best = seconds;
    } else if (seconds < t->second) {
        t->second = seconds;
    }
    t->spent += seconds;
    t->n++;
}

static void die(const char *what) {
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* A count in the arguments. */
static int count(const char *text) {
    char *end;
    const long n = strtol(text, &end, 10);
    if (end == text || *end || n < 1 || n > 100000) die("a count must be 1 to 100000");
    return (int)n;
}

static struct mg_model *open_model(const char *dir, const char *engine) {
    struct mg_error err = {0};
    struct mg_model_options options = {.kernels = MG_KERNELS_NATIVE};
    if (engine && !strcmp(engine, "blis")) options.kernels = MG_KERNELS_BLIS;
    struct mg_model *m = mg_model_open(dir, &options, &err);
    if (!m) die(err.text);
    for (int i = 0; engine && mg_ops_get(i); i++)
        if (!strcmp(mg_ops_get(i)->name, engine)) m->ops = mg_ops_get(i);
    if (engine && strcmp(engine, m->ops->name)) die("no such engine on this machine");
    return m;
}

static struct bench bench_new(const char *dir, const char *kv, const char *engine,
                              int lanes, int rows) {
    struct bench b = {.model = open_model(dir, engine), .lanes = lanes};
    b.kv = !strcmp(kv, "f16") ? MG_KV_F16 : MG_KV_F32;
    b.forward = mg_forward_new(b.model, lanes, rows, b.kv, NULL);
    b.scratch = aligned_alloc(64, ((size_t)b.model->info.vocab_size + 15) / 16 * 16 * 8);
    b.spans = calloc((size_t)lanes, sizeof *b.spans);
    b.tokens = calloc((size_t)(rows + lanes), sizeof *b.tokens);
    if (!b.forward || !b.scratch || !b.spans || !b.tokens) die("out of memory");
    mg_sampler_init(&b.sampler, 1, 0.8, 0);
    return b;
}

/* One step of every lane at pos; draws the next tokens. */
static void step(struct bench *b, int pos) {
    const int vocab = b->model->info.vocab_size;
    for (int i = 0; i < b->lanes; i++)
        b->spans[i] = (struct mg_span){i, pos, 1, &b->tokens[i], 1};
    const float *logits = mg_forward_run(b->forward, b->spans, b->lanes);
    for (int i = 0; i < b->lanes; i++)
        b->tokens[i] = mg_sampler_draw(&b->sampler, b->model->ops,
                                       logits + i * mg_forward_ld(b->forward), vocab,
                                       NULL, 0, b->scratch);
}

static void print_head(const struct bench *b, const char *row) {
    const struct mg_model_info *m = &b->model->info;
    printf("{\"row\":\"%s\",\"model\":\"%d/%d/%d/%d v%d\",\"dtype\":\"%s\",\"kv\":\"%s\","
           "\"engine\":\"%s\",",
           row, m->n_embd, m->n_head, m->n_layer, m->block_size, m->vocab_size, m->dtype,
           b->kv == MG_KV_F16 ? "f16" : "f32", b->model->ops->name);
}

/* Weights of a token's products, in elements; heads: the share of tokens with logits. */
static double weights_used(const struct mg_model *m, double heads) {
    const double d = m->info.n_embd;
    return 12 * d * d * m->info.n_layer + heads * d * m->info.vocab_size;
}

/* Operations of a token whose query sees so many positions. */
static double flops(const struct mg_model *m, double heads, double positions) {
    return 2 * weights_used(m, heads) +
           4.0 * m->info.n_embd * m->info.n_layer * positions;
}

/* Bytes of cache that such a query reads. */
static double cache_bytes(const struct bench *b, double positions) {
    const struct mg_model_info *m = &b->model->info;
    return 2.0 * m->n_embd * m->n_layer * positions * (b->kv == MG_KV_F16 ? 2 : 4);
}

static double weight_size(const struct mg_model *m) {
    return (double)mg_dtype_size(m->tensors.lm_head.dtype);
}

static void bench_decode(char **a) {
    const int lanes = count(a[3]), half = !strcmp(a[4], "half");
    struct bench b = bench_new(a[0], a[1], a[2], lanes, lanes);
    const int context = b.model->info.block_size;
    int steps = half ? HALF_STEPS : SHORT_STEPS, first = half ? context / 2 : 0;
    steps = steps < context - first ? steps : context - first;
    for (int pos = 0; pos < first; pos++) step(&b, pos);
    struct timing t = {0};
    while (timing_wants_more(&t)) {
        double start = now();
        for (int pos = 0; pos < steps; pos++) step(&b, first + pos);
        timing_add(&t, now() - start);
    }
    const double positions = first + (steps + 1) / 2.0;
    print_head(&b, "decode");
    printf(
        "\"batch\":%d,\"context\":\"%s\",\"per_s\":%.1f,\"flops\":%.0f,\"bytes\":%.0f}\n",
        lanes, a[4], lanes * steps / t.second, flops(b.model, 1, positions),
        weights_used(b.model, 1) * weight_size(b.model) / lanes +
            cache_bytes(&b, positions));
}

static void bench_prefill(char **a) {
    const int tokens = count(a[3]), chunk = count(a[4]);
    struct bench b = bench_new(a[0], a[1], a[2], 1, tokens);
    struct timing t = {0};
    for (int i = 0; i < tokens; i++) b.tokens[i] = i * 7 % b.model->info.vocab_size;
    while (timing_wants_more(&t)) {
        double start = now();
        for (int pos = 0; pos < tokens; pos += chunk) {
            int n = tokens - pos < chunk ? tokens - pos : chunk;
            struct mg_span s = {0, pos, n, b.tokens + pos, pos + n == tokens};
            mg_forward_run(b.forward, &s, 1);
        }
        timing_add(&t, now() - start);
    }
    print_head(&b, "prefill");
    printf("\"tokens\":%d,\"chunk\":%d,\"per_s\":%.1f,\"flops\":%.0f,\"bytes\":%.0f}\n",
           tokens, chunk, tokens / t.second, flops(b.model, 1.0 / tokens, tokens / 2.0),
           weights_used(b.model, 1.0 / tokens) * weight_size(b.model) / chunk);
}

/* Floats between rows of n, as forward.c has them: never a power of two. */
static size_t padded(size_t n) {
    return (n + 31) / 16 * 16;
}

/* All products of rows tokens; x and y: [rows][the widest]. */
static void multiply_all(const struct bench *b, int rows, const float *x, float *y) {
    const struct mg_model *m = b->model;
    const size_t d = padded((size_t)m->info.n_embd),
                 hidden = padded(4 * (size_t)m->info.n_embd);
    for (int i = 0; i < m->info.n_layer; i++) {
        const struct mg_layer *l = &m->tensors.layer[i];
        const struct mg_matrix *square[] = {&l->wq, &l->wk, &l->wv, &l->wo};
        for (int j = 0; j < 4; j++) m->ops->linear(square[j], rows, x, d, y, d, MG_SET);
        m->ops->linear(&l->fc1, rows, x, d, y, hidden, MG_RELU);
        m->ops->linear(&l->fc2, rows, x, hidden, y, d, MG_SET);
    }
    m->ops->linear(&m->tensors.lm_head, rows, x, d, y, padded((size_t)m->info.vocab_size),
                   MG_SET);
}

static void bench_linear(char **a) {
    const int rows = count(a[2]);
    struct bench b = bench_new(a[0], "f32", a[1], 1, 1);
    const int d = b.model->info.n_embd, v = b.model->info.vocab_size;
    const size_t n = (size_t)rows * padded((size_t)(4 * d > v ? 4 * d : v));
    float *x = aligned_alloc(64, n * 4), *y = aligned_alloc(64, n * 4);
    if (!x || !y) die("out of memory");
    for (size_t i = 0; i < n; i++) x[i] = (float)(i * 7 % 13) - 6;
    struct timing t = {0};
    while (timing_wants_more(&t)) {
        double start = now();
        multiply_all(&b, rows, x, y);
        timing_add(&t, now() - start);
    }
    print_head(&b, "linear");
    printf("\"batch\":%d,\"per_s\":%.1f,\"flops\":%.0f,\"bytes\":%.0f}\n", rows,
           rows / t.second, 2 * weights_used(b.model, 1),
           weights_used(b.model, 1) * weight_size(b.model) / rows);
}

static void bench_plain(char **a) {
    struct oracle *o = oracle_open(a[0]);
    double start = now(), t;
    int n = 0;
    for (; n < o->block_size && n < SHORT_STEPS; n++) oracle_feed(o, n % o->vocab_size);
    for (t = now() - start; t < 0.3; t = now() - start) {
        oracle_reset(o);
        for (int i = 0; i < o->block_size && i < SHORT_STEPS; i++, n++)
            oracle_feed(o, i % o->vocab_size);
    }
    printf("{\"row\":\"plain\",\"model\":\"%d/%d/%d/%d v%d\",\"per_s\":%.1f}\n",
           o->n_embd, o->n_head, o->n_layer, o->block_size, o->vocab_size, n / t);
    oracle_close(o);
}

/* The whole context, token by token, with an f32 cache and with an f16 one. The tokens
 * are drawn from the logits of the first: text that the model would write. */
static void bench_kv(char **a) {
    struct bench exact = bench_new(a[0], "f32", NULL, 1, 1);
    struct bench half = bench_new(a[0], "f16", NULL, 1, 1);
    const struct mg_model_info *m = &exact.model->info;
    double most = 0, sum = 0;
    for (int pos = 0; pos < m->block_size; pos++) {
        struct mg_span span = {0, pos, 1, exact.tokens, 1};
        const float *l = mg_forward_run(exact.forward, &span, 1);
        const float *other = mg_forward_run(half.forward, &span, 1);
        for (int i = 0; i < m->vocab_size; i++) {
            const double d = l[i] > other[i] ? l[i] - other[i] : other[i] - l[i];
            most = d > most ? d : most;
            sum += d;
        }
        exact.tokens[0] = mg_sampler_draw(&exact.sampler, exact.model->ops, l,
                                          m->vocab_size, NULL, 0, exact.scratch);
    }
    printf("{\"row\":\"kv\",\"most\":%.4g,\"mean\":%.4g}\n", most,
           sum / m->block_size / m->vocab_size);
}

static void bench_count(char **a) {
    struct bench b = bench_new(a[0], a[1], a[2], count(a[3]), count(a[3]));
    for (int pos = 0; pos < count(a[4]); pos++) step(&b, pos);
    print_head(&b, "count");
    printf("\"batch\":%s,\"steps\":%s}\n", a[3], a[4]);
}

static void bench_open(char **a) {
    struct timing t = {0};
    struct mg_model *m;
    for (int i = 0; i < REPEAT; i++) {
        double start = now();
        m = open_model(a[0], NULL);
        timing_add(&t, now() - start);
        if (i < REPEAT - 1) mg_model_close(m);
    }
    size_t size;
    const void *map = mg_weights_map(m->weights, &size);
    printf("{\"row\":\"open\",\"dtype\":\"%s\",\"bytes\":%zu,\"seconds\":%.6f,\"read\":%."
           "4g}\n",
           m->info.dtype, size, t.second, peak_read(map, size));
    mg_model_close(m);
}

static void bench_peak(char **a) {
    (void)a;
    printf("{\"row\":\"peak\",\"flops\":%.4g,\"engines\":[", peak_flops());
    for (int i = 0; mg_ops_get(i); i++)
        printf("%s\"%s\"", i ? "," : "", mg_ops_get(i)->name);
    printf("]}\n");
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int args;
        void (*run)(char **);
    } benches[] = {{"peak", 0, bench_peak},     {"open", 1, bench_open},
                   {"decode", 5, bench_decode}, {"prefill", 5, bench_prefill},
                   {"linear", 3, bench_linear}, {"plain", 1, bench_plain},
                   {"kv", 1, bench_kv},         {"count", 5, bench_count}};
    for (size_t i = 0; argc > 1 && i < sizeof benches / sizeof *benches; i++)
        if (!strcmp(argv[1], benches[i].name) && argc == benches[i].args + 2) {
            benches[i].run(argv + 2);
            return 0;
        }
    die("what to measure? (see the top of tests/bench/bench.c)");
    return 1;
}
