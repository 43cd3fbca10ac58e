/* SPDX-License-Identifier: Apache-2.0
 * worker.c - the loop: wait, accept, read, write, step. One thread; everything it does
 * between two waits is bounded, and no call in it waits for a client. */
#include "worker.h"

#include "clock.h"
#include "drain.h"
#include "log.h"
#include "metrics.h"
#include "notify.h"
#include "startup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    MS = 1000000,
    POLL_EVERY_NS = 50000, /* while lanes move: look at the sockets at most this often */
    FULL_ACCEPT_NS = 5 * MS, /* all lanes taken: leave new connections to idle workers so
                                long */
    FULL_ACCEPTS = 4,
    BACKOFF_NS = 50 * MS, /* after accept failed for want of descriptors or memory */
    SWEEP_MS = 50,        /* how late a silent peer's limit may be noticed */
    IDLE_MS = 1000,
};

static volatile sig_atomic_t stop_signals, quit_signals, reopen_signals, reload_signals;

static void on_signal(int sig) {
    if (sig == SIGUSR1)
        reopen_signals = 1;
    else if (sig == SIGHUP)
        reload_signals = 1;
    else if (sig == SIGQUIT)
        quit_signals = 1; /* our master's: however many come with it */
    else if (stop_signals < 2)
        stop_signals++;
}

static const int caught[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGHUP};
enum { N_CAUGHT = sizeof caught / sizeof *caught };

/* Signals are let in while waiting only, so that no read or write is cut short. A
 * master's child is born with them blocked: one that comes before the handlers are
 * there waits. */
static void block_signals(sigset_t *waiting_mask) {
    sigset_t blocked;
    sigemptyset(&blocked);
    for (int i = 0; i < N_CAUGHT; i++) sigaddset(&blocked, caught[i]);
    sigprocmask(SIG_BLOCK, &blocked, waiting_mask);
    for (int i = 0; i < N_CAUGHT; i++) sigdelset(waiting_mask, caught[i]);
}

/* After libfcgi is initialised: it installs handlers of its own. */
static void install_handlers(void) {
    struct sigaction action = {.sa_handler = on_signal};
    for (int i = 0; i < N_CAUGHT; i++) sigaction(caught[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

struct worker {
    struct server server;
    const struct worker_start *start;
    sigset_t waiting_mask;
    int n_sources; /* of new connections: the listening sockets, and other workers */
    struct pollfd *polled; /* [n_sources + connections] */
    struct conn **conns;   /* the connections of polled[n_sources ...] */
    int n_conns;
    int n_busy_conns; /* of them not idle */
    int64_t last_poll_ns, accept_after_ns;
    struct drain drain;
    uint64_t max_served; /* 0 = no end */
    int moved;           /* what the last step moved */
};

/* ---- what to wait for -------------------------------------------------------------- */

/* Close the connection that has been idle longest; fresh: even one just accepted. */
static int close_oldest_idle(struct worker *w, int fresh) {
    struct conn *oldest = NULL;
    for (int i = 0; i < conn_count(w->server.pool); i++) {
        struct conn *c = conn_at(w->server.pool, i);
        if (!drain_is_parked(&w->server, c) && !(fresh && c->state == CONN_IDLE))
            continue;
        if (!oldest || c->since_ns < oldest->since_ns) oldest = c;
    }
    if (!oldest || conn_has_bytes(oldest)) return -1;
    conn_close(oldest);
    return 0;
}

static int may_accept(struct worker *w) {
    struct server *s = &w->server;
    if (s->draining || s->now_ns < w->accept_after_ns) return 0;
    return !conn_full(s->pool) || close_oldest_idle(w, 1) == 0;
}

static int source_fd(const struct worker *w, int i) {
    const struct worker_start *start = w->start;
    return i < start->n_listen ? start->listen_fds[i] : start->handover->take;
}

/* Fill w->polled; returns the number of entries. The sources come first. */
static int list_descriptors(struct worker *w) {
    struct server *s = &w->server;
    int n = w->n_sources, n_idle = 0, accepting = may_accept(w);
    for (int i = 0; i < n; i++)
        w->polled[i] =
            (struct pollfd){.fd = accepting ? source_fd(w, i) : -1, .events = POLLIN};
    w->n_conns = conn_count(s->pool);
    for (int i = 0; i < w->n_conns; i++) {
        struct conn *c = conn_at(s->pool, i);
        short events = conn_events(c);
        w->conns[i] = c;
        w->polled[n + i] = (struct pollfd){.fd = events ? c->fd : -1, .events = events};
        n_idle += c->state == CONN_IDLE;
    }
    w->n_busy_conns = w->n_conns - n_idle;
    return n + w->n_conns;
}

static int64_t wait_ms(const struct worker *w) {
    const struct server *s = &w->server;
    int64_t beat = s->config->watchdog_ms / 4;
    if (w->moved > 0) return 0;
    if (s->draining) return DRAIN_GAP_MS;
    if (w->n_busy_conns > 0 || s->now_ns < w->accept_after_ns) return SWEEP_MS;
    return beat > 0 && beat < IDLE_MS ? beat : IDLE_MS;
}

/* ---- what happened ----------------------------------------------------------------- */

/* One connection: new from the web server, or from a worker that drains. 0 = there is
 * none, -1 = errno. */
static int take_from(struct worker *w, int i) {
    struct server *s = &w->server;
    struct conn *c;
    if (i < w->start->n_listen)
        return conn_accept(s->pool, source_fd(w, i), s->now_ns, &c);
    int parked, fd = handover_take(w->start->handover, &parked);
    if (fd >= 0) {
        conn_adopt(s->pool, fd, parked, s->now_ns);
        return 1;
    }
    if (errno == EPIPE) w->n_sources--; /* no more will come: the service stops */
    return errno == EAGAIN || errno == EINTR || errno == EPIPE ? 0 : -1;
}

/* One connection, so that they spread over the workers. When every lane here is taken and
 * no idle worker took those that wait within FULL_ACCEPT_NS, a few: among them may be a
 * question for health; not all, since refusing a crowd that asks again at once would cost
 * the lanes their time. */
static void accept_from(struct worker *w, int i) {
    struct server *s = &w->server;
    int full = s->engine.queue.n_busy == s->engine.queue.n_lanes;
    int most = full ? FULL_ACCEPTS : 1, rc;
    do rc = take_from(w, i);
    while (rc == 1 && --most > 0 && !conn_full(s->pool));
    if (rc < 0) {
        log_warn("accept: %s: trying again in %d ms", strerror(errno), BACKOFF_NS / MS);
        w->accept_after_ns = s->now_ns + BACKOFF_NS;
    } else if (full) {
        w->accept_after_ns = s->now_ns + FULL_ACCEPT_NS;
    }
}

static void handle_conn(struct worker *w, struct conn *c, short events) {
    struct server *s = &w->server;
    if (c->state == CONN_BUSY || c->state == CONN_ENDING) {
        if (events & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL))
            serve_cancel(s, c, "cancelled");
        else if (events & POLLOUT)
            conn_flush(c, s->now_ns);
    } else if (events & POLLIN) {
        if (conn_read(c, s->now_ns) == 1) serve_request(s, c);
    } else {
        conn_close(c); /* gone without a request */
    }
}

static void look_at_sockets(struct worker *w) {
    struct server *s = &w->server;
    int n = list_descriptors(w), n_sources = w->n_sources;
    int64_t ms = wait_ms(w);
    log_flush();
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * MS};
    int ready = ppoll(w->polled, (nfds_t)n, &t, &w->waiting_mask);
    serve_tick(s);
    w->last_poll_ns = s->now_ns;
    if (ready <= 0) return;
    for (int i = 0; i < w->n_conns; i++)
        if (w->polled[n_sources + i].revents)
            handle_conn(w, w->conns[i], w->polled[n_sources + i].revents);
    for (int i = 0; i < n_sources; i++)
        if (w->polled[i].revents && !conn_full(s->pool)) accept_from(w, i);
}

/* Limits of peers: a request that does not become whole, an answer that is not taken. */
static void sweep(struct worker *w) {
    struct server *s = &w->server;
    int64_t stall = s->config->send_timeout_ms * MS, limit = s->config->timeout_ms * MS;
    int n_parked = 0;
    for (int i = conn_count(s->pool) - 1; i >= 0; i--) {
        struct conn *c = conn_at(s->pool, i);
        n_parked += drain_is_parked(&w->server, c);
        if (c->gone && c->state == CONN_BUSY) { /* a write failed; its lane may be held */
            serve_cancel(s, c, "cancelled");
            continue;
        }
        if (c->state == CONN_IDLE || (c->state == CONN_BUSY && c->owed == 0)) continue;
        if (s->now_ns - c->moved_ns > stall)
            serve_cancel(s, c, "stalled");
        else if (c->state != CONN_BUSY && s->now_ns - c->since_ns > limit + stall)
            serve_cancel(s, c, "timeout");
    }
    for (; n_parked > s->config->parked; n_parked--) close_oldest_idle(w, 0);
}

/* One write: the pipe takes it as a whole or not at all. */
static void tell_master(const struct worker_start *start, char what, const char *text) {
    char words[400];
    if (start->master_fd < 0) return;
    int n = snprintf(words, sizeof words, "%c%s", what, text);
    size_t len = n < (int)sizeof words ? (size_t)n : sizeof words - 1;
    if (write(start->master_fd, words, len) < 0)
        log_warn("the master does not listen: %s", strerror(errno));
}

/* max_requests: go on until another serves. Without a master: drain, whoever started us
 * starts the next. */
static void end_of_service(struct worker *w) {
    w->max_served = 0;
    if (w->start->master_fd < 0) {
        drain_begin(&w->drain, &w->server, "max_requests");
        return;
    }
    log_info("max_requests: asking to be replaced");
    tell_master(w->start, WORKER_SAYS_TIRED, "");
}

static void act_on_signals(struct worker *w) {
    struct server *s = &w->server;
    if (reopen_signals) {
        reopen_signals = 0;
        if (log_reopen() < 0) log_error("log_file: %s", strerror(errno));
    }
    if (reload_signals) {
        reload_signals = 0;
        log_info("HUP: a worker does not reload: send it to the master, or restart me");
    }
    if (s->draining) return;
    if (stop_signals || quit_signals)
        drain_begin(&w->drain, s, "asked to stop");
    else if (w->max_served && s->n_served >= w->max_served)
        end_of_service(w);
}

/* ---- the loop ---------------------------------------------------------------------- */

static void run_loop(struct worker *w) {
    struct server *s = &w->server;
    serve_tick(s);
    while (!s->draining || !drain_turn(&w->drain, s, stop_signals >= 2)) {
        if (w->moved == 0 || s->now_ns - w->last_poll_ns >= POLL_EVERY_NS) {
            metrics_gauges(s->engine.queue.n_busy, s->engine.queue.n_waiting,
                           conn_count(s->pool));
            metrics_heartbeat(s->now_ns);
            notify_alive(s->now_ns);
            look_at_sockets(w);
            act_on_signals(w);
            sweep(w);
            serve_expire(s);
        }
        w->moved = serve_step(s);
    }
}

/* max_requests and up to a tenth more, so that workers do not all leave at once. */
static uint64_t jittered(int max_requests) {
    if (max_requests <= 0) return 0;
    return (uint64_t)max_requests +
           (uint64_t)getpid() * 2654435761u % (1 + (unsigned)max_requests / 10);
}

static int prepare(struct worker *w, const struct worker_start *start, char *text,
                   size_t size) {
    struct server *s = &w->server;
    const struct config *c = start->config;
    int rc = startup_open(s, c, text, size);
    if (rc) return rc;
    size_t conns = (size_t)conn_max(s->pool);
    w->start = start;
    w->n_sources = start->n_listen + (start->handover != NULL);
    w->drain.handover = start->handover;
    w->drain.master = start->master;
    w->max_served = jittered(c->max_requests);
    w->polled = calloc(conns + (size_t)w->n_sources, sizeof *w->polled);
    w->conns = calloc(conns, sizeof *w->conns);
    if (w->polled && w->conns) return 0;
    snprintf(text, size, "out of memory");
    return EX_OSERR;
}

static void announce(struct worker *w) {
    struct server *s = &w->server;
    const char *warning;
    char text[512];
    metrics_worker(WORKER_READY, s->engine.queue.n_lanes, s->config->queue,
                   mg_model_info(s->engine.model), s->engine.name, s->engine.digest,
                   s->engine.fingerprint);
    for (int i = 0; (warning = mg_model_warning(s->engine.model, i)); i++)
        log_warn("%s", warning);
    startup_describe(s, text, sizeof text);
    log_info("ready: %s", text);
    tell_master(w->start, WORKER_SAYS_READY, "");
    notify_send("READY=1"); /* to systemd, which then is our master */
}

int worker_run(const struct worker_start *start) {
    struct worker w = {0};
    char text[512];
    block_signals(&w.waiting_mask);
    int rc = prepare(&w, start, text, sizeof text);
    install_handlers();
    if (rc) {
        log_error("%s", text);
        tell_master(start, WORKER_SAYS_FAILED, text);
    } else {
        startup_catch_sigbus(&w.server);
        announce(&w);
        run_loop(&w);
        log_info("stopped after %llu requests, %llu connections handed over",
                 (unsigned long long)w.server.n_served,
                 (unsigned long long)w.drain.n_given);
    }
    free(w.polled);
    free(w.conns);
    startup_close(&w.server);
    return rc;
}

/* ---- without a loop ---------------------------------------------------------------- */

int worker_check(const struct config *config, char *text, size_t size) {
    struct server s = {0};
    int rc = startup_open(&s, config, text, size);
    if (rc) return rc;
    double seconds = engine_fifty_seconds(&s.engine);
    startup_describe(&s, text, size);
    if (seconds * 1000 > (double)config->timeout_ms) {
        log_warn(
            "fifty samples of full length take about %.0f s on this machine, timeout is "
            "%.0f s: such requests end with 408",
            seconds, (double)config->timeout_ms / 1000);
    }
    startup_close(&s);
    return 0;
}

int worker_cgi(const struct config *config) {
    struct server s = {0};
    struct config one = *config;
    char text[512];
    if (one.lanes == 0) one.lanes = 16;
    int rc = startup_open(&s, &one, text, sizeof text);
    if (rc) {
        static const char failed[] = "Status: 500 Internal Server Error\r\n"
                                     "Content-Type: application/json\r\n\r\n"
                                     "{\"error\":\"internal error\"}";
        ssize_t ignored = write(STDOUT_FILENO, failed, sizeof failed - 1);
        (void)ignored;
        log_error("%s", text);
        return rc;
    }
    signal(SIGPIPE, SIG_IGN);
    serve_tick(&s);
    serve_request(&s, conn_cgi(s.pool, s.now_ns));
    while (conn_count(s.pool) > 0) {
        serve_step(&s);
        serve_expire(&s);
    }
    log_flush();
    startup_close(&s);
    return 0;
}
