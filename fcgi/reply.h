/* SPDX-License-Identifier: Apache-2.0
 * reply.h - the bytes of answers: status line and headers, JSON, event streams. Knows no
 * dialect, no tokens and no lanes. Whether there is a body (HEAD), Cache-Control and the
 * end of the connection are what conn->head, cache and last say. JSON is taken over
 * and lives in the arena of body.h. */
#ifndef REPLY_H
#define REPLY_H

#include "conn.h"

#include <jansson.h>

/* A complete answer; header: further header lines ending in CRLF, or "". */
void reply_bytes(struct conn *, int64_t now_ns, int status, const char *type,
                 const char *header, const char *body, size_t len);
/* root may be NULL (no memory): 500. */
void reply_json(struct conn *, int64_t now_ns, int status, const char *header,
                json_t *root);

/* 304, without a body. */
void reply_not_modified(struct conn *, int64_t now_ns, const char *header);

/* Event streams: the head, then events. -1: the client is gone. */
int reply_stream_begin(struct conn *, int64_t now_ns, const char *header);
int reply_event(struct conn *, int64_t now_ns, json_t *event);
/* The same of JSON that is text already. */
int reply_event_text(struct conn *, int64_t now_ns, const char *json, size_t len);
/* data: [DONE] if done, then the end of the answer. */
void reply_stream_end(struct conn *, int64_t now_ns, int done);

#endif
