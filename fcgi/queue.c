/* SPDX-License-Identifier: Apache-2.0
 * queue.c - slots, the live list, prompts in the making, and who gets the next free
 * lane. */
#include "queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLICE = 16 << 10
}; /* bytes of messages encoded between two steps: 0.1 ms, and with
                              the slowest tokenizer some */

/* ---- memory ------------------------------------------------------------------------ */

static size_t count_slots(int lanes, int max_waiting) {
    return (size_t)(lanes + max_waiting + QUEUE_ENCODING + 1);
}

static size_t block_of(const struct mg_model *m) {
    return (size_t)mg_model_info(m)->block_size;
}

size_t queue_bytes(const struct mg_model *m, int lanes, int max_waiting,
                   size_t max_text) {
    size_t slot = sizeof(struct request) + block_of(m) * sizeof(int32_t);
    return count_slots(lanes, max_waiting) * slot + 2 * mg_prompt_bytes(m) + max_text;
}

int queue_init(struct queue *q, const struct mg_model *m, struct mg_batch *batch,
               int lanes, int max_waiting, size_t max_text) {
    size_t n = count_slots(lanes, max_waiting);
    *q = (struct queue){.model = m,
                        .batch = batch,
                        .n_lanes = lanes,
                        .max_waiting = max_waiting,
                        .budget.limit = max_text};
    q->brief = mg_prompt_new(m, NULL);
    q->lengthy = mg_prompt_new(m, NULL);
    q->place = calloc((size_t)lanes, sizeof *q->place);
    q->slot = calloc(n, sizeof *q->slot);
    q->tokens = calloc(n * block_of(m), sizeof *q->tokens);
    if (!q->brief || !q->lengthy || !q->place || !q->slot || !q->tokens) {
        queue_free(q);
        return -1;
    }
    for (size_t i = n; i-- > 0;) {
        q->slot[i].tokens = q->tokens + i * block_of(m);
        q->slot[i].next = q->spare;
        q->spare = &q->slot[i];
    }
    return 0;
}

void queue_free(struct queue *q) {
    while (q->first) queue_close(q, q->first);
    mg_prompt_free(q->brief);
    mg_prompt_free(q->lengthy);
    free(q->place);
    free(q->slot);
    free(q->tokens);
    *q = (struct queue){0};
}

/* ---- slots ------------------------------------------------------------------------- */

struct request *queue_open(struct queue *q, struct conn *conn) {
    struct request *r = q->spare;
    q->spare = r->next;
    *r = (struct request){.conn = conn,
                          .tokens = r->tokens,
                          .text.budget = &q->budget,
                          .canonical.budget = &q->budget,
                          .start_ns = conn->since_ns};
    conn->request = r;
    return r;
}

static void link_live(struct queue *q, struct request *r) {
    r->prev = q->last;
    *(q->last ? &q->last->next : &q->first) = r;
    q->last = r;
    q->n_live++;
}

static void unlink_live(struct queue *q, struct request *r) {
    *(r->prev ? &r->prev->next : &q->first) = r->next;
    *(r->next ? &r->next->prev : &q->last) = r->prev;
    q->n_live--;
}

static void leave(struct queue *q, struct request *r) {
    if (r->state == REQUEST_OPEN) return;
    if (r->state == REQUEST_ENCODING) {
        q->n_encoding--;
        if (q->encoding == r) q->encoding = NULL;
    } else {
        q->pending -= r->ask.n_samples - r->next_sample;
        q->n_waiting--;
    }
    unlink_live(q, r);
}

void queue_release(struct queue *q, int lane) {
    struct request *r = q->place[lane].request;
    mg_batch_release(q->batch, lane);
    q->place[lane].request = NULL;
    q->n_busy--;
    if (--r->running == 0) q->n_waiting++;
}

int queue_keep(struct queue *q, int lane, const struct mg_output *out) {
    const struct place *p = &q->place[lane];
    struct request *r = p->request;
    r->sample[p->sample].at = r->text.len;
    r->sample[p->sample].len = out->len;
    return buffer_add(&r->text, out->text, out->len);
}

void queue_close(struct queue *q, struct request *r) {
    for (int i = 0; i < q->n_lanes && r->running > 0; i++)
        if (q->place[i].request == r) queue_release(q, i);
    leave(q, r);
    buffer_free(&r->text);
    buffer_free(&r->canonical);
    r->state = REQUEST_OPEN;
    r->prev = NULL;
    r->next = q->spare;
    q->spare = r;
}

/* ---- encoding ---------------------------------------------------------------------- */

static int refuse(struct refusal *why, int status, const char *text) {
    why->status = status;
    snprintf(why->text, sizeof why->text, "%s", text);
    return -1;
}

static int is_full(const struct queue *q) {
    return q->n_busy == q->n_lanes && q->n_waiting >= q->max_waiting;
}

/* Its prompt is whole: its samples may have lanes. */
static int join(struct queue *q, struct request *r, struct refusal *why) {
    if (is_full(q))
        return refuse(why, 503, "every lane is taken and the queue is full: try again");
    if (r->state == REQUEST_OPEN) link_live(q, r);
    r->state = REQUEST_QUEUED;
    q->n_waiting++;
    q->pending += r->ask.n_samples;
    return 0;
}

static void take_tokens(struct request *r, const struct mg_prompt *p) {
    const int32_t *tokens = mg_prompt_tokens(p, &r->n_prompt, &r->dropped);
    memcpy(r->tokens, tokens, (size_t)r->n_prompt * sizeof *tokens);
}

static size_t content_bytes(const struct request *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_messages; i++) n += r->messages[i].len + 1;
    return n;
}

/* More than its tokenizer takes at once. */
static int is_too_long(const struct queue *q, const struct request *r) {
    size_t left = mg_prompt_max_content(q->model);
    for (size_t i = 0; i < r->n_messages; left -= r->messages[i++].len)
        if (r->messages[i].len > left) return 1;
    return 0;
}

/* The messages move from the arena, which the next request uses, to the request. */
static int keep_messages(struct request *r) {
    struct mg_message *from = r->messages;
    size_t array = r->n_messages * sizeof *from, at = array;
    if (buffer_add(&r->text, (const char *)from, array)) return -1;
    for (size_t i = 0; i < r->n_messages; i++)
        if (buffer_add(&r->text, from[i].content, from[i].len)) return -1;
    r->messages = (struct mg_message *)(void *)r->text.bytes;
    for (size_t i = 0; i < r->n_messages; i++) {
        r->messages[i].content = r->text.bytes + at;
        at += r->messages[i].len;
    }
    return 0;
}

static int put_lengthy(struct queue *q, struct request *r, struct refusal *why) {
    if (q->n_encoding == QUEUE_ENCODING)
        return refuse(why, 503, "too many long conversations are waiting: try again");
    if (keep_messages(r))
        return refuse(why, 503, "no memory for so long a conversation now: try again");
    r->state = REQUEST_ENCODING;
    q->n_encoding++;
    link_live(q, r);
    return 0;
}

int queue_put(struct queue *q, struct request *r, struct refusal *why) {
    struct mg_error error = {0};
    if (r->ask.chat && is_too_long(q, r))
        return refuse(why, 413,
                      "the messages have more than 256 KiB of content: send fewer");
    if (r->ask.chat && content_bytes(r) > SLICE) return put_lengthy(q, r, why);
    if (r->ask.chat) {
        if (mg_prompt_begin(q->brief, r->messages, r->n_messages, &error) ||
            mg_prompt_advance(q->brief, SIZE_MAX, &error))
            return refuse(why, 400, error.text);
        take_tokens(r, q->brief);
    }
    return join(q, r, why);
}

/* The oldest one begins. -1: *error. */
static int begin_oldest(struct queue *q, struct mg_error *error) {
    struct request *r = q->first;
    while (r->state != REQUEST_ENCODING) r = r->next;
    q->encoding = r;
    return mg_prompt_begin(q->lengthy, r->messages, r->n_messages, error);
}

/* Its messages are no longer needed. */
static int end_encoding(struct queue *q, struct refusal *why) {
    struct request *r = q->encoding;
    take_tokens(r, q->lengthy);
    buffer_free(&r->text);
    if (join(q, r, why)) return -1;
    q->encoding = NULL;
    q->n_encoding--;
    return 0;
}

struct request *queue_encode(struct queue *q, struct refusal *why) {
    struct mg_error error = {0};
    if (q->n_encoding == 0) return NULL;
    int rc = q->encoding ? 0 : begin_oldest(q, &error);
    if (!rc) rc = mg_prompt_advance(q->lengthy, SLICE, &error);
    if (rc < 0) refuse(why, 400, error.text);
    if (rc == 0) rc = end_encoding(q, why);
    return rc < 0 ? q->encoding : NULL;
}

/* ---- lanes ------------------------------------------------------------------------- */

static struct request *next_waiting(const struct queue *q) {
    struct request *best = NULL;
    for (struct request *r = q->first; r; r = r->next)
        if (r->state == REQUEST_QUEUED && r->next_sample < r->ask.n_samples &&
            (!best || r->running < best->running))
            best = r;
    return best;
}

/* The next sample of r as a job. */
static int lay_out(const struct queue *q, const struct request *r, struct mg_job *job) {
    *job = (struct mg_job){
        .sampling = {.temperature = r->ask.temperature},
        .seed = r->ask.seed + (uint64_t)r->next_sample,
        .max_tokens = r->ask.max_tokens,
    };
    if (!r->ask.chat) {
        mg_job_text(q->model, job);
        return 0;
    }
    job->prompt = r->tokens;
    job->n_prompt = r->n_prompt;
    return mg_job_chat(q->model, job, NULL);
}

static void admit(struct queue *q, struct request *r, int64_t now_ns) {
    struct mg_job job;
    int lane = lay_out(q, r, &job) ? -1 : mg_batch_admit(q->batch, &job, NULL);
    if (lane < 0) return; /* cannot be: a lane is free and the request was checked */
    q->place[lane] = (struct place){.request = r, .sample = r->next_sample++};
    q->pending--;
    q->n_busy++;
    if (r->running++ == 0) q->n_waiting--;
    if (r->lane_ns == 0) r->lane_ns = now_ns;
}

void queue_fill(struct queue *q, int64_t now_ns) {
    for (int busy = -1; q->pending > 0 && q->n_busy < q->n_lanes && q->n_busy != busy;) {
        busy = q->n_busy;
        admit(q, next_waiting(q), now_ns);
    }
}
