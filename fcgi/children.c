/* SPDX-License-Identifier: Apache-2.0
 * children.c - the worker processes of a master: start, hear that one is ready, drain,
 * kill, reap. What a worker says comes over a pipe of its own. A child that loses its
 * master gets TERM from the kernel and drains. */
#include "children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "log.h"
#include "notify.h"
#include "title.h"
#include "worker.h"

/* Fork to ready: a model from a slow disk is read once. */
#define START_LIMIT (120 * NS_PER_S)
/* Stuck at two looks so far apart: not the machine's pause. */
#define STALE_TWICE (1 * NS_PER_S)

static struct child list[METRICS_SLOTS];
static int n_children;
static int master_signal_fd = -1;

void children_init(int signal_fd) {
    master_signal_fd = signal_fd;
}

/* ---- start ---- */

/* In the child. The master's signals stay blocked: the worker lets them in when it has
 * its handlers. Leaves by exit, so that what was registered for it runs. */
static void run_child(const struct child_start *s, int slot, int words_fd, pid_t master) {
    char who[32];
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != master) _exit(0); /* it went before the line above */
    close(master_signal_fd);
    control_forget();
    for (int i = 0; i < n_children; i++)
        if (list[i].words_fd >= 0) close(list[i].words_fd);
    notify_forget();
    snprintf(who, sizeof who, "worker-%d", s->number);
    log_name(who);
    if (log_open(s->config)) log_warn("%s: %s", s->config->log_file, strerror(errno));
    title_set("microgpt-fcgi: worker %d (%s)", s->number, s->model);
    metrics_use_slot(slot);
    struct worker_start start = {.config = s->config,
                                 .listen_fds = s->listen_fds,
                                 .n_listen = s->n_listen,
                                 .master_fd = words_fd,
                                 .master = master,
                                 .handover = s->handover};
    exit(worker_run(&start));
}

int children_start(const struct child_start *s) {
    int words[2], slot = -1;
    pid_t master = getpid();
    if (n_children == METRICS_SLOTS ||
        (slot = metrics_slot_begin(s->number, s->generation)) < 0) {
        errno = EAGAIN;
        return -1;
    }
    if (pipe2(words, O_CLOEXEC | O_NONBLOCK)) {
        metrics_slot_end(slot);
        return -1;
    }
    pid_t pid = fork();
    if (!pid) {
        close(words[0]);
        run_child(s, slot, words[1], master);
    }
    close(words[1]);
    if (pid < 0) {
        close(words[0]);
        metrics_slot_end(slot);
        return -1;
    }
    metrics_slot_pid(slot, pid);
    list[n_children++] = (struct child){.pid = pid,
                                        .number = s->number,
                                        .generation = s->generation,
                                        .slot = slot,
                                        .words_fd = words[0],
                                        .kill_ns = clock_ns() + START_LIMIT};
    return 0;
}

/* ---- news ---- */

static void become_ready(struct child *c) {
    if (c->state != CHILD_STARTING) return;
    c->state = CHILD_READY;
    c->ready_ns = clock_ns();
    c->kill_ns = INT64_MAX;
}

static void take_words(struct child *c, const char *words) {
    for (; *words; words++) switch (*words) {
        case WORKER_SAYS_READY: become_ready(c); break;
        case WORKER_SAYS_TIRED: c->tired = 1; break;
        case WORKER_SAYS_FAILED: snprintf(c->why, sizeof c->why, "%s", words + 1); return;
        default: return;
        }
}

/* Take what one child has said. */
static void hear(struct child *c) {
    char words[sizeof c->why];
    ssize_t n;
    while (c->words_fd >= 0 && (n = read(c->words_fd, words, sizeof words - 1)) >= 0) {
        words[n] = 0;
        take_words(c, words);
        if (n > 0) continue;
        close(c->words_fd); /* it ends and will be reaped */
        c->words_fd = -1;
    }
}

void children_listen(void) {
    for (int i = 0; i < n_children; i++) hear(&list[i]);
}

int children_reap(struct child *ended, int *status) {
    pid_t pid;
    while ((pid = waitpid(-1, status, WNOHANG)) > 0)
        for (int i = 0; i < n_children; i++) {
            if (list[i].pid != pid) continue;
            hear(&list[i]); /* its last words */
            *ended = list[i];
            if (ended->words_fd >= 0) close(ended->words_fd);
            metrics_slot_end(ended->slot);
            list[i] = list[--n_children];
            return 1;
        }
    return 0;
}

void children_describe(int status, char *out, size_t size) {
    if (WIFSIGNALED(status))
        snprintf(out, size, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, size, "ended with code %d", WEXITSTATUS(status));
}

/* ---- ends ---- */

void children_drain(struct child *c, int64_t kill_ns) {
    if (c->state != CHILD_DRAINING)
        kill(c->pid, c->state == CHILD_READY ? SIGQUIT : SIGTERM);
    c->state = CHILD_DRAINING;
    if (kill_ns < c->kill_ns) c->kill_ns = kill_ns;
}

void children_signal_all(int signal) {
    for (int i = 0; i < n_children; i++) kill(list[i].pid, signal);
}

/* 1 if the loop of c has not moved for watchdog_ns, seen twice. */
static int is_stuck(struct child *c, int64_t now, int64_t watchdog_ns) {
    int64_t age = now - metrics_slot_heartbeat(c->slot);
    if (!watchdog_ns || !c->ready_ns || age < watchdog_ns) {
        c->stale_ns = 0;
        return 0;
    }
    if (!c->stale_ns) c->stale_ns = now;
    return now - c->stale_ns >= STALE_TWICE;
}

void children_watch(int64_t now, int64_t watchdog_ns) {
    for (int i = 0; i < n_children; i++) {
        struct child *c = &list[i];
        const char *why = NULL;
        if (is_stuck(c, now, watchdog_ns))
            why = "its loop has not moved for the watchdog's time";
        else if (now >= c->kill_ns)
            why = c->state == CHILD_DRAINING ? "it did not finish within drain_timeout"
                                             : "it was not ready after two minutes";
        if (!why) continue;
        log_error("worker %d (pid %d) is killed: %s", c->number, (int)c->pid, why);
        kill(c->pid, SIGKILL);
        c->kill_ns = INT64_MAX;
        c->stale_ns = 0;
    }
}

/* ---- questions ---- */

struct child *children_get(int i) {
    return i < n_children ? &list[i] : NULL;
}

struct child *children_find(int generation, int number) {
    for (int i = 0; i < n_children; i++)
        if (list[i].generation == generation && list[i].number == number &&
            list[i].state != CHILD_DRAINING && !list[i].tired)
            return &list[i];
    return NULL;
}

int children_serves(int generation, int number) {
    for (int i = 0; i < n_children; i++)
        if (list[i].generation == generation && list[i].number == number &&
            list[i].state == CHILD_READY)
            return 1;
    return 0;
}

int children_count(int generation, enum child_state state) {
    int n = 0;
    for (int i = 0; i < n_children; i++)
        n += list[i].state == state && (!generation || list[i].generation == generation);
    return n;
}

int children_poll(struct pollfd *p, int max) {
    int n = 0;
    for (int i = 0; i < n_children && n < max; i++)
        if (list[i].words_fd >= 0)
            p[n++] = (struct pollfd){.fd = list[i].words_fd, .events = POLLIN};
    return n;
}

int64_t children_deadline(int64_t now, int64_t watchdog_ns) {
    int64_t first = INT64_MAX;
    for (int i = 0; i < n_children; i++) {
        const struct child *c = &list[i];
        if (c->kill_ns < first) first = c->kill_ns;
        if (!watchdog_ns || !c->ready_ns) continue;
        int64_t stale = c->stale_ns ? c->stale_ns + STALE_TWICE
                                    : metrics_slot_heartbeat(c->slot) + watchdog_ns;
        if (stale < first) first = stale;
    }
    return first < now ? now : first;
}
