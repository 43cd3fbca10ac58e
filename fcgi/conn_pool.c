/* SPDX-License-Identifier: Apache-2.0
 * conn_pool.c - where connections come from and go: the places of the pool, accepting,
 * taking over, closing. Nothing here looks at a request. */
#include "conn_peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn_pool *conn_pool_new(int max, size_t max_body) {
    struct conn_pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->peer = calloc((size_t)max, sizeof *p->peer);
    p->live = calloc((size_t)max, sizeof *p->live);
    p->spare = calloc((size_t)max, sizeof *p->spare);
    if (!p->peer || !p->live || !p->spare || FCGX_Init() != 0) {
        conn_pool_free(p);
        return NULL;
    }
    p->max = max;
    p->max_body = max_body;
    for (int i = 0; i < max; i++) {
        p->peer[i].pub.fd = p->peer[i].spool = -1;
        p->spare[i] = &p->peer[max - 1 - i];
    }
    return p;
}

void conn_pool_free(struct conn_pool *p) {
    if (!p) return;
    while (p->n_live > 0) conn_close(&p->live[p->n_live - 1]->pub);
    free(p->peer);
    free(p->live);
    free(p->spare);
    free(p);
}

size_t conn_pool_bytes(int max, size_t max_body) {
    return sizeof(struct conn_pool) +
           (size_t)max * (sizeof(struct peer) + 2 * sizeof(void *)) +
           SPOOLS * (max_body + RECORD_MAX_PARAMS + SPOOL_STEP);
}

int conn_count(const struct conn_pool *p) {
    return p->n_live;
}

struct conn *conn_at(const struct conn_pool *p, int i) {
    return &p->live[i]->pub;
}

int conn_max(const struct conn_pool *p) {
    return p->max;
}

int conn_full(const struct conn_pool *p) {
    return p->n_live == p->max;
}

/* ---- opening and closing ----------------------------------------------------------- */

static struct peer *peer_open(struct conn_pool *p, int fd, int64_t now_ns) {
    struct peer *c = p->spare[p->max - p->n_live - 1];
    memset(c, 0, sizeof *c);
    c->pool = p;
    c->pub.state = CONN_IDLE;
    c->pub.fd = fd;
    c->pub.since_ns = c->pub.moved_ns = now_ns;
    c->spool = -1;
    c->live_at = p->n_live;
    p->live[p->n_live++] = c;
    return c;
}

void peer_drop_spool(struct peer *c) {
    struct conn_pool *p = c->pool;
    if (c->spool >= 0) {
        close(c->spool);
        c->spool = -1;
        p->n_spool--;
    }
    c->starved = 0;
}

void peer_forget(struct peer *c) {
    struct conn_pool *p = c->pool;
    free(c->owed);
    c->owed = NULL;
    c->pub.owed = 0;
    c->pub.state = CONN_FREE;
    c->pub.fd = -1;
    p->live[c->live_at] = p->live[--p->n_live];
    p->live[c->live_at]->live_at = c->live_at;
    p->spare[p->max - p->n_live - 1] = c;
}

void conn_close(struct conn *conn) {
    struct peer *c = peer_of(conn);
    if (!c->cgi) {
        int opened = conn->state == CONN_BUSY || conn->state == CONN_ENDING;
        if (opened) {
            c->fcgi.ipcFd =
                -1; /* the socket is closed below, the memfd by peer_drop_spool */
            FCGX_Free(&c->fcgi, 0);
        }
        peer_drop_spool(c);
        close(conn->fd);
    }
    peer_forget(c);
}

int conn_accept(struct conn_pool *p, int listen_fd, int64_t now_ns, struct conn **out) {
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    int fd = accept4(listen_fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
    if (fd < 0) {
        int retry = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
        return retry ? 0 : -1;
    }
    /* Reads and writes never need to wait (see conn.h); these bound them against a peer
     * that breaks the protocol in a way nobody thought of. */
    struct timeval brief = {.tv_usec = 20000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    if (from.ss_family != AF_UNIX) {
        int one = 1, buffer = 256 << 10;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    }
    *out = &peer_open(p, fd, now_ns)->pub;
    return 1;
}

void conn_adopt(struct conn_pool *p, int fd, int parked, int64_t now_ns) {
    peer_open(p, fd, now_ns)->pub.parked = parked;
}

int conn_has_bytes(const struct conn *conn) {
    char byte;
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

struct conn *conn_cgi(struct conn_pool *p, int64_t now_ns) {
    struct peer *c = peer_open(p, STDOUT_FILENO, now_ns);
    const char *length = getenv("CONTENT_LENGTH");
    c->cgi = 1;
    c->scan.body = length ? strtoull(length, NULL, 10) : 0;
    c->pub.state = CONN_BUSY;
    return &c->pub;
}

short conn_events(const struct conn *conn) {
    const struct peer *c = peer_of(conn);
    if (c->cgi) return 0;
    switch (conn->state) {
    case CONN_FREE: return 0;
    case CONN_IDLE: return POLLIN;
    case CONN_READING:
        if (c->starved && c->pool->n_spool >= SPOOLS) return POLLRDHUP;
        return POLLIN;
    case CONN_BUSY:
    case CONN_ENDING: break;
    }
    return (short)(POLLRDHUP | (conn->owed ? POLLOUT : 0));
}
