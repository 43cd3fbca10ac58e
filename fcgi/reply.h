/* SPDX-License-Identifier: Apache-2.0
 * reply.h - the bytes of answers: one shape for JSON, errors and event streams. Bodies
 * are built by Jansson in the arena of document.h, which every call here resets at its
 * end. */
#ifndef REPLY_H
#define REPLY_H

#include "conn.h"

#include <jansson.h>

struct reply {
    struct conn *conn;
    int keep;     /* 0: close the connection afterwards */
    int head;     /* no body (HEAD) */
    int no_store; /* add Cache-Control */
    int64_t now_ns;
};

/* A complete answer; header: further header lines ending in CRLF, or "". */
void reply_bytes(const struct reply *, int status, const char *type, const char *header,
                 const char *body, size_t len);
/* root may be NULL (no memory): 500. */
void reply_json(const struct reply *, int status, const char *header, json_t *root);
void reply_error(const struct reply *, int status, const char *header, const char *text);

/* Event streams: the head goes out with the first event. -1: the client is gone. */
int reply_stream_begin(const struct reply *);
int reply_event(const struct reply *, json_t *event);
/* data: [DONE] if done, then the end of the answer. */
void reply_stream_end(const struct reply *, int done);

#endif
