/* SPDX-License-Identifier: Apache-2.0
 * conn.h - connections from the web server. Nobody but conn*.c knows libfcgi.
 *
 * Rules: a request is handed to libfcgi only when all its bytes are here (record.h), and
 * bytes go out only when the socket takes them at once; so no call in here waits for a
 * peer. What a peer has not taken yet is owed by its connection, in bounded memory. */
#ifndef CONN_H
#define CONN_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

enum conn_state {
    CONN_FREE,
    CONN_IDLE,    /* open, no request: fresh or parked */
    CONN_READING, /* part of a request is here */
    CONN_BUSY,    /* a request is being answered */
    CONN_ENDING,  /* the answer is complete, its last bytes are owed */
};

struct conn_pool;

/* The part of a connection that the loop may look at. */
struct conn {
    enum conn_state state;
    int fd;
    int gone;          /* the peer left or failed: nothing more can be written */
    int parked;        /* idle after an answer: the next request may never come */
    int last;          /* the next answer ends the connection (the worker drains) */
    int head;          /* of this request: the answer has no body */
    const char *cache; /* of this request: Cache-Control of 200 and 304, errors then
                          have no-store; NULL: none */
    size_t owed;       /* bytes accepted by conn_put that the socket has not taken */
    int64_t since_ns;  /* when the request's first byte was seen; idle: when it was
                         parked */
    int64_t moved_ns;  /* when bytes last moved in either direction */
    void *request;     /* the loop's own */
};

/* max connections; bodies over max_body are drained and flagged. NULL: out of memory. */
struct conn_pool *conn_pool_new(int max, size_t max_body);
void conn_pool_free(struct conn_pool *);
size_t conn_pool_bytes(int max, size_t max_body);      /* the most it can hold */
int conn_count(const struct conn_pool *);              /* open connections */
struct conn *conn_at(const struct conn_pool *, int i); /* 0 <= i < conn_count */
int conn_full(const struct conn_pool *);
int conn_max(const struct conn_pool *);

/* Accept one connection. 1: *c is it; 0: nothing there; -1: errno (EMFILE ...). */
int conn_accept(struct conn_pool *, int listen_fd, int64_t now_ns, struct conn **c);
/* Take over the open connection fd, as another worker got it from conn_accept; parked: it
 * has had an answer there. The pool must not be full. */
void conn_adopt(struct conn_pool *, int fd, int parked, int64_t now_ns);
/* The CGI request in this process's environment, stdin and stdout, as a connection. */
struct conn *conn_cgi(struct conn_pool *, int64_t now_ns);

/* 1 = bytes are here that nobody has read: an idle connection is about to be used. */
int conn_has_bytes(const struct conn *);
/* What poll() should watch c for; 0 = nothing now. */
short conn_events(const struct conn *);

/* The socket is readable: 1 = a whole request is here and open (conn_param, conn_body),
 * state BUSY; 0 = not yet; -1 = the peer left or sent what no web server sends: it is
 * closed. */
int conn_read(struct conn *, int64_t now_ns);

const char *conn_param(const struct conn *, const char *name); /* "" if absent */
uint64_t conn_body_size(const struct conn *);
int conn_body_too_large(const struct conn *);
/* Read the whole body into buf (conn_body_size bytes, not too large). Its length, or -1
 * when it cannot be read. CGI: less than announced when stdin ends early. */
int64_t conn_body(struct conn *, char *buf);

/* Add n bytes to the answer. -1: no memory for what is owed, or the peer is gone. */
int conn_put(struct conn *, const char *bytes, size_t n, int64_t now_ns);
/* Add the last n bytes and end the request; park the connection, or close it (keep = 0,
 * or the peer wants it so). What the socket does not take now is owed: state ENDING. A
 * small answer is one write. */
void conn_end(struct conn *, const char *bytes, size_t n, int keep, int64_t now_ns);
/* poll() says writable: send what is owed. */
void conn_flush(struct conn *, int64_t now_ns);
/* Drop it, whatever its state. */
void conn_close(struct conn *);

#endif
