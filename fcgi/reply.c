/* SPDX-License-Identifier: Apache-2.0
 * reply.c - see reply.h. */
#include "reply.h"

#include "body.h"

#include <stdio.h>
#include <string.h>

enum { HEAD_MAX = 1024 };

static const char *reason_of(int status) {
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {304, "Not Modified"},
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

static const char *cache_line(const struct conn *c, int status, char buf[100]) {
    int good = status == 200 || status == 304;
    if (!c->cache) return "";
    if (!good || strcmp(c->cache, "no-cache") != 0)
        snprintf(buf, 100, "Cache-Control: %s\r\n", good ? c->cache : "no-store");
    else /* nginx keeps what ended in 1970 and asks each time; else it would not keep */
        snprintf(buf, 100, "X-Accel-Expires: @1\r\nCache-Control: no-cache\r\n");
    return buf;
}

static size_t write_head(char *buf, const struct conn *c, int status, const char *type,
                         const char *header, size_t len) {
    char cache[100];
    int n = snprintf(
        buf, HEAD_MAX,
        "Status: %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n", status,
        reason_of(status), type, len, cache_line(c, status, cache), header);
    return n < HEAD_MAX ? (size_t)n : HEAD_MAX - 1;
}

/* Head and body stand one behind the other so that a small answer is one write. */
void reply_bytes(struct conn *c, int64_t now_ns, int status, const char *type,
                 const char *header, const char *body, size_t len) {
    char head[HEAD_MAX + 512];
    size_t n = write_head(head, c, status, type, header, len);
    if (c->head) len = 0;
    if (len <= sizeof head - n) {
        memcpy(head + n, body, len);
        conn_end(c, head, n + len, !c->last, now_ns);
    } else {
        conn_put(c, head, n, now_ns);
        conn_end(c, body, len, !c->last, now_ns);
    }
}

/* root as compact JSON in the arena behind room bytes, NULL when that is full. */
static char *render(json_t *root, size_t before, size_t after, size_t *len) {
    size_t n = root ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
    char *text = n > 0 ? body_alloc(before + n + after) : NULL;
    if (!text) return NULL;
    *len = json_dumpb(root, text + before, n, JSON_COMPACT);
    return *len == n ? text : NULL;
}

void reply_json(struct conn *c, int64_t now_ns, int status, const char *header,
                json_t *root) {
    static const char failed[] = "{\"error\":\"internal error\"}";
    size_t len;
    char *text = render(root, 0, 0, &len);
    if (text)
        reply_bytes(c, now_ns, status, "application/json", header, text, len);
    else
        reply_bytes(c, now_ns, 500, "application/json", "", failed, sizeof failed - 1);
}

void reply_not_modified(struct conn *c, int64_t now_ns, const char *header) {
    char head[HEAD_MAX], cache[100];
    int n = snprintf(head, sizeof head, "Status: 304 Not Modified\r\n%s%s\r\n",
                     cache_line(c, 304, cache), header);
    conn_end(c, head, n < HEAD_MAX ? (size_t)n : HEAD_MAX - 1, !c->last, now_ns);
}

int reply_stream_begin(struct conn *c, int64_t now_ns, const char *header) {
    char head[HEAD_MAX];
    int n = snprintf(head, sizeof head,
                     "Status: 200 OK\r\nContent-Type: text/event-stream\r\n"
                     "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n%s\r\n",
                     header);
    return conn_put(c, head, n < HEAD_MAX ? (size_t)n : HEAD_MAX - 1, now_ns);
}

int reply_event(struct conn *c, int64_t now_ns, json_t *event) {
    static const char before[] = "data: ", after[] = "\n\n";
    enum { BEFORE = sizeof before - 1, AFTER = sizeof after - 1 };
    size_t len;
    char *text = render(event, BEFORE, AFTER, &len);
    if (!text) {
        c->gone = 1; /* a stream with a hole would be a lie: end it */
        return -1;
    }
    memcpy(text, before, BEFORE);
    memcpy(text + BEFORE + len, after, AFTER);
    return conn_put(c, text, BEFORE + len + AFTER, now_ns);
}

int reply_event_text(struct conn *c, int64_t now_ns, const char *json, size_t len) {
    if (conn_put(c, "data: ", 6, now_ns) || conn_put(c, json, len, now_ns)) return -1;
    return conn_put(c, "\n\n", 2, now_ns);
}

void reply_stream_end(struct conn *c, int64_t now_ns, int done) {
    static const char last[] = "data: [DONE]\n\n";
    conn_end(c, last, done ? sizeof last - 1 : 0, !c->last, now_ns);
}
