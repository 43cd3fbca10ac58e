/* SPDX-License-Identifier: Apache-2.0
 * serve.h - what a worker does with a request: serve.c takes it from the connection to
 * the queue or straight to its answer, deliver.c from the lanes to its answer. */
#ifndef SERVE_H
#define SERVE_H

#include "config.h"
#include "dialect.h"
#include "engine.h"

struct server {
    const struct config *config;
    struct engine engine;
    struct conn_pool *pool;
    char *body;     /* [max_body] one request's body; they are parsed one at a time */
    int draining;   /* nothing new is accepted, idle connections end one by one */
    int64_t now_ns; /* written by serve_tick alone */
    uint64_t n_served;
};

/* Look at the clock. */
void serve_tick(struct server *);
/* A whole request is open on c: answer it, or queue it. */
void serve_request(struct server *, struct conn *c);
/* The peer of c, which has a request or an answer under way, left or stalls. */
void serve_cancel(struct server *, struct conn *c, const char *reason);
/* Answer what has outlasted `timeout`. */
void serve_expire(struct server *);
/* A slice of encoding and one step of the batch, delivered. Returns how much moved. */
int serve_step(struct server *);

/* ---- between serve.c and deliver.c ---- */
/* The request ends with this status: count it and log it. Before its last bytes go out,
 * so that a client that has its answer finds it counted. */
void serve_account(struct server *, const struct request *, int status,
                   const char *reason);
/* End a request, which may have begun to stream, with an error. */
void serve_fail(struct server *, struct request *, int status, const char *text,
                const char *reason);
/* End it because there is no room for it now. */
void serve_shed(struct server *, struct request *, const char *text);

/* deliver.c: one step of the batch, delivered. Returns the lanes that moved. */
int deliver_step(struct server *);

#endif
