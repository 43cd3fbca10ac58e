/* SPDX-License-Identifier: Apache-2.0
 * request.c - slots, the live list, and who gets the next free lane. */
#include "request.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static size_t tokens_bytes(const struct mg_model_info *m) {
    return round64((size_t)m->block_size * sizeof(int32_t));
}

/* Ill-formed token bytes may become U+FFFD: three bytes for one. */
static size_t text_bytes(const struct mg_model_info *m) {
    return round64(API_MAX_SAMPLES * ((size_t)m->block_size + 1) * 3 *
                   m->max_token_bytes);
}

size_t requests_bytes(const struct mg_model_info *m, int lanes, int queue) {
    return (size_t)(lanes + queue + 1) * (tokens_bytes(m) + text_bytes(m));
}

int requests_init(struct requests *q, const struct mg_model *model,
                  struct mg_batch *batch, int lanes, int queue) {
    const struct mg_model_info *m = mg_model_info(model);
    int n = lanes + queue + 1;
    memset(q, 0, sizeof *q);
    q->model = model;
    q->batch = batch;
    q->n_lanes = lanes;
    q->max_waiting = queue;
    q->memory_size = requests_bytes(m, lanes, queue);
    q->memory = mmap(NULL, q->memory_size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (q->memory == MAP_FAILED) q->memory = NULL;
    q->lane = calloc((size_t)lanes, sizeof *q->lane);
    q->slot = calloc((size_t)n, sizeof *q->slot);
    if (!q->memory || !q->lane || !q->slot) {
        requests_free(q);
        return -1;
    }
    char *at = q->memory;
    for (int i = n - 1; i >= 0; i--) {
        struct request *r = &q->slot[i];
        r->tokens = (int32_t *)at;
        r->text = at + tokens_bytes(m);
        at += tokens_bytes(m) + text_bytes(m);
        r->next = q->spare;
        q->spare = r;
    }
    return 0;
}

void requests_free(struct requests *q) {
    if (q->memory) munmap(q->memory, q->memory_size);
    free(q->lane);
    free(q->slot);
    memset(q, 0, sizeof *q);
}

struct request *request_open(struct requests *q, struct conn *conn) {
    struct request *r = q->spare;
    struct request clean = {.conn = conn, .tokens = r->tokens, .text = r->text};
    q->spare = r->next;
    *r = clean;
    r->start_ns = conn->since_ns;
    conn->request = r;
    return r;
}

static int is_live(const struct requests *q, const struct request *r) {
    return r->prev || r->next || q->first == r;
}

int request_enqueue(struct requests *q, struct request *r) {
    if (q->n_busy == q->n_lanes && q->n_waiting >= q->max_waiting) return -1;
    r->prev = q->last;
    if (q->last)
        q->last->next = r;
    else
        q->first = r;
    q->last = r;
    q->n_live++;
    q->n_waiting++;
    q->pending += r->api.n_samples;
    return 0;
}

static void unlink_live(struct requests *q, struct request *r) {
    if (r->prev)
        r->prev->next = r->next;
    else
        q->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        q->last = r->prev;
    q->n_live--;
    q->pending -= r->api.n_samples - r->next_sample;
    if (r->running == 0) q->n_waiting--;
}

void request_release(struct requests *q, int lane) {
    struct request *r = q->lane[lane].request;
    mg_batch_release(q->batch, lane);
    q->lane[lane].request = NULL;
    q->n_busy--;
    if (--r->running == 0) q->n_waiting++;
}

void request_close(struct requests *q, struct request *r) {
    for (int i = 0; i < q->n_lanes && r->running > 0; i++)
        if (q->lane[i].request == r) request_release(q, i);
    if (is_live(q, r)) unlink_live(q, r);
    r->prev = NULL;
    r->next = q->spare;
    q->spare = r;
}

static struct request *next_waiting(const struct requests *q) {
    struct request *best = NULL;
    for (struct request *r = q->first; r; r = r->next)
        if (r->next_sample < r->api.n_samples && (!best || r->running < best->running))
            best = r;
    return best;
}

/* The next sample of r to a free lane. */
static void admit(struct requests *q, struct request *r, int64_t now_ns) {
    struct mg_job job = {
        .sampling = {.temperature = r->api.temperature},
        .seed = r->api.seed + (uint64_t)r->next_sample,
        .max_tokens = r->api.max_tokens,
    };
    if (r->api.chat) {
        job.prompt = r->tokens;
        job.n_prompt = r->api.n_prompt;
        if (mg_job_chat(q->model, &job, NULL)) return; /* cannot be, as below */
    } else {
        mg_job_text(q->model, &job);
    }
    int lane = mg_batch_admit(q->batch, &job, NULL);
    if (lane < 0) return; /* cannot be: a lane is free and api.c checked the job */
    q->lane[lane] = (struct lane){.request = r, .sample = r->next_sample++};
    q->pending--;
    q->n_busy++;
    if (r->running++ == 0) q->n_waiting--;
    if (r->lane_ns == 0) r->lane_ns = now_ns;
}

void requests_fill(struct requests *q, int64_t now_ns) {
    for (int busy = -1; q->pending > 0 && q->n_busy < q->n_lanes && q->n_busy != busy;) {
        busy = q->n_busy;
        admit(q, next_waiting(q), now_ns);
    }
}
