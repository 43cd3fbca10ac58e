/* SPDX-License-Identifier: Apache-2.0
 * startup.c - opening and checking what a worker serves from; all its memory is reserved
 * here. */
#include "startup.h"

#include "body.h"
#include "log.h"
#include "machine.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    STREAM_OWED = 128 << 10, /* a stream may hold back so much for a slow client */
    EXTRA_CONNS = 32,  /* connections beside those of requests and the parked: errors,
                         health, pages */
    PAGES = 256 << 10, /* arena for the pages of operators */
};

struct memory {
    struct engine_memory engine;
    size_t conns, body, json, total;
};

__attribute__((format(printf, 4, 5))) static int fail(char *text, size_t size, int code,
                                                      const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, size, fmt, ap);
    va_end(ap);
    return code;
}

static int count_conns(const struct server *s, int lanes) {
    return lanes + s->config->queue + QUEUE_ENCODING + s->config->parked + EXTRA_CONNS;
}

/* Bytes of arena for the largest piece of a reply, which is one sample: its text, its
 * tree, and that rendered with escapes. */
static size_t reply_room(const struct server *s) {
    return 8 * mg_model_info(s->engine.model)->max_sample_bytes + PAGES;
}

static struct memory count_memory(const struct server *s, int lanes) {
    struct memory n = {
        .engine = engine_memory(&s->engine, lanes),
        .conns = conn_pool_bytes(count_conns(s, lanes), s->config->max_body) +
                 (size_t)lanes * STREAM_OWED,
        .body = s->config->max_body,
        .json = s->config->max_json + reply_room(s),
    };
    n.total = n.engine.batch + n.engine.queue + n.conns + n.body + n.json;
    return n;
}

/* The process must be allowed the memory that was configured. */
static int check_limit(const struct server *s, int lanes, char *text, size_t size) {
    size_t limit = (size_t)machine_memory(), workers = (size_t)s->config->workers;
    size_t need = count_memory(s, lanes).total;
    int fit = lanes;
    if (need <= limit && need > limit / workers)
        log_warn("%zu workers may need %zu MiB each but the memory limit is %zu MiB",
                 workers, need >> 20, limit >> 20);
    while (fit > 0 && count_memory(s, fit).total > limit) fit--;
    if (fit == lanes) return 0;
    if (fit > 0)
        return fail(text, size, EX_CONFIG,
                    "a worker may need %zu MiB but the memory limit is %zu MiB: set "
                    "lanes = %d, or raise the limit",
                    need >> 20, limit >> 20, fit);
    return fail(
        text, size, EX_CONFIG,
        "a worker may need %zu MiB with one lane but the memory limit is %zu MiB: "
        "raise the limit",
        count_memory(s, 1).total >> 20, limit >> 20);
}

static int reserve(struct server *s, int lanes, char *text, size_t size) {
    s->body = mmap(NULL, s->config->max_body + 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->body == MAP_FAILED) s->body = NULL;
    s->pool = conn_pool_new(count_conns(s, lanes), s->config->max_body);
    if (s->body && s->pool && !body_init(s->config->max_json, reply_room(s))) return 0;
    return fail(text, size, EX_OSERR, "out of memory: %zu MiB are needed: lower lanes",
                count_memory(s, lanes).total >> 20);
}

int startup_open(struct server *s, const struct config *config, char *text, size_t size) {
    s->config = config;
    int rc = engine_open(&s->engine, config, text, size), lanes = 0;
    if (!rc) {
        lanes = engine_lanes(&s->engine);
        rc = check_limit(s, lanes, text, size);
    }
    if (!rc) rc = engine_reserve(&s->engine, lanes, text, size);
    if (!rc) rc = reserve(s, lanes, text, size);
    if (rc) startup_close(s);
    return rc;
}

void startup_close(struct server *s) {
    conn_pool_free(s->pool);
    engine_close(&s->engine);
    if (s->body) munmap(s->body, s->config->max_body + 1);
    s->pool = NULL;
    s->body = NULL;
}

void startup_describe(const struct server *s, char *text, size_t size) {
    const struct engine *e = &s->engine;
    const struct mg_model_info *m = mg_model_info(e->model);
    struct memory n = count_memory(s, e->queue.n_lanes);
    snprintf(
        text, size,
        "model %s (%s), %.3g M parameters %s, block_size %d, %s, kernels %s; %d lanes of "
        "%zu KiB; a worker holds at most %zu MiB (batch %zu, requests %zu, connections "
        "%zu, body %zu, JSON %zu) beside the shared weights of %.3g MiB",
        e->name, e->digest, (double)m->n_params / 1e6, m->dtype, m->block_size,
        m->has_chat ? "chat" : "no chat", m->kernels, e->queue.n_lanes,
        mg_lane_bytes(e->model, (enum mg_kv)s->config->kv) >> 10, n.total >> 20,
        n.engine.batch >> 20, n.engine.queue >> 20, n.conns >> 20, n.body >> 20,
        n.json >> 20, (double)m->weights_bytes / (1 << 20));
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
    _exit(EX_DATAERR);
}

void startup_catch_sigbus(const struct server *s) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    bus.model = s->engine.model;
    int n =
        snprintf(bus.text, sizeof bus.text,
                 "level=error msg=\"%s/weights.safetensors was truncated while it was "
                 "mapped: put a whole checkpoint in place by rename, then reload\"\n",
                 s->config->model_dir);
    bus.len = n < (int)sizeof bus.text ? (size_t)n : sizeof bus.text - 1;
    sigaction(SIGBUS, &action, NULL);
}
