/* SPDX-License-Identifier: Apache-2.0
 * drain.c - see drain.h. Idle connections go to other workers. Where nobody takes them
 * (the service stops, or there is no master) they end here, as gently as it can be
 * done. */
#include "drain.h"

#include "clock.h"
#include "log.h"
#include "notify.h"

#include <unistd.h>

#define FRESH_NS NS_PER_S       /* a new connection has so long to bring its request */
#define KEEP_NS  (2 * NS_PER_S) /* connections that are never idle are kept so long */

int drain_is_parked(const struct server *s, const struct conn *c) {
    return c->state == CONN_IDLE && (c->parked || s->now_ns - c->since_ns >= FRESH_NS);
}

void drain_begin(struct drain *d, struct server *s, const char *why) {
    const struct queue *q = &s->engine.queue;
    s->draining = 1;
    d->keep_until_ns = s->now_ns + KEEP_NS;
    d->until_ns = s->now_ns + s->config->drain_timeout_ms * NS_PER_MS;
    metrics_worker(WORKER_DRAINING, q->n_lanes, s->config->queue,
                   mg_model_info(s->engine.model), NULL, NULL, NULL);
    notify_send("STOPPING=1");
    log_info("%s: finishing %d requests", why, q->n_live);
}

/* The pair has ended. What was given and nobody took is ours to end. */
static void take_back(struct drain *d, struct server *s) {
    int fd, parked;
    while (!conn_full(s->pool) && (fd = handover_take(d->handover, &parked)) >= 0)
        conn_adopt(s->pool, fd, parked, s->now_ns);
    d->handover = NULL;
}

/* Give every idle connection away, with the request that may have arrived on it: it is
 * served sooner elsewhere. 1 = none is left here. */
static int hand_over(struct drain *d, struct server *s) {
    int rc = 1;
    if (getppid() != d->master) handover_end(d->handover); /* all its workers end now */
    for (int i = conn_count(s->pool) - 1; i >= 0 && rc == 1; i--) {
        struct conn *c = conn_at(s->pool, i);
        if (c->state != CONN_IDLE) continue;
        rc = handover_give(d->handover, c->fd, c->parked);
        if (rc < 1) break;
        conn_close(c);
        d->n_given++;
    }
    if (rc < 0) take_back(d, s);
    return rc == 1;
}

/* One at a time and the oldest first: nginx, which takes the youngest for its next
 * request, sees each end before the next comes; until then requests on kept connections
 * are served. Were they all closed at once, a request could meet two dead connections in
 * a row, and nginx makes two attempts. */
static void close_idle(struct drain *d, struct server *s) {
    struct conn *oldest = NULL;
    if (s->now_ns < d->close_after_ns) return;
    for (int i = 0; i < conn_count(s->pool); i++) {
        struct conn *c = conn_at(s->pool, i);
        if (drain_is_parked(s, c) && (!oldest || c->since_ns < oldest->since_ns))
            oldest = c;
    }
    if (!oldest || conn_has_bytes(oldest)) return;
    conn_close(oldest);
    d->close_after_ns = s->now_ns + DRAIN_GAP_MS * NS_PER_MS;
}

static void end_after_answers(const struct drain *d, const struct server *s) {
    if (s->now_ns < d->keep_until_ns) return;
    for (int i = 0; i < conn_count(s->pool); i++) conn_at(s->pool, i)->last = 1;
}

int drain_turn(struct drain *d, struct server *s, int now) {
    if (d->handover && hand_over(d, s)) {
        d->keep_until_ns = s->now_ns + KEEP_NS;
    } else if (!d->handover || s->now_ns >= d->keep_until_ns) { /* nobody takes them */
        end_after_answers(d, s);
        close_idle(d, s);
    }
    if (conn_count(s->pool) == 0) return 1;
    if (!now && s->now_ns < d->until_ns) return 0;
    log_warn("stopped with %d requests unfinished", s->engine.queue.n_live);
    return 1;
}
