/* SPDX-License-Identifier: Apache-2.0
 * reply.c - status lines, headers, JSON bodies, server-sent events. Knows no tokens and
 * no lanes. */
#include "reply.h"

#include "document.h"

#include <stdio.h>
#include <string.h>

enum { HEAD_MAX = 1024 };

static const char *reason_of(int status) {
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status) return reasons[i].reason;
    return "Error";
}

static size_t write_head(char *buf, const struct reply *r, int status, const char *type,
                         const char *header, size_t len) {
    int n =
        snprintf(buf, HEAD_MAX,
                 "Status: %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n",
                 status, reason_of(status), type, len,
                 r->no_store ? "Cache-Control: no-store\r\n" : "", header);
    return n < HEAD_MAX ? (size_t)n : HEAD_MAX - 1;
}

/* Head and body stand one behind the other so that a small answer is one write. */
void reply_bytes(const struct reply *r, int status, const char *type, const char *header,
                 const char *body, size_t len) {
    char head[HEAD_MAX + 512];
    size_t n = write_head(head, r, status, type, header, len);
    if (r->head) len = 0;
    if (len <= sizeof head - n) {
        memcpy(head + n, body, len);
        conn_end(r->conn, head, n + len, r->keep, r->now_ns);
    } else {
        conn_put(r->conn, head, n, r->now_ns);
        conn_end(r->conn, body, len, r->keep, r->now_ns);
    }
    document_reset();
}

/* root as compact JSON in the arena behind room bytes, NULL when that is full. */
static char *render(json_t *root, size_t before, size_t after, size_t *len) {
    size_t n = root ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
    char *text = n > 0 ? document_alloc(before + n + after) : NULL;
    if (!text) return NULL;
    *len = json_dumpb(root, text + before, n, JSON_COMPACT);
    return *len == n ? text : NULL;
}

void reply_json(const struct reply *r, int status, const char *header, json_t *root) {
    size_t len;
    char *text = render(root, HEAD_MAX, 0, &len);
    if (!text) {
        static const char failed[] = "{\"error\":\"internal error\"}";
        reply_bytes(r, 500, "application/json", "", failed, sizeof failed - 1);
        return;
    }
    char head[HEAD_MAX];
    size_t n = write_head(head, r, status, "application/json", header, len);
    char *start = text + HEAD_MAX - n;
    memcpy(start, head, n);
    conn_end(r->conn, start, r->head ? n : n + len, r->keep, r->now_ns);
    document_reset();
}

void reply_error(const struct reply *r, int status, const char *header,
                 const char *text) {
    reply_json(r, status, header, json_pack("{s:s}", "error", text));
}

int reply_stream_begin(const struct reply *r) {
    static const char head[] = "Status: 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n\r\n";
    return conn_put(r->conn, head, sizeof head - 1, r->now_ns);
}

int reply_event(const struct reply *r, json_t *event) {
    static const char before[] = "data: ", after[] = "\n\n";
    enum { BEFORE = sizeof before - 1, AFTER = sizeof after - 1 };
    size_t len;
    int rc = -1;
    char *text = render(event, BEFORE, AFTER, &len);
    if (text) {
        memcpy(text, before, BEFORE);
        memcpy(text + BEFORE + len, after, AFTER);
        rc = conn_put(r->conn, text, BEFORE + len + AFTER, r->now_ns);
    } else {
        r->conn->gone = 1; /* a stream with a hole would be a lie: end it */
    }
    document_reset();
    return rc;
}

void reply_stream_end(const struct reply *r, int done) {
    static const char last[] = "data: [DONE]\n\n";
    conn_end(r->conn, last, done ? sizeof last - 1 : 0, r->keep, r->now_ns);
}
