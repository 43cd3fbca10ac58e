/* SPDX-License-Identifier: Apache-2.0
 * serve.c - from a request's bytes to the queue, and every answer that needs no lane. */
#include "serve.h"

#include "document.h"
#include "clock.h"
#include "log.h"
#include "route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reply serve_reply(const struct server *s, struct conn *c, int no_store) {
    int keep = !s->draining || s->now_ns < s->keep_until_ns;
    return (struct reply){
        .conn = c, .keep = keep, .no_store = no_store, .now_ns = s->now_ns};
}

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
        .dropped = r->api.dropped,
        .queued_ns = lane - r->start_ns,
        .prefill_ns = first - lane,
        .decode_ns = now - first,
        .total_ns = now - r->start_ns,
        .reason = reason,
    };
    log_and_count(s, &line, r->endpoint);
    metrics_tokens(r->prompt_tokens, r->output_tokens);
}

/* The same for an answer that needs no slot. */
static void account_at_once(struct server *s, const char *id, enum endpoint ep,
                            int64_t start_ns, int status) {
    struct log_request line = {
        .id = id,
        .endpoint = endpoint_names[ep],
        .status = status,
        .total_ns = clock_ns() - start_ns,
        .reason = status < 400 ? "ok" : "refused",
    };
    log_and_count(s, &line, ep);
}

/* ---- answers without a body to read ------------------------------------------------ */

/* Health, and the pages of operators. */
static void answer_page(struct server *s, struct conn *c, const struct route *route,
                        const char *id) {
    struct reply reply = serve_reply(s, c, 0);
    const char *type = "text/plain";
    char *text = NULL;
    size_t len = 0;
    reply.head = route->head;
    if (route->endpoint == EP_METRICS) {
        type = "text/plain; version=0.0.4; charset=utf-8";
        text = metrics_render(&len);
    } else if (route->endpoint == EP_STATUS) {
        type = "application/json";
        text = metrics_status(&len);
    }
    int found = text || route->endpoint == EP_HEALTH;
    account_at_once(s, id, route->endpoint, c->since_ns, found ? 200 : 500);
    if (text) {
        reply_bytes(&reply, 200, type, "", text, len);
    } else if (found) {
        reply_bytes(&reply, 200, type, "", "Ok", 2);
    } else {
        log_error("no memory for the text of an operator's page");
        reply_error(&reply, 500, "", "internal error");
    }
    free(text);
}

/* ---- generate and chat ------------------------------------------------------------- */

/* Read the body into s->body: its length, or -1 with *err filled. */
static int64_t read_body(struct server *s, struct conn *c, struct api_error *err) {
    const char *said = conn_param(c, "CONTENT_LENGTH");
    int64_t n = conn_body(c, s->body);
    if (n >= 0 && (*said == '\0' || strtoull(said, NULL, 10) == (uint64_t)n)) return n;
    err->status = 400;
    snprintf(err->text, sizeof err->text,
             "the body is not as long as its Content-Length says");
    return -1;
}

/* Body, JSON, fields: 0 with r->api filled, or -1 with *err. */
static int parse_body(struct server *s, struct request *r, struct api_error *err) {
    struct document d;
    int64_t n = read_body(s, r->conn, err);
    if (n < 0) return -1;
    switch (document_parse(&d, s->body, (size_t)n)) {
    case DOCUMENT_OK: break;
    case DOCUMENT_BROKEN:
        err->status = 400;
        snprintf(err->text, sizeof err->text, "the body is not JSON: %s", d.error);
        return -1;
    case DOCUMENT_TOO_BIG:
        err->status = 413;
        snprintf(err->text, sizeof err->text,
                 "the body's JSON takes too much memory: send fewer values");
        return -1;
    }
    return api_parse(&d, r->endpoint == EP_CHAT, s->model, s->prompt,
                     s->config->compat_05, &r->api, r->tokens, err);
}

/* Refuse a request that has its slot but no lane. */
static void refuse(struct server *s, struct request *r, const struct api_error *err,
                   const char *header, const char *reason) {
    struct reply reply = serve_reply(s, r->conn, 1);
    document_reset();
    serve_account(s, r, err->status, reason);
    reply_error(&reply, err->status, header, err->text);
    request_close(&s->requests, r);
}

static void take_request(struct server *s, struct conn *c, const struct route *route,
                         const char *id) {
    struct request *r = request_open(&s->requests, c);
    struct api_error err = {0};
    r->endpoint = route->endpoint;
    snprintf(r->id, sizeof r->id, "%s", id);
    if (parse_body(s, r, &err) < 0) {
        refuse(s, r, &err, "", "refused");
        return;
    }
    document_reset();
    if (!r->api.stream && !route->accept_json) {
        err = (struct api_error){
            406, "without \"stream\": true the reply is application/json"};
        refuse(s, r, &err, "", "refused");
        return;
    }
    requests_fill(&s->requests, s->now_ns); /* lanes that fell free belong to who waits */
    if (request_enqueue(&s->requests, r) < 0) {
        err = (struct api_error){503,
                                 "every lane is taken and the queue is full: try again"};
        metrics_shed();
        refuse(s, r, &err, "Retry-After: 1\r\n", "shed");
        return;
    }
    requests_fill(&s->requests, s->now_ns);
}

void serve_request(struct server *s, struct conn *c) {
    struct route route = route_request(c);
    char id[64];
    snprintf(id, sizeof id, "%s", conn_param(c, "REQUEST_ID"));
    if (route.status) {
        struct reply reply = serve_reply(s, c, route.post);
        reply.head = strcmp(conn_param(c, "REQUEST_METHOD"), "HEAD") == 0;
        account_at_once(s, id, route.endpoint, c->since_ns, route.status);
        reply_error(&reply, route.status, route.header, route.error);
    } else if (route.post) {
        take_request(s, c, &route, id);
    } else {
        answer_page(s, c, &route, id);
    }
}

/* ---- ends before the end ----------------------------------------------------------- */

void serve_cancel(struct server *s, struct conn *c, const char *reason) {
    struct request *r = c->state == CONN_BUSY ? c->request : NULL;
    conn_close(c);
    if (!r) return;
    metrics_cancelled();
    serve_account(s, r, 499, reason);
    request_close(&s->requests, r);
}

void serve_fail(struct server *s, struct request *r, int status, const char *text,
                const char *reason) {
    struct reply reply = serve_reply(s, r->conn, 1);
    document_reset();
    serve_account(s, r, status, reason);
    if (r->begun) {
        reply_event(&reply, json_pack("{s:s}", "error", text));
        reply_stream_end(&reply, 0);
    } else {
        reply_error(&reply, status, "", text);
    }
    request_close(&s->requests, r);
}

void serve_expire(struct server *s) {
    int64_t limit = s->config->timeout_ms * 1000000;
    for (struct request *r = s->requests.first, *next; r; r = next) {
        next = r->next;
        if (s->now_ns - r->start_ns < limit) continue;
        serve_fail(s, r, 408, "the request took longer than the server allows",
                   "timeout");
    }
}
