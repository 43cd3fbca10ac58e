/* SPDX-License-Identifier: Apache-2.0
 * conn.c - connections: accepting, reading whole requests, sending what sockets take,
 * parking. The only file that knows libfcgi. libfcgi's own accept loop is not used: it
 * spins and blocks under signals and silent peers.
 *
 * Two ways in. A request that has arrived completely, the normal case, is peeked at,
 * scanned, and then read by libfcgi from the socket itself. One that comes in pieces is
 * gathered in a memfd, and libfcgi reads that. Either way libfcgi's blocking reads find
 * every byte they ask for. */
#include "conn.h"

#include "record.h"

#include <errno.h>
#include <fcgiapp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PEEK = 64 << 10,      /* a request up to this size needs no memfd */
    PIECE = 8000,         /* bytes handed to libfcgi at once: one record, one write */
    CREDIT = 32 << 10,    /* bytes a writable socket is known to take (both kinds of
                             socket take more) */
    WRITE_COST = 1 << 10, /* what the kernel books for one small write besides its
                             bytes */
    SPOOLS = 8,           /* requests gathered in memfds at one time */
    SPOOL_STEP = 1 << 20, /* bytes gathered from one connection before others get their
                             turn */
};

struct peer {
    struct conn pub; /* first: conn_* casts back */
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
    int max, n_live, n_spool, n_starved;
    size_t max_body;
    unsigned char peek[PEEK];
};

static struct peer *peer_of(const struct conn *c) {
    return (struct peer *)c;
}

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
        p->peer[i].pub.index = i;
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

static struct peer *open_peer(struct conn_pool *p, int fd, int64_t now_ns) {
    struct peer *c = p->spare[p->max - p->n_live - 1];
    int index = c->pub.index;
    memset(c, 0, sizeof *c);
    c->pub.index = index;
    c->pool = p;
    c->pub.state = CONN_IDLE;
    c->pub.fd = fd;
    c->pub.since_ns = c->pub.moved_ns = now_ns;
    c->spool = -1;
    c->live_at = p->n_live;
    p->live[p->n_live++] = c;
    return c;
}

static void drop_spool(struct peer *c) {
    struct conn_pool *p = c->pool;
    if (c->spool >= 0) {
        close(c->spool);
        c->spool = -1;
        p->n_spool--;
    }
    if (c->starved) {
        c->starved = 0;
        p->n_starved--;
    }
}

/* The descriptor is closed already: give the place back. */
static void forget_peer(struct peer *c) {
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
            c->fcgi.ipcFd = -1; /* the socket is closed below, the memfd by drop_spool */
            FCGX_Free(&c->fcgi, 0);
        }
        drop_spool(c);
        close(conn->fd);
    }
    forget_peer(c);
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
    *out = &open_peer(p, fd, now_ns)->pub;
    return 1;
}

struct conn *conn_cgi(struct conn_pool *p, int64_t now_ns) {
    struct peer *c = open_peer(p, STDOUT_FILENO, now_ns);
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

/* ---- reading ----------------------------------------------------------------------- */

/* Let libfcgi read begin record and parameters from in_fd (the socket or the memfd). */
static int open_request(struct peer *c, int in_fd) {
    FCGX_InitRequest(&c->fcgi, -1, 0);
    c->fcgi.ipcFd = in_fd;
    c->fcgi.keepConnection = 1; /* or Accept_r's leading Finish_r closes the descriptor */
    if (FCGX_Accept_r(&c->fcgi) < 0) { /* it has closed in_fd */
        if (in_fd == c->pub.fd) {
            forget_peer(c);
            return -1;
        }
        c->spool = -1;
        c->pool->n_spool--;
        close(c->pub.fd);
        forget_peer(c);
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
        if (!c->starved) p->n_starved++;
        c->starved = 1;
        return -1;
    }
    c->spool = memfd_create("microgpt-request", MFD_CLOEXEC);
    if (c->spool < 0) return -1;
    if (c->starved) p->n_starved--;
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
        drop_spool(c);
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
        drop_spool(c);
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
    if (!c->pub.gone && sent < n) owe(c, bytes + sent, n - sent);
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
        forget_peer(c);
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
        forget_peer(c);
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
