/* SPDX-License-Identifier: Apache-2.0
 * engine.c - see engine.h. */
#include "engine.h"

#include "clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum {
    KV_DEFAULT_BYTES = 256 << 20, /* of KV cache decide the default number of lanes */
    MAX_DEFAULT_LANES = 64,
    MEASURE_NS = 200000000,
};

__attribute__((format(printf, 4, 5))) static int fail(char *text, size_t size, int code,
                                                      const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, size, fmt, ap);
    va_end(ap);
    return code;
}

static int exit_code(const struct mg_error *err) {
    switch (err->code) {
    case MG_ENOFILE: return EX_NOINPUT;
    case MG_EFILE:
    case MG_ENUMERIC: return EX_DATAERR;
    case MG_EINPUT: return EX_CONFIG;
    case MG_OK:
    case MG_ENOMEM:
    case MG_ESYSTEM: break;
    }
    return EX_OSERR;
}

/* Once: digest and fingerprint read every byte of the weights. */
static void identify(struct engine *e) {
    char *real = realpath(e->config->model_dir, NULL);
    const char *path = real ? real : e->config->model_dir;
    const char *slash = strrchr(path, '/');
    snprintf(e->name, sizeof e->name, "%.255s", slash && slash[1] ? slash + 1 : path);
    free(real);
    mg_model_digest(e->model, e->digest);
    mg_model_fingerprint(e->model, (enum mg_kv)e->config->kv, e->fingerprint);
}

int engine_open(struct engine *e, const struct config *config, char *text, size_t size) {
    struct mg_model_options o = {.kernels = (enum mg_kernels)config->kernels,
                                 .no_better = config->no_better,
                                 .compat_05 = config->compat == 1,
                                 .compat_06 = config->compat == 2};
    struct mg_error err = {0};
    e->config = config;
    e->model = mg_model_open(config->model_dir, &o, &err);
    if (!e->model) return fail(text, size, exit_code(&err), "%s", err.text);
    identify(e);
    return 0;
}

int engine_lanes(const struct engine *e) {
    size_t lane = mg_lane_bytes(e->model, (enum mg_kv)e->config->kv);
    size_t n = KV_DEFAULT_BYTES / (lane ? lane : 1);
    if (e->config->lanes > 0) return e->config->lanes;
    return n < 1 ? 1 : n > MAX_DEFAULT_LANES ? MAX_DEFAULT_LANES : (int)n;
}

static struct mg_batch_options batch_options(const struct engine *e, int lanes) {
    return (struct mg_batch_options){
        .lanes = lanes, .chunk = e->config->chunk, .kv = (enum mg_kv)e->config->kv};
}

struct engine_memory engine_memory(const struct engine *e, int lanes) {
    struct mg_batch_options o = batch_options(e, lanes);
    return (struct engine_memory){
        .batch = mg_batch_bytes(e->model, &o),
        .queue = queue_bytes(e->model, lanes, e->config->queue, e->config->max_text)};
}

/* One short sample: proves the arithmetic, and touches every weight. */
static int generate_once(struct engine *e, char *text, size_t size) {
    struct mg_job job = {.sampling = {.temperature = 1}, .seed = 1, .max_tokens = 4};
    struct mg_error err = {0};
    mg_job_text(e->model, &job);
    int lane = mg_batch_admit(e->batch, &job, &err);
    if (lane < 0) return fail(text, size, EX_SOFTWARE, "%s", err.text);
    while (mg_batch_step(e->batch) > 0) continue;
    enum mg_finish finish = mg_batch_output(e->batch, lane)->finish;
    mg_batch_release(e->batch, lane);
    if (finish != MG_FAULT) return 0;
    return fail(text, size, EX_DATAERR,
                "%s: the model computes values that are not finite: train it again",
                e->config->model_dir);
}

int engine_reserve(struct engine *e, int lanes, char *text, size_t size) {
    const struct config *c = e->config;
    struct mg_batch_options o = batch_options(e, lanes);
    struct mg_error err = {0};
    e->batch = mg_batch_new(e->model, &o, &err);
    if (!e->batch) return fail(text, size, exit_code(&err), "%s", err.text);
    if (queue_init(&e->queue, e->model, e->batch, lanes, c->queue, c->max_text))
        return fail(text, size, EX_OSERR,
                    "out of memory for a queue of %d requests: lower queue", c->queue);
    return generate_once(e, text, size);
}

void engine_close(struct engine *e) {
    queue_free(&e->queue);
    mg_batch_free(e->batch);
    mg_model_close(e->model);
    *e = (struct engine){0};
}

double engine_fifty_seconds(struct engine *e) {
    int lanes =
        e->queue.n_lanes < REQUEST_MAX_SAMPLES ? e->queue.n_lanes : REQUEST_MAX_SAMPLES;
    int64_t start = clock_ns(), now = start, tokens = 0;
    while (now - start < MEASURE_NS) {
        for (int i = 0; i < lanes; i++) {
            struct mg_job job = {.sampling = {.temperature = 1e9}, .seed = (uint64_t)i};
            mg_job_text(e->model, &job);
            mg_batch_admit(e->batch, &job, NULL);
        }
        for (int n = 1; n > 0 && now - start < MEASURE_NS; now = clock_ns())
            tokens += n = mg_batch_step(e->batch);
        for (int i = 0; i < lanes; i++) mg_batch_release(e->batch, i);
    }
    if (tokens == 0) return 0;
    return (double)(now - start) / 1e9 / (double)tokens * REQUEST_MAX_SAMPLES *
           mg_model_info(e->model)->block_size;
}
