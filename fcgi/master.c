/* SPDX-License-Identifier: Apache-2.0
 * master.c - preforks workers, replaces the dead, reloads by generation, drains. Signals
 * are read from a descriptor and only set flags; one loop acts on them in a fixed order.
 * Never touches weights or BLIS: the first worker of a generation finds out whether they
 * are good, and only then come the rest, and after those the old generation goes. */
#include "master.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "backoff.h"
#include "children.h"
#include "clock.h"
#include "control.h"
#include "listen.h"
#include "log.h"
#include "metrics.h"
#include "notify.h"
#include "title.h"
#include "worker.h"

#define CHECKPOINT_WAIT (10 * NS_PER_S)
#define MAX_WORKERS     128 /* twice as many fit the metrics' slots: a reload */

struct generation {
    int id; /* 0 = none */
    struct config config;
    char model_dir[sizeof((struct config *)0)->model_dir]; /* as configured */
    char model[64];                                        /* name for titles and log */
};

static struct {
    int argc;
    char **argv;
    const int *listen_fds;
    int n_listen;
    int signal_fd, control_fd; /* control_fd may be -1 */
    struct handover handover;
    struct generation current; /* serves */
    struct generation next;    /* its first worker is being tried */
    int next_started;          /* that worker exists */
    int last_id;
    int wanted;        /* workers of the current generation */
    int retiring;      /* older generations are still to be drained */
    int stopping, now; /* TERM: once, twice */
    int reload;        /* HUP came */
    struct backoff backoff;
    int exit_code;    /* of a first start that failed, 0 = go on */
    char status[160]; /* last STATUS= */
} m;

/* ---- generations ---- */

/* The directory behind the links, so that every worker of a generation opens the same
 * model even when a link is switched before the reload. */
static void resolve_model(struct generation *g) {
    char *real = realpath(g->model_dir, NULL);
    const char *path = real ? real : g->model_dir, *slash = strrchr(path, '/');
    if (strlen(path) < sizeof g->config.model_dir)
        snprintf(g->config.model_dir, sizeof g->config.model_dir, "%s", path);
    snprintf(g->model, sizeof g->model, "%.63s", slash && slash[1] ? slash + 1 : path);
    free(real);
}

static void prepare_next(const struct config *c) {
    m.next.id = ++m.last_id;
    m.next.config = *c;
    memcpy(m.next.model_dir, c->model_dir, sizeof m.next.model_dir);
    resolve_model(&m.next);
    m.next_started = 0;
}

static int start_worker(const struct generation *g, int number) {
    struct child_start s = {.config = &g->config,
                            .model = g->model,
                            .listen_fds = m.listen_fds,
                            .n_listen = m.n_listen,
                            .handover = m.handover.take < 0 ? NULL : &m.handover,
                            .generation = g->id,
                            .number = number};
    if (!children_start(&s)) return 0;
    log_error("may not start worker %d: %s", number, strerror(errno));
    backoff_wait(&m.backoff, clock_ns(), NS_PER_S);
    return -1;
}

static void tell_ready(void) {
    notify_send("READY=1");
}

static void tell_reloaded(void) {
    char text[120];
    snprintf(text, sizeof text, "generation %d serves, model %s", m.current.id,
             m.current.model);
    log_info("reload: %s", text);
    metrics_reload(1);
    control_answer(0, text);
}

/* The first worker of the next generation serves: it becomes the current one. */
static void promote_next(void) {
    int first = !m.current.id;
    m.current = m.next;
    m.next.id = 0;
    m.wanted = m.current.config.workers;
    m.backoff = (struct backoff){0};
    m.retiring = !first;
    if (log_open(&m.current.config))
        log_error("log_file: %s: %s", m.current.config.log_file, strerror(errno));
    title_set("microgpt-fcgi: master (%s)", m.current.model);
    if (first)
        log_info("ready: model %s", m.current.model);
    else
        tell_reloaded();
    tell_ready();
}

static void abandon_next(int code, const char *why) {
    m.next.id = 0;
    log_error("reload failed, generation %d stays: %s", m.current.id, why);
    metrics_reload(0);
    control_answer(code, why);
    tell_ready();
}

/* Settings that belong to sockets and memory we hold already. */
static void keep_fixed(struct config *c) {
    const struct config *old = &m.current.config;
    if (strcmp(c->listen, old->listen) || c->socket_mode != old->socket_mode ||
        strcmp(c->socket_group, old->socket_group) || c->backlog != old->backlog)
        log_warn("reload: listen, socket_mode, socket_group and backlog need a restart; "
                 "%s stays",
                 old->listen);
    if (strcmp(c->metrics, old->metrics)) log_warn("reload: metrics needs a restart");
    memcpy(c->listen, old->listen, sizeof c->listen);
    memcpy(c->socket_group, old->socket_group, sizeof c->socket_group);
    memcpy(c->metrics, old->metrics, sizeof c->metrics);
    c->socket_mode = old->socket_mode;
    c->backlog = old->backlog;
}

static void begin_reload(void) {
    static struct config c;
    struct config_action a;
    char error[512];
    m.reload = 0;
    log_info("reload: reading the configuration");
    notify_reloading();
    control_begin();
    int rc = config_load(&c, &a, m.argc, m.argv, error, sizeof error);
    if (rc) {
        abandon_next(rc, error);
        return;
    }
    keep_fixed(&c);
    prepare_next(&c);
    if (start_worker(&m.next, 1))
        abandon_next(EX_OSERR, "no worker could be started");
    else
        m.next_started = 1;
}

/* ---- deaths ---- */

static int is_checkpoint_code(int code) {
    return code == EX_DATAERR || code == EX_NOINPUT;
}

/* No worker before its time. */
static void back_off(int code, const struct child *c) {
    int64_t now = clock_ns();
    if (is_checkpoint_code(code)) {
        backoff_wait(&m.backoff, now, CHECKPOINT_WAIT);
        resolve_model(m.current.id ? &m.current
                                   : &m.next); /* a link may be mended meanwhile */
        log_error("next attempt to open the checkpoint in 10 s");
        return;
    }
    int64_t wait = backoff_death(&m.backoff, now, c->ready_ns ? now - c->ready_ns : 0);
    if (wait) log_warn("workers die young: next start in %.1f s", (double)wait / 1e9);
}

/* The first worker of a generation has failed. */
static void take_failed_try(const struct child *c, const char *what, int code) {
    char why[sizeof c->why + 160];
    m.next_started = 0;
    if (m.current.id) {
        snprintf(why, sizeof why, "its first worker %s%s%s", what, *c->why ? ": " : "",
                 c->why);
        abandon_next(code < 0 ? EX_SOFTWARE : code, why);
    } else if (code >= EX_USAGE && code != EX_SOFTWARE && code != EX_OSERR) {
        m.exit_code = code; /* another try would end the same way */
    } else {
        back_off(code, c);
    }
}

static void take_death(const struct child *c, int status) {
    char what[80];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    children_describe(status, what, sizeof what);
    if (c->ready_ns && c->generation == m.next.id) promote_next(); /* not a failed try */
    if (c->state == CHILD_DRAINING || m.stopping) {
        log_info("worker %d (pid %d) %s", c->number, (int)c->pid, what);
        return;
    }
    int expected = code == 0 && c->ready_ns; /* somebody else's TERM */
    if (expected)
        log_info("worker %d (pid %d) %s and is replaced", c->number, (int)c->pid, what);
    else
        log_error("worker %d (pid %d) %s", c->number, (int)c->pid, what);
    if (m.next.id && c->generation == m.next.id) {
        take_failed_try(c, what, code);
    } else if (!expected) {
        metrics_restart();
        back_off(code, c);
    }
}

static void reap_all(void) {
    struct child ended;
    int status;
    while (children_reap(&ended, &status)) take_death(&ended, status);
}

/* ---- what the flags ask for ---- */

static void take_signals(void) {
    struct signalfd_siginfo info;
    while (read(m.signal_fd, &info, sizeof info) == sizeof info) switch (info.ssi_signo) {
        case SIGTERM:
        case SIGINT:
        case SIGQUIT:
            if (m.stopping) m.now = 1;
            m.stopping = 1;
            break;
        case SIGHUP: m.reload = 1; break;
        case SIGUSR1:
            if (log_reopen()) log_error("log_file: %s", strerror(errno));
            children_signal_all(SIGUSR1);
            break;
        case SIGTTIN:
            if (m.wanted < MAX_WORKERS) m.wanted++;
            log_info("%d workers wanted", m.wanted);
            break;
        case SIGTTOU:
            if (m.wanted > 1) m.wanted--;
            log_info("%d workers wanted", m.wanted);
            break;
        default: break; /* CHLD: reaped in the loop */
        }
}

static int64_t drain_deadline(void) {
    const struct config *c = m.current.id ? &m.current.config : &m.next.config;
    return clock_ns() + c->drain_timeout_ms * NS_PER_MS;
}

static void begin_stop(void) {
    const struct config *c = m.current.id ? &m.current.config : &m.next.config;
    log_info("stopping: finishing what is in flight, at most %.1f s",
             (double)c->drain_timeout_ms / 1e3);
    notify_send("STOPPING=1");
    listen_remove(c);
    for (int i = 0; i < m.n_listen; i++) close(m.listen_fds[i]);
    handover_end(&m.handover);
    for (int i = 0; children_get(i); i++)
        children_drain(children_get(i), drain_deadline());
    m.next.id = 0;
}

static void refuse_reload(void) {
    control_begin();
    control_answer(EX_UNAVAILABLE, "the service stops");
}

/* Start what is missing, drain what is too much. */
static void fill_seats(void) {
    if (clock_ns() < m.backoff.until_ns) return;
    if (m.next.id && !m.next_started) m.next_started = !start_worker(&m.next, 1);
    for (int i = 1; m.current.id && i <= m.wanted; i++)
        if (!children_find(m.current.id, i) && start_worker(&m.current, i)) return;
}

/* Every worker of the current generation serves. */
static int is_full(void) {
    int i = 1;
    while (i <= m.wanted && children_serves(m.current.id, i)) i++;
    return i > m.wanted;
}

static int is_replaced(const struct child *tired) {
    const struct child *c = children_find(tired->generation, tired->number);
    return c && c->state == CHILD_READY;
}

/* Of the current generation: one too many, or one whose successor serves. */
static int is_surplus(const struct child *c) {
    return c->generation == m.current.id &&
           (c->number > m.wanted || (c->tired && is_replaced(c)));
}

static void drain_surplus(void) {
    int retire = m.retiring && is_full();
    for (int i = 0; children_get(i); i++) {
        struct child *c = children_get(i);
        int old = retire && c->generation < m.current.id;
        if ((old || is_surplus(c)) && c->state != CHILD_DRAINING)
            children_drain(c, drain_deadline());
    }
    if (retire) m.retiring = 0;
}

static void tell_status(void) {
    char text[160];
    int n =
        children_count(m.current.id, CHILD_READY); /* the tired and their successors */
    snprintf(text, sizeof text,
             "%d of %d workers ready, %d draining, generation %d, model %s",
             n < m.wanted ? n : m.wanted, m.wanted, children_count(0, CHILD_DRAINING),
             m.current.id, m.current.model);
    if (!strcmp(text, m.status)) return;
    memcpy(m.status, text, sizeof text);
    notify_send("STATUS=%s", text);
}

/* ---- the loop ---- */

static int64_t watchdog_ns(void) {
    return m.current.id ? m.current.config.watchdog_ms * NS_PER_MS : 0;
}

/* 1 if a start waits for its time. */
static int start_pending(void) {
    if (m.stopping) return 0;
    if (m.next.id && !m.next_started) return 1;
    for (int i = 1; m.current.id && i <= m.wanted; i++)
        if (!children_find(m.current.id, i)) return 1;
    return 0;
}

static void wait_for_news(void) {
    struct pollfd p[METRICS_SLOTS + 2] = {{.fd = m.signal_fd, .events = POLLIN},
                                          {.fd = m.control_fd, .events = POLLIN}};
    int n = 2 + children_poll(p + 2, METRICS_SLOTS);
    int64_t now = clock_ns(), until = children_deadline(now, watchdog_ns());
    if (start_pending() && m.backoff.until_ns < until) until = m.backoff.until_ns;
    int64_t ms = clock_wait_ms(until, now), pet = notify_wait_ms(now);
    if (pet >= 0 && (ms < 0 || pet < ms)) ms = pet;
    poll(p, (nfds_t)n, (int)ms);
}

static void take_ready(void) {
    children_listen();
    if (!m.next.id) return;
    if (children_serves(m.next.id, 1)) promote_next();
}

/* One turn after something happened: the order matters, stops go before starts. */
static void act(void) {
    int was_stopping = m.stopping;
    take_signals();
    if (control_take()) m.reload = 1;
    take_ready();
    reap_all();
    if (m.stopping && !was_stopping) begin_stop();
    if (m.stopping) refuse_reload();
    if (m.now) children_signal_all(SIGKILL);
    if (!m.stopping && !m.exit_code) {
        if (m.reload && !m.next.id && m.current.id) begin_reload();
        fill_seats();
        drain_surplus();
    }
    children_watch(clock_ns(), watchdog_ns());
    notify_alive(clock_ns());
    if (m.current.id && !m.stopping) tell_status();
}

static int open_signals(void) {
    const int all[] = {SIGTERM, SIGINT,  SIGQUIT, SIGHUP,
                       SIGUSR1, SIGTTIN, SIGTTOU, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sigaddset(&set, all[i]);
        signal(all[i], SIG_DFL); /* one that was ignored would not come */
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    m.signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    children_init(m.signal_fd);
    return m.signal_fd;
}

/* What the master has before its first worker. 0 or an exit code. */
static int open_all(const struct config *c) {
    char error[512];
    if (open_signals() < 0) {
        log_error("signalfd: %s", strerror(errno));
        return EX_OSERR;
    }
    if ((m.control_fd = control_open()) < 0)
        log_warn("--reload will not be heard, HUP is: %s", strerror(errno));
    if (handover_open(&m.handover))
        log_warn("connections will not outlive workers: %s", strerror(errno));
    int rc = metrics_create(c, error, sizeof error);
    if (rc) log_error("%s", error);
    return rc;
}

int master_run(struct config *c, int argc, char **argv, const int *listen_fds,
               int n_listen) {
    m.argc = argc;
    m.argv = argv;
    m.listen_fds = listen_fds;
    m.n_listen = n_listen;
    m.wanted = c->workers;
    int rc = open_all(c);
    if (rc) {
        listen_remove(c);
        return rc;
    }
    log_name("master");
    title_set("microgpt-fcgi: master");
    prepare_next(c);
    fill_seats();
    while (!m.exit_code && !(m.stopping && !children_get(0))) {
        wait_for_news();
        act();
    }
    if (m.exit_code) {
        listen_remove(c);
        log_error("the first worker failed: not starting (exit code %d)", m.exit_code);
    } else {
        log_info("stopped");
    }
    return m.exit_code;
}
