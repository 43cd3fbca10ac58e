/* SPDX-License-Identifier: Apache-2.0
 * deliver.c - one step of the batch, and what it produced: events of streams, finished
 * samples, whole replies. Their shape is the dialect's. */
#include "serve.h"

#include "etag.h"
#include "log.h"
#include "receipt.h"
#include "reply.h"

#include <string.h>

enum { OWED_MAX = 64 << 10 }; /* a stream that owes more waits for its client */

static const char no_room[] = "the server has no memory for this reply now: try again";

/* ---- whole replies ----------------------------------------------------------------- */

static void send_whole(struct server *s, struct request *r) {
    struct buffer out = {.budget = &s->engine.queue.budget};
    char header[160 + ETAG_LINES] = "";
    if (r->dialect->whole(r, &out, header, 160) ||
        (r->ask.receipt && receipt_add(r, s->engine.fingerprint, &out))) {
        buffer_free(&out);
        serve_shed(s, r, no_room);
        return;
    }
    etag_lines(r, s->engine.fingerprint, out.bytes, out.len, header + strlen(header));
    serve_account(s, r, 200, finish_name(r->finish));
    reply_bytes(r->conn, s->now_ns, 200, "application/json", header, out.bytes, out.len);
    buffer_free(&out);
    queue_close(&s->engine.queue, r);
}

/* ---- streams ----------------------------------------------------------------------- */

/* The head, and what the dialect begins with: once the prompt is computed. */
static void begin_stream(const struct server *s, struct request *r) {
    char lines[ETAG_LINES];
    etag_lines(r, s->engine.fingerprint, NULL, 0, lines);
    r->begun = 1;
    reply_stream_begin(r->conn, s->now_ns, lines);
    if (r->dialect->begin) reply_event(r->conn, s->now_ns, r->dialect->begin(r));
}

static void stream_lane(const struct server *s, struct place *p,
                        const struct mg_output *out) {
    struct request *r = p->request;
    int has_text = out->len > p->sent;
    if (!r->begun && (has_text || out->finish || r->dialect->begin)) begin_stream(s, r);
    if (has_text) {
        reply_event(
            r->conn, s->now_ns,
            r->dialect->delta(r, p->sample, out->text + p->sent, out->len - p->sent));
        p->sent = out->len;
    }
    if (out->finish)
        reply_event(r->conn, s->now_ns, r->dialect->finish(r, p->sample, out->finish));
}

/* The receipt of the plain reply that the stream's pieces make up. */
static int send_receipt(const struct server *s, struct request *r) {
    struct buffer whole = {.budget = r->text.budget}, event = whole;
    char header[160];
    int rc = r->dialect->whole(r, &whole, header, sizeof header) ||
             buffer_puts(&event, "{\"receipt\":") ||
             receipt_write(r, s->engine.fingerprint, whole.bytes, whole.len, &event) ||
             buffer_puts(&event, "}");
    if (!rc) reply_event_text(r->conn, s->now_ns, event.bytes, event.len);
    buffer_free(&whole);
    buffer_free(&event);
    return rc;
}

static void end_stream(struct server *s, struct request *r) {
    if (r->ask.receipt && send_receipt(s, r)) {
        serve_shed(s, r, no_room);
        return;
    }
    serve_account(s, r, 200, finish_name(r->finish));
    reply_stream_end(r->conn, s->now_ns, 1);
    queue_close(&s->engine.queue, r);
}

/* ---- one lane after a step --------------------------------------------------------- */

static void finish_lane(struct server *s, int lane, const struct mg_output *out) {
    struct place *p = &s->engine.queue.place[lane];
    struct request *r = p->request;
    if ((!r->ask.stream || r->ask.receipt) && queue_keep(&s->engine.queue, lane, out)) {
        serve_shed(s, r, no_room);
        return;
    }
    r->finish = out->finish;
    r->done++;
    queue_release(&s->engine.queue, lane);
    if (r->done < r->ask.n_samples) return;
    if (r->ask.stream)
        end_stream(s, r);
    else
        send_whole(s, r);
}

static void note_first(struct server *s, struct request *r, const struct mg_output *out) {
    if (r->first_ns) return;
    r->first_ns = s->now_ns;
    r->prompt_tokens = (uint64_t)out->n_prompt;
    metrics_first_token(s->now_ns - r->start_ns);
}

/* What a lane produced; returns the tokens it sampled. */
static int deliver_lane(struct server *s, int lane) {
    struct place *p = &s->engine.queue.place[lane];
    struct request *r = p->request;
    const struct mg_output *out = mg_batch_output(s->engine.batch, lane);
    int sampled = out->n_generated - p->generated;
    if (out->n_prefilled < out->n_prompt) return 0;
    if (out->finish == MG_FAULT) {
        log_error("a logit was not finite: request %s ended with 500", r->id);
        serve_fail(s, r, 500, "internal error", "fault");
        return 0;
    }
    note_first(s, r, out);
    p->generated = out->n_generated;
    r->output_tokens += (uint64_t)sampled;
    if (r->ask.stream) {
        stream_lane(s, p, out);
        if (r->conn->gone) {
            serve_cancel(s, r->conn, "cancelled");
            return sampled;
        }
        mg_batch_hold(s->engine.batch, lane, r->conn->owed > OWED_MAX);
    }
    if (out->finish) finish_lane(s, lane, out);
    return sampled;
}

/* Lanes held for a slow client go on when it has taken enough. */
static void unhold(struct server *s) {
    struct queue *q = &s->engine.queue;
    for (int i = 0; i < q->n_lanes; i++) {
        struct request *r = q->place[i].request;
        if (r && r->ask.stream && r->conn->owed <= OWED_MAX)
            mg_batch_hold(s->engine.batch, i, 0);
    }
}

int deliver_step(struct server *s) {
    struct queue *q = &s->engine.queue;
    int64_t before = s->now_ns;
    int tokens = 0;
    unhold(s);
    int moved = mg_batch_step(s->engine.batch);
    if (moved == 0) return 0;
    serve_tick(s);
    for (int i = 0; i < q->n_lanes; i++) {
        if (!q->place[i].request) continue;
        tokens += deliver_lane(s, i);
        body_reset();
    }
    if (tokens > 0) metrics_token_gap(s->now_ns - before, tokens);
    return moved;
}
