/* SPDX-License-Identifier: Apache-2.0
 * startup.c - opening and checking what a worker serves from; all its memory is reserved
 * here. */
#include "startup.h"

#include "document.h"
#include "limits.h"
#include "clock.h"
#include "log.h"
#include "worker.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    KV_DEFAULT_BYTES = 256 << 20, /* of KV cache decide the default number of lanes */
    MAX_DEFAULT_LANES = 64,
    STREAM_OWED = 128 << 10, /* a stream may hold back so much for a slow client */
    EXTRA_CONNS = 32, /* connections beside those of requests and the parked: errors,
                         health, pages */
};

struct memory {
    size_t batch, requests, conns, body, json, total;
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
    case MG_ENOFILE: return EXIT_NO_CHECKPOINT;
    case MG_EFILE:
    case MG_ENUMERIC: return EXIT_BAD_CHECKPOINT;
    case MG_EINPUT: return EXIT_CONFIG;
    case MG_OK:
    case MG_ENOMEM:
    case MG_ESYSTEM: break;
    }
    return EXIT_SYSTEM;
}

static int count_lanes(const struct server *s) {
    size_t lane = mg_lane_bytes(s->model, (enum mg_kv)s->config->kv);
    size_t n = KV_DEFAULT_BYTES / (lane ? lane : 1);
    if (s->config->lanes > 0) return s->config->lanes;
    return n < 1 ? 1 : n > MAX_DEFAULT_LANES ? MAX_DEFAULT_LANES : (int)n;
}

static struct mg_batch_options batch_options(const struct server *s, int lanes) {
    return (struct mg_batch_options){
        .lanes = lanes, .chunk = s->config->chunk, .kv = (enum mg_kv)s->config->kv};
}

static int count_conns(const struct server *s, int lanes) {
    return lanes + s->config->queue + s->config->parked + EXTRA_CONNS;
}

/* Bytes of arena for the largest reply: its texts, its tree, and both rendered with
 * escapes. */
static size_t reply_room(const struct mg_model_info *m) {
    size_t text = API_MAX_SAMPLES * ((size_t)m->block_size + 1) * 3 * m->max_token_bytes;
    return 8 * text + (64 << 10);
}

static struct memory count_memory(const struct server *s, int lanes) {
    const struct mg_model_info *m = mg_model_info(s->model);
    struct mg_batch_options o = batch_options(s, lanes);
    struct memory n = {
        .batch = mg_batch_bytes(s->model, &o),
        .requests =
            requests_bytes(m, o.lanes, s->config->queue) + mg_prompt_bytes(s->model),
        .conns = conn_pool_bytes(count_conns(s, lanes), s->config->max_body) +
                 (size_t)o.lanes * STREAM_OWED,
        .body = s->config->max_body,
        .json = s->config->max_json + reply_room(m),
    };
    n.total = n.batch + n.requests + n.conns + n.body + n.json;
    return n;
}

/* The process must be allowed the memory that was configured. */
static int check_limit(const struct server *s, char *text, size_t size) {
    size_t limit = (size_t)memory_limit_bytes(), workers = (size_t)s->config->workers;
    int lanes = count_lanes(s), fit = lanes;
    size_t need = count_memory(s, lanes).total;
    if (need <= limit && need > limit / workers)
        log_warn("%zu workers may need %zu MiB each but the memory limit is %zu MiB",
                 workers, need >> 20, limit >> 20);
    while (fit > 0 && count_memory(s, fit).total > limit) fit--;
    if (fit == lanes) return 0;
    if (fit > 0)
        return fail(text, size, EXIT_CONFIG,
                    "a worker may need %zu MiB but the memory limit is %zu MiB: set "
                    "lanes = %d, or raise the limit",
                    need >> 20, limit >> 20, fit);
    return fail(
        text, size, EXIT_CONFIG,
        "a worker may need %zu MiB with one lane but the memory limit is %zu MiB: "
        "raise the limit",
        count_memory(s, 1).total >> 20, limit >> 20);
}

static int reserve(struct server *s, char *text, size_t size) {
    struct mg_batch_options o = batch_options(s, count_lanes(s));
    const struct mg_model_info *m = mg_model_info(s->model);
    struct mg_error err = {0};
    s->batch = mg_batch_new(s->model, &o, &err);
    if (!s->batch) return fail(text, size, exit_code(&err), "%s", err.text);
    s->prompt = mg_prompt_new(s->model, &err);
    if (!s->prompt) return fail(text, size, exit_code(&err), "%s", err.text);
    s->body = mmap(NULL, s->config->max_body + 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->body == MAP_FAILED) s->body = NULL;
    s->pool = conn_pool_new(count_conns(s, o.lanes), s->config->max_body);
    if (!s->body || !s->pool ||
        requests_init(&s->requests, s->model, s->batch, o.lanes, s->config->queue) < 0 ||
        document_init(s->config->max_json, reply_room(m)) < 0)
        return fail(text, size, EXIT_SYSTEM,
                    "out of memory: %zu MiB are needed: lower lanes",
                    count_memory(s, o.lanes).total >> 20);
    return 0;
}

/* One short sample: proves the arithmetic, and touches every weight. */
static int generate_once(struct server *s, char *text, size_t size) {
    struct mg_job job = {.sampling = {.temperature = 1}, .seed = 1, .max_tokens = 4};
    mg_job_text(s->model, &job);
    struct mg_error err = {0};
    int lane = mg_batch_admit(s->batch, &job, &err);
    if (lane < 0) return fail(text, size, EXIT_INTERNAL, "%s", err.text);
    while (mg_batch_step(s->batch) > 0) continue;
    enum mg_finish finish = mg_batch_output(s->batch, lane)->finish;
    mg_batch_release(s->batch, lane);
    if (finish != MG_FAULT) return 0;
    return fail(text, size, EXIT_BAD_CHECKPOINT,
                "%s: the model computes values that are not finite: train it again",
                s->config->model_dir);
}

int startup_open(struct server *s, const struct config *config, char *text, size_t size) {
    struct mg_model_options o = {.kernels = (enum mg_kernels)config->kernels,
                                 .compat_05 = config->compat_05};
    struct mg_error err = {0};
    int rc;
    s->config = config;
    s->model = mg_model_open(config->model_dir, &o, &err);
    if (!s->model) return fail(text, size, exit_code(&err), "%s", err.text);
    if ((rc = check_limit(s, text, size)) == 0 && (rc = reserve(s, text, size)) == 0)
        rc = generate_once(s, text, size);
    if (rc) startup_close(s);
    return rc;
}

void startup_close(struct server *s) {
    conn_pool_free(s->pool);
    requests_free(&s->requests);
    mg_batch_free(s->batch);
    mg_prompt_free(s->prompt);
    mg_model_close(s->model);
    if (s->body) munmap(s->body, s->config->max_body + 1);
    s->pool = NULL;
    s->batch = NULL;
    s->prompt = NULL;
    s->model = NULL;
    s->body = NULL;
}

void startup_describe(const struct server *s, char *text, size_t size) {
    const struct mg_model_info *m = mg_model_info(s->model);
    struct memory n = count_memory(s, s->requests.n_lanes);
    char name[256], digest[17];
    startup_identity(s, name, sizeof name, digest);
    snprintf(
        text, size,
        "model %s (%s), %.3g M parameters %s, block_size %d, %s, kernels %s; %d lanes of "
        "%zu KiB; a worker holds at most %zu MiB (batch %zu, requests %zu, connections "
        "%zu, "
        "body %zu, JSON %zu) beside the shared weights of %.3g MiB",
        name, digest, (double)m->n_params / 1e6, m->dtype, m->block_size,
        m->has_chat ? "chat" : "no chat", m->kernels, s->requests.n_lanes,
        mg_lane_bytes(s->model, (enum mg_kv)s->config->kv) >> 10, n.total >> 20,
        n.batch >> 20, n.requests >> 20, n.conns >> 20, n.body >> 20, n.json >> 20,
        (double)m->weights_bytes / (1 << 20));
}

void startup_identity(const struct server *s, char *name, size_t size, char digest[17]) {
    char *real = realpath(s->config->model_dir, NULL);
    const char *path = real ? real : s->config->model_dir;
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash && slash[1] ? slash + 1 : path);
    free(real);
    mg_model_digest(s->model, digest);
}

double startup_fifty_seconds(struct server *s) {
    const struct mg_model_info *m = mg_model_info(s->model);
    int lanes =
        s->requests.n_lanes < API_MAX_SAMPLES ? s->requests.n_lanes : API_MAX_SAMPLES;
    int64_t start = clock_ns(), now = start, tokens = 0;
    while (now - start < 200000000) {
        for (int i = 0; i < lanes; i++) {
            struct mg_job job = {.sampling = {.temperature = 1e9}, .seed = (uint64_t)i};
            mg_job_text(s->model, &job);
            mg_batch_admit(s->batch, &job, NULL);
        }
        for (int n = 1; n > 0 && now - start < 200000000; now = clock_ns())
            tokens += n = mg_batch_step(s->batch);
        for (int i = 0; i < lanes; i++) mg_batch_release(s->batch, i);
    }
    if (tokens == 0) return 0;
    return (double)(now - start) / 1e9 / (double)tokens * API_MAX_SAMPLES * m->block_size;
}

/* ---- SIGBUS ------------------------------------------------------------------------ */

static struct {
    const struct mg_model *model;
    char text[sizeof((struct config *)0)->model_dir + 200];
    size_t len;
} bus;

static void on_sigbus(int sig, siginfo_t *info, void *context) {
    (void)context;
    if (!mg_model_maps(bus.model, info->si_addr)) {
        signal(sig, SIG_DFL);
        raise(sig);
        return;
    }
    ssize_t ignored = write(STDERR_FILENO, bus.text, bus.len);
    (void)ignored;
    _exit(EXIT_BAD_CHECKPOINT);
}

void startup_catch_sigbus(const struct server *s) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    bus.model = s->model;
    int n =
        snprintf(bus.text, sizeof bus.text,
                 "level=error msg=\"%s/weights.safetensors was truncated while it was "
                 "mapped: put a whole checkpoint in place by rename, then reload\"\n",
                 s->config->model_dir);
    bus.len = n < (int)sizeof bus.text ? (size_t)n : sizeof bus.text - 1;
    sigaction(SIGBUS, &action, NULL);
}
