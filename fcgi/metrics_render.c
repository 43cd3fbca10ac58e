/* SPDX-License-Identifier: Apache-2.0
 * metrics_render.c - the table as text: /metrics for Prometheus, /status as JSON. Sums
 * the counters of all slots, living and dead, and the gauges of the living. Reads only.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "metrics_table.h"

/* The sums of one rendering. The counters are laid out as in a slot. */
struct sums {
    struct slot all;
    int workers[WORKER_DRAINING + 1]; /* by state */
    int newest; /* slot of the newest generation that knows its model, -1 = none */
};

static void add_words(uint64_t *to, const uint64_t *from, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] += LOAD(from[i]);
}

/* The counters are the words from the start of a slot up to its owner. */
#define COUNTER_WORDS (offsetof(struct slot, owner) / sizeof(uint64_t))

static void add_gauges(struct sums *sum, int slot) {
    const struct slot *s = &metrics_table()->slot[slot];
    sum->workers[metrics_slot_state(slot)]++;
    sum->all.lanes += LOAD(s->lanes);
    sum->all.lanes_busy += LOAD(s->lanes_busy);
    sum->all.queue += LOAD(s->queue);
    sum->all.queue_length += LOAD(s->queue_length);
    sum->all.connections += LOAD(s->connections);
    if (*s->model.name && (sum->newest < 0 ||
                           s->generation > metrics_table()->slot[sum->newest].generation))
        sum->newest = slot;
}

static void sum_slots(struct sums *sum) {
    const struct table *t = metrics_table();
    memset(sum, 0, sizeof *sum);
    sum->newest = -1;
    for (int i = 0; i < METRICS_SLOTS; i++) {
        add_words((uint64_t *)&sum->all, (const uint64_t *)&t->slot[i], COUNTER_WORDS);
        if (metrics_slot_alive(i)) add_gauges(sum, i);
    }
}

static uint64_t count_requests(const struct slot *s) {
    uint64_t n = 0;
    for (int e = 0; e < EP_COUNT; e++)
        for (int i = 0; i < N_STATUS; i++) n += LOAD(s->requests[e][i]);
    return n;
}

/* ---- Prometheus ---- */

static void put_head(FILE *f, const char *name, const char *type, const char *help) {
    fprintf(f, "# HELP microgpt_%s %s\n# TYPE microgpt_%s %s\n", name, help, name, type);
}

static void put_one(FILE *f, const char *name, const char *type, const char *help,
                    uint64_t v) {
    put_head(f, name, type, help);
    fprintf(f, "microgpt_%s %" PRIu64 "\n", name, v);
}

static void put_requests(FILE *f, const struct slot *s) {
    put_head(f, "requests_total", "counter",
             "Requests answered, by endpoint and status.");
    for (int e = 0; e < EP_COUNT; e++)
        for (int i = 0; i < N_STATUS; i++) {
            char status[12] = "other";
            if (i < N_STATUS - 1)
                snprintf(status, sizeof status, "%d", metrics_statuses[i]);
            fprintf(
                f, "microgpt_requests_total{endpoint=\"%s\",status=\"%s\"} %" PRIu64 "\n",
                endpoint_names[e], status, s->requests[e][i]);
        }
}

/* label: "" or one label with a comma after it. */
static void put_histogram(FILE *f, const char *name, const char *label,
                          const struct histogram *h) {
    uint64_t n = 0;
    for (int b = 0; b < N_BOUNDS; b++) {
        n += h->count[b];
        fprintf(f, "microgpt_%s_bucket{%sle=\"%g\"} %" PRIu64 "\n", name, label,
                (double)metrics_bounds_ns[b] / 1e9, n);
    }
    n += h->count[N_BOUNDS];
    fprintf(f, "microgpt_%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, label, n);
    char braces[64] = "";
    if (*label) snprintf(braces, sizeof braces, "{%.*s}", (int)strlen(label) - 1, label);
    fprintf(f, "microgpt_%s_sum%s %" PRIu64 ".%09" PRIu64 "\n", name, braces,
            h->sum_ns / 1000000000, h->sum_ns % 1000000000);
    fprintf(f, "microgpt_%s_count%s %" PRIu64 "\n", name, braces, n);
}

static void put_histograms(FILE *f, const struct slot *s) {
    put_head(f, "request_seconds", "histogram",
             "Time of a request, accept to last byte.");
    for (int e = 0; e < EP_COUNT; e++) {
        char label[48];
        snprintf(label, sizeof label, "endpoint=\"%s\",", endpoint_names[e]);
        put_histogram(f, "request_seconds", label, &s->seconds[e]);
    }
    put_head(f, "first_token_seconds", "histogram", "Accept to first sampled token.");
    put_histogram(f, "first_token_seconds", "", &s->first_token);
    put_head(f, "token_seconds", "histogram", "Time between the tokens of one sequence.");
    put_histogram(f, "token_seconds", "", &s->token);
}

static void put_counters(FILE *f, const struct slot *s) {
    const struct table *t = metrics_table();
    put_one(f, "prompt_tokens_total", "counter", "Prompt tokens computed.", s->tokens_in);
    put_one(f, "output_tokens_total", "counter", "Tokens sampled into replies.",
            s->tokens_out);
    put_one(f, "cancelled_total", "counter", "Requests whose client went away.",
            s->cancelled);
    put_one(f, "shed_total", "counter", "Requests refused with 503: queue full.",
            s->shed);
    put_one(f, "log_lines_dropped_total", "counter", "Log lines the log could not take.",
            s->log_dropped);
    put_one(f, "worker_restarts_total", "counter", "Workers replaced after they died.",
            LOAD(t->restarts));
    put_head(f, "reloads_total", "counter",
             "Reloads of configuration and model, by result.");
    fprintf(f,
            "microgpt_reloads_total{result=\"ok\"} %" PRIu64 "\n"
            "microgpt_reloads_total{result=\"failed\"} %" PRIu64 "\n",
            LOAD(t->reloads_ok), LOAD(t->reloads_failed));
}

static void put_gauges(FILE *f, const struct sums *sum) {
    const struct slot *s = &sum->all;
    put_head(f, "workers", "gauge", "Living workers by state.");
    fprintf(
        f,
        "microgpt_workers{state=\"starting\"} %d\nmicrogpt_workers{state=\"ready\"} %d\n"
        "microgpt_workers{state=\"draining\"} %d\n",
        sum->workers[WORKER_STARTING], sum->workers[WORKER_READY],
        sum->workers[WORKER_DRAINING]);
    put_one(f, "lanes", "gauge", "Sequences that can advance together.",
            (uint64_t)s->lanes);
    put_one(f, "lanes_busy", "gauge", "Lanes in use.", (uint64_t)s->lanes_busy);
    put_one(f, "queue_capacity", "gauge", "Requests that may wait for a lane.",
            (uint64_t)s->queue);
    put_one(f, "queue_length", "gauge", "Requests waiting for a lane.",
            (uint64_t)s->queue_length);
    put_one(f, "connections", "gauge", "Open connections from nginx.",
            (uint64_t)s->connections);
}

static int same_model(const struct slot_model *a, const struct slot_model *b) {
    return !strcmp(a->name, b->name) && !strcmp(a->digest, b->digest) &&
           !strcmp(a->fingerprint, b->fingerprint) && !strcmp(a->dtype, b->dtype) &&
           !strcmp(a->tokenizer, b->tokenizer) && !strcmp(a->kernels, b->kernels);
}

/* A quoted label value with its escapes; the texts are ASCII (copy_label). */
static void put_label(FILE *f, const char *name, const char *value) {
    fprintf(f, "%s=\"", name);
    for (; *value; value++)
        fprintf(f, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    fputc('"', f);
}

static void put_model(FILE *f, const struct slot_model *m) {
    fputs("microgpt_model_info{", f);
    put_label(f, "model", m->name);
    put_label(f, ",digest", m->digest);
    put_label(f, ",fingerprint", m->fingerprint);
    put_label(f, ",dtype", m->dtype);
    put_label(f, ",tokenizer", m->tokenizer);
    put_label(f, ",kernels", m->kernels);
    fprintf(f, ",chat=\"%s\"} 1\n", m->has_chat ? "true" : "false");
}

/* One line for each model that is being served: two while a reload drains. */
static void put_models(FILE *f) {
    const struct slot *slot = metrics_table()->slot;
    put_head(f, "model_info", "gauge", "The models being served; always 1.");
    for (int i = 0; i < METRICS_SLOTS; i++) {
        int seen = !metrics_slot_alive(i) || !*slot[i].model.name;
        for (int j = 0; j < i && !seen; j++)
            seen = metrics_slot_alive(j) && same_model(&slot[i].model, &slot[j].model);
        if (!seen) put_model(f, &slot[i].model);
    }
}

static void put_about(FILE *f, const struct sums *sum) {
    put_models(f);
    put_one(f, "model_parameters", "gauge",
            "Parameters of the newest model being served.",
            sum->newest < 0 ? 0 : metrics_table()->slot[sum->newest].model.n_params);
    put_head(f, "build_info", "gauge", "This program; always 1.");
    fprintf(f, "microgpt_build_info{version=\"" MG_VERSION "\",compiler=\"%s\"} 1\n",
#ifdef __clang__
            "clang"
#else
            "gcc"
#endif
    );
    put_one(f, "start_time_seconds", "gauge", "When the service started, unix time.",
            (uint64_t)metrics_start_unix());
    put_one(f, "metrics_shared", "gauge",
            "1: sums over all workers; 0: of this worker alone.",
            strcmp(metrics_scope(), "worker") != 0);
}

char *metrics_render(size_t *len) {
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    if (!f) return NULL;
    struct sums sum;
    sum_slots(&sum);
    put_requests(f, &sum.all);
    put_histograms(f, &sum.all);
    put_counters(f, &sum.all);
    put_gauges(f, &sum);
    put_about(f, &sum);
    int bad = ferror(f);
    if (!fclose(f) && !bad) return text;
    free(text);
    return NULL;
}

/* ---- JSON. Jansson's allocator may be a bounded arena: everything may come back NULL
 * ---- */

static const char *const state_names[] = {"none", "starting", "ready", "draining"};

static json_t *describe_model(const struct slot_model *m) {
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:b, s:i}", "name", m->name,
                     "digest", m->digest, "fingerprint", m->fingerprint, "parameters",
                     (json_int_t)m->n_params, "dtype", m->dtype, "tokenizer",
                     m->tokenizer, "kernels", m->kernels, "chat", m->has_chat,
                     "block_size", m->block_size);
}

static json_t *describe_worker(int i) {
    const struct slot *s = &metrics_table()->slot[i];
    return json_pack("{s:i, s:i, s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:I}",
                     "worker", s->number, "pid", s->pid, "state",
                     state_names[metrics_slot_state(i)], "generation", s->generation,
                     "digest", s->model.digest, "fingerprint", s->model.fingerprint,
                     "lanes", s->lanes, "lanes_busy", s->lanes_busy, "queue", s->queue,
                     "queue_length", s->queue_length, "connections", s->connections,
                     "requests_of_slot", (json_int_t)count_requests(s));
}

/* An array of the living workers; NULL: out of memory. */
static json_t *describe_workers(void) {
    json_t *list = json_array();
    for (int i = 0; i < METRICS_SLOTS && list; i++) {
        if (!metrics_slot_alive(i)) continue;
        if (json_array_append_new(list, describe_worker(i))) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *describe_all(const struct sums *sum) {
    const struct table *t = metrics_table();
    const struct slot *s = &sum->all;
    return json_pack(
        "{s:s, s:f, s:s, s:{s:i, s:i, s:i}, s:{s:i, s:i}, s:{s:i, s:i}, s:i, s:I, "
        "s:{s:I, s:I},"
        " s:I, s:I, s:I, s:{s:I, s:I}}",
        "version", MG_VERSION, "uptime_seconds", (double)metrics_uptime_ns() / 1e9,
        "counters_of", metrics_scope(), "workers", "ready", sum->workers[WORKER_READY],
        "starting", sum->workers[WORKER_STARTING], "draining",
        sum->workers[WORKER_DRAINING], "lanes", "total", s->lanes, "busy", s->lanes_busy,
        "queue", "capacity", s->queue, "length", s->queue_length, "connections",
        s->connections, "requests_total", (json_int_t)count_requests(s), "tokens",
        "prompt", (json_int_t)s->tokens_in, "output", (json_int_t)s->tokens_out,
        "cancelled_total", (json_int_t)s->cancelled, "shed_total", (json_int_t)s->shed,
        "worker_restarts_total", (json_int_t)LOAD(t->restarts), "reloads", "ok",
        (json_int_t)LOAD(t->reloads_ok), "failed", (json_int_t)LOAD(t->reloads_failed));
}

/* malloc'd text of o with a newline after it, NULL: out of memory. */
static char *dump_text(const json_t *o, size_t *len) {
    size_t size = json_dumpb(o, NULL, 0, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    char *text = size ? malloc(size + 1) : NULL;
    if (!text) return NULL;
    if (json_dumpb(o, text, size, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) != size) {
        free(text);
        return NULL;
    }
    text[size] = '\n';
    *len = size + 1;
    return text;
}

char *metrics_status(size_t *len) {
    struct sums sum;
    sum_slots(&sum);
    json_t *o = describe_all(&sum);
    json_t *model = sum.newest < 0
                        ? json_null()
                        : describe_model(&metrics_table()->slot[sum.newest].model);
    int bad = json_object_set_new(o, "model", model);
    bad |= json_object_set_new(o, "worker", describe_workers());
    char *text = bad ? NULL : dump_text(o, len);
    json_decref(o);
    return text;
}
