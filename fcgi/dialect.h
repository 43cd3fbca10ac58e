/* SPDX-License-Identifier: Apache-2.0
 * dialect.h - the shape of requests and replies: one table for each route, one file for
 * each API. The rest of the service knows none of them. JSON that a call returns lives in
 * the arena of body.h; NULL: no memory. */
#ifndef DIALECT_H
#define DIALECT_H

#include "body.h"
#include "canon.h"
#include "request.h"

struct dialect_limits {
    const struct mg_model_info *model;
    int compat_05;
    size_t max_text; /* bytes of samples that a request may make at most */
};

struct dialect {
    const char *route; /* its path */
    /* The body as r->ask, and the messages of a chat as r->messages, borrowed from the
     * body. 0, or -1 with *why. */
    int (*parse)(struct request *r, const struct body *, const struct dialect_limits *,
                 struct refusal *why);
    /* Every member of r->ask that may change a byte of the reply, and the messages, as
     * parse would take them. */
    void (*canonical)(const struct request *, const struct mg_model_info *,
                      struct canon *);
    /* Streams: the event before the first text, once the prompt is computed (a NULL
     * function: none); len bytes of new text of a sample; a sample's end. */
    json_t *(*begin)(const struct request *);
    json_t *(*delta)(const struct request *, int sample, const char *text, size_t len);
    json_t *(*finish)(const struct request *, int sample, enum mg_finish);
    /* The whole reply into *out, and header lines (each ending in CRLF) into header: 0,
     * or -1: no memory. Calls body_reset between its pieces. */
    int (*whole)(const struct request *, struct buffer *out, char *header, size_t size);
    json_t *(*error)(int status, const char *text);
};

extern const struct dialect dialect_generate, dialect_chat; /* the native API */

/* The one of that path; NULL: none. */
const struct dialect *dialect_of(const char *route);

const char *finish_name(enum mg_finish);

#endif
