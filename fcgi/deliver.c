/* SPDX-License-Identifier: Apache-2.0
 * deliver.c - one step of the batch, and what it produced: events of streams, finished
 * samples, complete replies. */
#include "serve.h"

#include "document.h"
#include "clock.h"
#include "log.h"

#include <stdio.h>
#include <string.h>

enum { OWED_MAX = 64 << 10 }; /* a stream that owes more waits for its client */

static const char *finish_name(enum mg_finish f) {
    return f == MG_STOP ? "stop" : "length";
}

/* ---- plain replies ----------------------------------------------------------------- */

static void reply_samples(struct server *s, struct request *r) {
    struct reply reply = serve_reply(s, r->conn, 1);
    json_t *samples = json_array();
    for (int i = 0; i < r->api.n_samples; i++)
        json_array_append_new(
            samples, json_stringn_nocheck(r->text + r->sample[i].at, r->sample[i].len));
    int complete = json_array_size(samples) == (size_t)r->api.n_samples;
    json_t *root = complete ? json_pack("{s:o}", "samples", samples) : NULL;
    serve_account(s, r, root ? 200 : 500, finish_name(r->finish));
    reply_json(&reply, 200, "", root);
}

static void reply_message(struct server *s, struct request *r) {
    struct reply reply = serve_reply(s, r->conn, 1);
    char header[160];
    snprintf(
        header, sizeof header,
        "X-Finish-Reason: %s\r\nX-Prompt-Tokens: %llu\r\nX-Completion-Tokens: %llu\r\n",
        finish_name(r->finish), (unsigned long long)r->prompt_tokens,
        (unsigned long long)r->output_tokens);
    json_t *root = json_pack("{s:s, s:s%, s:I}", "role", "assistant", "content",
                             r->text + r->sample[0].at, r->sample[0].len,
                             "tokens_dropped", (json_int_t)r->api.dropped);
    serve_account(s, r, root ? 200 : 500, finish_name(r->finish));
    reply_json(&reply, 200, header, root);
}

static void keep_sample(struct request *r, int sample, const struct mg_output *out) {
    r->sample[sample].at = r->text_len;
    r->sample[sample].len = out->len;
    memcpy(r->text + r->text_len, out->text, out->len);
    r->text_len += out->len;
}

/* ---- streams ----------------------------------------------------------------------- */

/* One event: {"index", "content", "finish_reason"}; index for generate, reason for the
 * last. */
static int send_event(const struct server *s, const struct lane *lane, const char *text,
                      size_t len, const char *reason) {
    const struct request *r = lane->request;
    struct reply reply = serve_reply(s, r->conn, 1);
    json_t *event = json_object();
    if (!r->api.chat)
        json_object_set_new_nocheck(event, "index", json_integer(lane->sample));
    json_object_set_new_nocheck(event, "content", json_stringn_nocheck(text, len));
    if (reason) json_object_set_new_nocheck(event, "finish_reason", json_string(reason));
    return reply_event(&reply, event);
}

/* The head, and for a chat the event that names the role: once the prompt is computed. */
static void begin_stream(const struct server *s, struct request *r) {
    struct reply reply = serve_reply(s, r->conn, 1);
    r->begun = 1;
    reply_stream_begin(&reply);
    if (!r->api.chat) return;
    reply_event(&reply, json_pack("{s:s, s:s, s:I}", "role", "assistant", "content", "",
                                  "tokens_dropped", (json_int_t)r->api.dropped));
}

static void stream_lane(const struct server *s, struct lane *lane,
                        const struct mg_output *out) {
    struct request *r = lane->request;
    int has_text = out->len > lane->sent;
    if (!r->begun && (has_text || out->finish || r->api.chat)) begin_stream(s, r);
    if (has_text) {
        send_event(s, lane, out->text + lane->sent, out->len - lane->sent, NULL);
        lane->sent = out->len;
    }
    if (out->finish) send_event(s, lane, "", 0, finish_name(out->finish));
}

/* ---- one lane after a step --------------------------------------------------------- */

static void finish_request(struct server *s, struct request *r) {
    if (r->api.stream) {
        struct reply reply = serve_reply(s, r->conn, 1);
        serve_account(s, r, 200, finish_name(r->finish));
        reply_stream_end(&reply, 1);
    } else if (r->api.chat) {
        reply_message(s, r);
    } else {
        reply_samples(s, r);
    }
    request_close(&s->requests, r);
}

static void finish_lane(struct server *s, int i, const struct mg_output *out) {
    struct lane *lane = &s->requests.lane[i];
    struct request *r = lane->request;
    if (!r->api.stream) keep_sample(r, lane->sample, out);
    r->finish = out->finish;
    r->done++;
    request_release(&s->requests, i);
    if (r->done == r->api.n_samples) finish_request(s, r);
}

/* What lane i produced; returns the tokens it sampled. */
static int deliver_lane(struct server *s, int i) {
    struct lane *lane = &s->requests.lane[i];
    struct request *r = lane->request;
    const struct mg_output *out = mg_batch_output(s->batch, i);
    int sampled = out->n_generated - lane->generated;
    if (out->n_prefilled < out->n_prompt) return 0;
    if (out->finish == MG_FAULT) {
        log_error("a logit was not finite: request %s ended with 500", r->id);
        serve_fail(s, r, 500, "internal error", "fault");
        return 0;
    }
    if (r->first_ns == 0) {
        r->first_ns = s->now_ns;
        r->prompt_tokens = (uint64_t)out->n_prompt;
        metrics_first_token(s->now_ns - r->start_ns);
    }
    lane->generated = out->n_generated;
    r->output_tokens += (uint64_t)sampled;
    if (r->api.stream) {
        stream_lane(s, lane, out);
        if (r->conn->gone) {
            serve_cancel(s, r->conn, "cancelled");
            return sampled;
        }
        mg_batch_hold(s->batch, i, r->conn->owed > OWED_MAX);
    }
    if (out->finish) finish_lane(s, i, out);
    return sampled;
}

/* Lanes held for a slow client go on when it has taken enough. */
static void unhold(struct server *s) {
    struct requests *q = &s->requests;
    for (int i = 0; i < q->n_lanes; i++) {
        struct request *r = q->lane[i].request;
        if (r && r->api.stream && r->conn->owed <= OWED_MAX)
            mg_batch_hold(s->batch, i, 0);
    }
}

int serve_step(struct server *s) {
    struct requests *q = &s->requests;
    int64_t before = s->now_ns;
    int tokens = 0;
    requests_fill(q, s->now_ns);
    if (q->n_busy == 0) return 0;
    unhold(s);
    int moved = mg_batch_step(s->batch);
    if (moved == 0) return 0;
    s->now_ns = clock_ns();
    for (int i = 0; i < q->n_lanes; i++)
        if (q->lane[i].request) tokens += deliver_lane(s, i);
    if (tokens > 0) metrics_token_gap(s->now_ns - before, tokens);
    return moved;
}
