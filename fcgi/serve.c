/* SPDX-License-Identifier: Apache-2.0
 * serve.c - from a request's bytes to the queue, and every answer that needs no lane. A
 * request walks forward: route, body, dialect, queue. */
#include "serve.h"

#include "clock.h"
#include "etag.h"
#include "log.h"
#include "query.h"
#include "reply.h"
#include "route.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char retry_after[] = "Retry-After: 1\r\n";

void serve_tick(struct server *s) {
    s->now_ns = clock_ns();
}

/* ---- counting ---------------------------------------------------------------------- */

static void log_and_count(struct server *s, const struct log_request *line,
                          enum endpoint ep) {
    metrics_request(ep, line->status, line->total_ns);
    log_request(line);
    s->n_served++;
}

void serve_account(struct server *s, const struct request *r, int status,
                   const char *reason) {
    int64_t now = clock_ns(), lane = r->lane_ns ? r->lane_ns : now;
    int64_t first = r->first_ns ? r->first_ns : now;
    struct log_request line = {
        .id = r->id,
        .endpoint = endpoint_names[r->endpoint],
        .status = status,
        .prompt_tokens = r->prompt_tokens,
        .output_tokens = r->output_tokens,
        .dropped = r->dropped,
        .queued_ns = lane - r->start_ns,
        .prefill_ns = first - lane,
        .decode_ns = now - first,
        .total_ns = now - r->start_ns,
        .reason = reason,
    };
    log_and_count(s, &line, r->endpoint);
    metrics_tokens(r->prompt_tokens, r->output_tokens);
}

/* The same for what needs no slot. */
static void account_at_once(struct server *s, const char *id, enum endpoint ep,
                            int64_t start_ns, int status, const char *reason) {
    struct log_request line = {
        .id = id,
        .endpoint = endpoint_names[ep],
        .status = status,
        .total_ns = clock_ns() - start_ns,
        .reason = reason,
    };
    log_and_count(s, &line, ep);
}

/* ---- answers without a body to read ------------------------------------------------ */

/* Health, and the pages of operators. */
static void answer_page(struct server *s, struct conn *c, enum endpoint page,
                        const char *id) {
    const char *type = "text/plain";
    char *text = NULL;
    size_t len = 0;
    if (page == EP_METRICS) {
        type = "text/plain; version=0.0.4; charset=utf-8";
        text = metrics_render(&len);
    } else if (page == EP_STATUS) {
        type = "application/json";
        text = metrics_status(&len);
    }
    int found = text || page == EP_HEALTH;
    account_at_once(s, id, page, c->since_ns, found ? 200 : 500,
                    found ? "ok" : "refused");
    if (text) {
        reply_bytes(c, s->now_ns, 200, type, "", text, len);
    } else if (found) {
        reply_bytes(c, s->now_ns, 200, type, "", "Ok", 2);
    } else {
        log_error("no memory for the text of an operator's page");
        reply_json(c, s->now_ns, 500, "", dialect_generate.error(500, "internal error"));
    }
    free(text);
}

/* What the path, the method or a header rules out. */
static void answer_refusal(struct server *s, struct conn *c, const struct route *route,
                           const char *id) {
    account_at_once(s, id, route->endpoint, c->since_ns, route->status, "refused");
    reply_json(c, s->now_ns, route->status, route->header,
               route->dialect->error(route->status, route->error));
}

/* ---- requests with a body ---------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int refuse(struct refusal *why, int status,
                                                        const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    why->status = status;
    vsnprintf(why->text, sizeof why->text, fmt, ap);
    va_end(ap);
    return -1;
}

/* Read the body into s->body: its length, or -1 with *why filled. */
static int64_t read_body(struct server *s, struct conn *c, struct refusal *why) {
    const char *said = conn_param(c, "CONTENT_LENGTH");
    int64_t n = conn_body(c, s->body);
    if (n >= 0 && (*said == '\0' || strtoull(said, NULL, 10) == (uint64_t)n)) return n;
    return refuse(why, 400, "the body is not as long as its Content-Length says");
}

/* What is asked for, as JSON in s->body. */
static int64_t read_ask(struct server *s, struct conn *c, const struct route *route,
                        struct refusal *why) {
    if (!route->get) return read_body(s, c, why);
    return query_to_json(conn_param(c, "QUERY_STRING"), s->body, s->config->max_body,
                         why);
}

/* Body or query, JSON, fields: 0 with r->ask filled, or -1 with *why. */
static int parse_ask(struct server *s, struct request *r, const struct route *route,
                     struct refusal *why) {
    struct body d;
    struct dialect_limits limits = {.model = mg_model_info(s->engine.model),
                                    .compat_05 = s->config->compat == 1,
                                    .max_text = s->config->max_text};
    int64_t n = read_ask(s, r->conn, route, why);
    if (n < 0) return -1;
    switch (body_parse(&d, s->body, (size_t)n)) {
    case BODY_OK: break;
    case BODY_BROKEN:
        if (route->get) return refuse(why, 400, "a number of the query is too large");
        return refuse(why, 400, "the body is not JSON: %s", d.error);
    case BODY_TOO_BIG:
        return refuse(why, 413,
                      "the body's JSON takes too much memory: send fewer values");
    }
    return r->dialect->parse(r, &d, &limits, why);
}

static int prepare(struct server *s, struct request *r, const struct route *route,
                   struct refusal *why) {
    const struct engine *e = &s->engine;
    if (route->pinned && strncmp(route->pinned, e->fingerprint, MG_FINGERPRINT) != 0)
        return refuse(why, 404, "the model of this path is not the one that is served");
    if (parse_ask(s, r, route, why)) return -1;
    if (!r->ask.stream && !route->accept_json)
        return refuse(why, 406, "without \"stream\": true the reply is application/json");
    if (r->ask.receipt && !*e->fingerprint)
        return refuse(why, 400, "no \"receipt\" here: with BLIS no byte is promised");
    if (etag_make(r, mg_model_info(e->model), e->fingerprint))
        return refuse(why, 503, "no memory for so long a receipt now: try again");
    return 0;
}

static int enqueue(struct server *s, struct request *r, struct refusal *why) {
    queue_fill(&s->engine.queue, s->now_ns); /* lanes that fell free are for who waits */
    if (queue_put(&s->engine.queue, r, why)) return -1;
    queue_fill(&s->engine.queue, s->now_ns);
    return 0;
}

/* The client has the reply already. */
static void answer_unchanged(struct server *s, struct request *r) {
    char lines[ETAG_LINES];
    etag_lines(r, s->engine.fingerprint, NULL, 0, lines);
    serve_account(s, r, 304, "unchanged");
    reply_not_modified(r->conn, s->now_ns, lines);
    queue_close(&s->engine.queue, r);
}

static void take_request(struct server *s, struct conn *c, const struct route *route,
                         const char *id) {
    struct request *r = queue_open(&s->engine.queue, c);
    struct refusal why = {0};
    r->endpoint = route->endpoint;
    r->dialect = route->dialect;
    snprintf(r->id, sizeof r->id, "%s", id);
    int rc = prepare(s, r, route, &why);
    if (!rc && etag_matches(conn_param(c, "HTTP_IF_NONE_MATCH"), r->etag)) {
        answer_unchanged(s, r);
        return;
    }
    if (!rc) rc = enqueue(s, r, &why);
    if (!rc) return;
    if (why.status == 503)
        serve_shed(s, r, why.text);
    else
        serve_fail(s, r, why.status, why.text, "refused");
}

static const char *cache_control(const struct route *route) {
    if (route->pinned) return "public, max-age=31536000, immutable";
    return route->get ? "no-cache" : route->post ? "no-store" : NULL;
}

void serve_request(struct server *s, struct conn *c) {
    struct route route = route_request(c);
    char id[64];
    snprintf(id, sizeof id, "%s", conn_param(c, "REQUEST_ID"));
    c->head = strcmp(conn_param(c, "REQUEST_METHOD"), "HEAD") == 0;
    c->cache = cache_control(&route);
    if (route.status)
        answer_refusal(s, c, &route, id);
    else if (route.post || route.get)
        take_request(s, c, &route, id);
    else
        answer_page(s, c, route.endpoint, id);
    body_reset();
}

/* ---- ends before the end ----------------------------------------------------------- */

void serve_cancel(struct server *s, struct conn *c, const char *reason) {
    struct request *r = c->state == CONN_BUSY ? c->request : NULL;
    int in_part = c->state == CONN_READING;
    int64_t since = c->since_ns;
    conn_close(c);
    if (!r && !in_part) return; /* an answer that was counted when it was complete */
    metrics_cancelled();
    if (in_part) {
        account_at_once(s, "", EP_OTHER, since, 499, reason);
        return;
    }
    serve_account(s, r, 499, reason);
    queue_close(&s->engine.queue, r);
}

static void end_with_error(struct server *s, struct request *r, int status,
                           const char *header, const char *text) {
    json_t *error = r->dialect->error(status, text);
    if (r->begun) {
        reply_event(r->conn, s->now_ns, error);
        reply_stream_end(r->conn, s->now_ns, 0);
    } else {
        reply_json(r->conn, s->now_ns, status, header, error);
    }
    queue_close(&s->engine.queue, r);
}

void serve_fail(struct server *s, struct request *r, int status, const char *text,
                const char *reason) {
    serve_account(s, r, status, reason);
    end_with_error(s, r, status, "", text);
}

void serve_shed(struct server *s, struct request *r, const char *text) {
    metrics_shed();
    serve_account(s, r, 503, "shed");
    end_with_error(s, r, 503, retry_after, text);
}

void serve_expire(struct server *s) {
    int64_t limit = s->config->timeout_ms * NS_PER_MS;
    for (struct request *r = s->engine.queue.first, *next; r; r = next) {
        next = r->next;
        if (s->now_ns - r->start_ns < limit) continue;
        serve_fail(s, r, 408, "the request took longer than the server allows",
                   "timeout");
        body_reset();
    }
}

/* ---- a step ------------------------------------------------------------------------ */

/* A slice of the oldest long conversation. */
static int encode_slice(struct server *s) {
    struct queue *q = &s->engine.queue;
    struct refusal why = {0};
    if (q->n_encoding == 0) return 0;
    queue_fill(q, s->now_ns);
    struct request *failed = queue_encode(q, &why);
    if (failed && why.status == 503)
        serve_shed(s, failed, why.text);
    else if (failed)
        serve_fail(s, failed, why.status, why.text, "refused");
    body_reset();
    return 1;
}

int serve_step(struct server *s) {
    int encoded = encode_slice(s);
    queue_fill(&s->engine.queue, s->now_ns);
    int moved = s->engine.queue.n_busy ? deliver_step(s) : 0;
    return moved ? moved : encoded;
}
