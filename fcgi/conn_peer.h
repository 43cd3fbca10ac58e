/* SPDX-License-Identifier: Apache-2.0
 * conn_peer.h - the whole of a connection, for conn.c (requests) and conn_pool.c (places
 * and descriptors) alone. Here libfcgi ends: nothing else includes it. */
#ifndef CONN_PEER_H
#define CONN_PEER_H

#include "conn.h"
#include "record.h"

#include <fcgiapp.h>

enum {
    PEEK = 64 << 10,      /* a request up to this size needs no memfd */
    SPOOLS = 8,           /* requests gathered in memfds at one time */
    SPOOL_STEP = 1 << 20, /* bytes gathered from one connection before others get their
                             turn */
};

struct peer {
    struct conn pub; /* first: peer_of casts back */
    struct conn_pool *pool;
    FCGX_Request fcgi;
    struct record_scan scan;
    int live_at;    /* its place in pool->live */
    int cgi;        /* stdin and stdout instead of a socket */
    int spool;      /* memfd with the records so far; -1 = none */
    int starved;    /* waits for a free spool */
    int input_done; /* stdin is read to its end, ipcFd is the socket */
    int trailing;   /* bytes after the request: not a connection to keep */
    int keep;       /* what conn_end was told */
    long credit;
    char *owed; /* malloc'd, [owed_at, owed_len) is unsent */
    size_t owed_at, owed_len, owed_cap;
};

struct conn_pool {
    struct peer *peer;   /* [max] */
    struct peer **live;  /* [max], the first n_live are open */
    struct peer **spare; /* [max], the first max - n_live are free */
    int max, n_live, n_spool;
    size_t max_body;
    unsigned char peek[PEEK];
};

static inline struct peer *peer_of(const struct conn *c) {
    return (struct peer *)c;
}

/* The descriptor is closed already: give the place back. */
void peer_forget(struct peer *);
/* What was gathered is read or given up: the next may gather. */
void peer_drop_spool(struct peer *);

#endif
