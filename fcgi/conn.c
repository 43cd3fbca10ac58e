/* SPDX-License-Identifier: Apache-2.0
 * conn.c - requests on connections: reading them whole, sending what sockets take,
 * parking. libfcgi's own accept loop is not used: it spins and blocks under signals and
 * silent peers.
 *
 * Two ways in. A request that has arrived completely, the normal case, is peeked at,
 * scanned, and then read by libfcgi from the socket itself. One that comes in pieces is
 * gathered in a memfd, and libfcgi reads that. Either way libfcgi's blocking reads find
 * every byte they ask for. */
#include "conn_peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PIECE = 8000,         /* bytes handed to libfcgi at once: one record, one write */
    CREDIT = 32 << 10,    /* bytes a writable socket is known to take (both kinds of
                             socket take more) */
    WRITE_COST = 1 << 10, /* what the kernel books for one small write besides its
                             bytes */
};

/* ---- reading ----------------------------------------------------------------------- */

/* Let libfcgi read begin record and parameters from in_fd (the socket or the memfd). */
static int open_request(struct peer *c, int in_fd) {
    FCGX_InitRequest(&c->fcgi, -1, 0);
    c->fcgi.ipcFd = in_fd;
    c->fcgi.keepConnection = 1; /* or Accept_r's leading Finish_r closes the descriptor */
    if (FCGX_Accept_r(&c->fcgi) < 0) { /* it has closed in_fd */
        if (in_fd == c->pub.fd) {
            peer_forget(c);
            return -1;
        }
        c->spool = -1;
        c->pool->n_spool--;
        close(c->pub.fd);
        peer_forget(c);
        return -1;
    }
    FCGX_Detach(&c->fcgi); /* a plain close at the end, no lingering */
    c->keep = c->fcgi.keepConnection && !c->trailing;
    c->input_done = 0;
    c->credit = CREDIT;
    c->pub.owed = c->owed_at = c->owed_len = 0;
    c->pub.state = CONN_BUSY;
    return 1;
}

/* The memfd that gathers this request: 0, or -1 when there is none to be had now. */
static int open_spool(struct peer *c) {
    struct conn_pool *p = c->pool;
    if (p->n_spool >= SPOOLS) {
        c->starved = 1;
        return -1;
    }
    c->spool = memfd_create("microgpt-request", MFD_CLOEXEC);
    if (c->spool < 0) return -1;
    c->starved = 0;
    p->n_spool++;
    record_scan_init(&c->scan);
    return 0;
}

int conn_body_too_large(const struct conn *conn) {
    const struct peer *c = peer_of(conn);
    return c->scan.body > c->pool->max_body;
}

static int append_spool(struct peer *c, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = write(c->spool, c->pool->peek + at, n - at);
        if (k < 0) return -1;
        at += (size_t)k;
    }
    return 0;
}

/* Gather what has arrived. As conn_read. */
static int read_spool(struct peer *c, int64_t now_ns) {
    struct conn_pool *p = c->pool;
    for (size_t got = 0; got < SPOOL_STEP;) {
        ssize_t n = recv(c->pub.fd, p->peek, PEEK, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (n <= 0) return -1;
        size_t used;
        int drain = conn_body_too_large(&c->pub); /* all params are kept by then */
        c->pub.moved_ns = now_ns;
        got += (size_t)n;
        enum record_state state = record_scan(&c->scan, p->peek, (size_t)n, &used);
        if (state == RECORD_BAD || (!drain && append_spool(c, used) < 0)) return -1;
        if (state == RECORD_MORE) continue;
        c->trailing = used < (size_t)n;
        if (lseek(c->spool, 0, SEEK_SET) < 0) return -1;
        return open_request(c, c->spool);
    }
    return 0;
}

int conn_read(struct conn *conn, int64_t now_ns) {
    struct peer *c = peer_of(conn);
    struct conn_pool *p = c->pool;
    if (c->spool >= 0) {
        int rc = read_spool(c, now_ns);
        if (rc < 0 && conn->state != CONN_FREE) conn_close(conn);
        return rc;
    }
    ssize_t n = recv(conn->fd, p->peek, PEEK, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) goto bad;
    if (conn->state == CONN_IDLE) conn->since_ns = conn->moved_ns = now_ns;
    conn->state = CONN_READING;
    size_t used;
    record_scan_init(&c->scan);
    switch (record_scan(&c->scan, p->peek, (size_t)n, &used)) {
    case RECORD_BAD: goto bad;
    case RECORD_DONE:
        peer_drop_spool(c);
        c->trailing = used < (size_t)n;
        return open_request(c, conn->fd);
    case RECORD_MORE: break;
    }
    if (open_spool(c) == 0) return conn_read(conn, now_ns);
    if (c->starved) return 0;
bad:
    conn_close(conn);
    return -1;
}

/* Read stdin to its end and let libfcgi speak to the socket from here on. */
static void end_input(struct peer *c) {
    char sink[4096];
    if (c->input_done || c->cgi) return;
    c->input_done = 1;
    if (c->spool >= 0) {
        c->fcgi.ipcFd = c->pub.fd;
        peer_drop_spool(c);
        return;
    }
    while (FCGX_GetStr(sink, sizeof sink, c->fcgi.in) > 0) continue;
}

const char *conn_param(const struct conn *conn, const char *name) {
    const struct peer *c = peer_of(conn);
    const char *value = c->cgi ? getenv(name) : FCGX_GetParam(name, c->fcgi.envp);
    return value ? value : "";
}

/* CGI: n bytes of stdin, fewer if it ends before. */
static int64_t read_stdin(char *buf, size_t n) {
    size_t got = 0;
    while (got < n) {
        ssize_t k = read(STDIN_FILENO, buf + got, n - got);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        if (k == 0) break;
        got += (size_t)k;
    }
    return (int64_t)got;
}

uint64_t conn_body_size(const struct conn *conn) {
    return peer_of(conn)->scan.body;
}

int64_t conn_body(struct conn *conn, char *buf) {
    struct peer *c = peer_of(conn);
    size_t want = (size_t)c->scan.body, got = 0;
    if (c->cgi) return read_stdin(buf, want);
    while (got < want && !c->input_done) {
        int k = FCGX_GetStr(buf + got, (int)(want - got), c->fcgi.in);
        if (k <= 0) break;
        got += (size_t)k;
    }
    end_input(c);
    return got == want ? (int64_t)got : -1;
}

/* ---- writing ----------------------------------------------------------------------- */

static int write_stdout(struct peer *c, const char *bytes, size_t n) {
    while (n > 0) {
        ssize_t k = write(STDOUT_FILENO, bytes, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            c->pub.gone = 1;
            return -1;
        }
        bytes += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Can the socket take one more piece without waiting? */
static int has_room(struct peer *c, size_t n) {
    long cost = (long)n + WRITE_COST;
    if (c->credit < cost) {
        struct pollfd p = {.fd = c->pub.fd, .events = POLLOUT};
        if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT)) return 0;
        c->credit = CREDIT;
    }
    c->credit -= cost;
    return 1;
}

/* Hand pieces to libfcgi while the socket takes them; flush = 0 leaves the last one in
 * its buffer, where FCGX_Finish_r adds the end records to it. Returns bytes handed on. */
static size_t send_pieces(struct peer *c, const char *bytes, size_t n, int flush,
                          int64_t now_ns) {
    size_t sent = 0;
    while (sent < n && !c->pub.gone) {
        size_t k = n - sent < PIECE ? n - sent : PIECE;
        if (!has_room(c, k)) break;
        if (FCGX_PutStr(bytes + sent, (int)k, c->fcgi.out) != (int)k) c->pub.gone = 1;
        if ((flush || sent + k < n) && FCGX_FFlush(c->fcgi.out) < 0) c->pub.gone = 1;
        sent += k;
        c->pub.moved_ns = now_ns;
    }
    return sent;
}

/* Keep n bytes until the socket takes them. */
static int owe(struct peer *c, const char *bytes, size_t n) {
    if (c->owed_len + n > c->owed_cap && c->owed_at > 0) { /* what was sent makes room */
        c->owed_len -= c->owed_at;
        memmove(c->owed, c->owed + c->owed_at, c->owed_len);
        c->owed_at = 0;
    }
    if (c->owed_len + n > c->owed_cap) {
        size_t cap = c->owed_cap ? c->owed_cap : PIECE;
        while (cap < c->owed_len + n) cap *= 2;
        char *grown = realloc(c->owed, cap);
        if (!grown) {
            c->pub.gone = 1;
            return -1;
        }
        c->owed = grown;
        c->owed_cap = cap;
    }
    memcpy(c->owed + c->owed_len, bytes, n);
    c->owed_len += n;
    c->pub.owed = c->owed_len - c->owed_at;
    return 0;
}

static int put(struct peer *c, const char *bytes, size_t n, int flush, int64_t now_ns) {
    if (c->pub.gone) return -1;
    if (c->cgi) return write_stdout(c, bytes, n);
    end_input(c);
    size_t sent = c->pub.owed ? 0 : send_pieces(c, bytes, n, flush, now_ns);
    if (!c->pub.gone && sent < n) {
        if (!c->pub.owed)
            c->pub.moved_ns = now_ns; /* from here on the peer is waited for */
        owe(c, bytes + sent, n - sent);
    }
    return c->pub.gone ? -1 : 0;
}

int conn_put(struct conn *conn, const char *bytes, size_t n, int64_t now_ns) {
    return put(peer_of(conn), bytes, n, 1, now_ns);
}

/* Everything is handed on: end the request, then park or close the connection. */
static void finish(struct peer *c, int64_t now_ns) {
    end_input(c);
    c->fcgi.keepConnection = c->keep;
    if (c->pub.gone) {
        conn_close(&c->pub);
        return;
    }
    FCGX_Finish_r(&c->fcgi); /* writes what is buffered with the end records: one write */
    if (c->fcgi.ipcFd < 0) {
        peer_forget(c);
        return;
    }
    free(c->owed);
    c->owed = NULL;
    c->owed_cap = c->owed_at = c->owed_len = 0;
    c->pub.owed = 0;
    c->pub.state = CONN_IDLE;
    c->pub.parked = 1;
    c->pub.request = NULL;
    c->pub.since_ns = c->pub.moved_ns = now_ns;
}

void conn_end(struct conn *conn, const char *bytes, size_t n, int keep, int64_t now_ns) {
    struct peer *c = peer_of(conn);
    put(c, bytes, n, 0, now_ns);
    c->keep = c->keep && keep;
    if (c->cgi) {
        peer_forget(c);
        return;
    }
    conn->state = CONN_ENDING;
    if (conn->owed == 0 || conn->gone) finish(c, now_ns);
}

void conn_flush(struct conn *conn, int64_t now_ns) {
    struct peer *c = peer_of(conn);
    c->credit = CREDIT;
    size_t n = c->owed_len - c->owed_at;
    c->owed_at +=
        send_pieces(c, c->owed + c->owed_at, n, conn->state != CONN_ENDING, now_ns);
    conn->owed = c->owed_len - c->owed_at;
    if (conn->state == CONN_ENDING && (conn->owed == 0 || conn->gone)) finish(c, now_ns);
}
