/* SPDX-License-Identifier: Apache-2.0
 * children.h - the worker processes of a master: start, hear that one is ready, drain,
 * kill, reap. When and which is master.c's business. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include <poll.h>

#include "config.h"
#include "metrics.h"

enum child_state { CHILD_STARTING, CHILD_READY, CHILD_DRAINING };

struct child {
    pid_t pid;
    enum child_state state;
    int tired;              /* it serves until another has its place */
    int number, generation; /* worker 1 ... n of a generation */
    int slot;               /* of the metrics */
    int words_fd;           /* what it says (worker.h); -1 when it has ended */
    char why[400];          /* it said that it cannot start; "" = nothing */
    int64_t ready_ns;       /* since when it serves, 0 = it never did */
    int64_t stale_ns;       /* since when the watchdog finds it stuck, 0 = it moves */
    int64_t kill_ns;        /* SIGKILL then, INT64_MAX = no such time */
};

/* What a worker is started with. */
struct child_start {
    const struct config *config;
    const char *model; /* for the title */
    const int *listen_fds;
    int n_listen;
    const struct handover *handover;
    int generation, number;
};

/* A descriptor of the master that a child must not keep. */
void children_init(int signal_fd);
/* 0, or -1 with errno (EAGAIN also when there is no slot). */
int children_start(const struct child_start *);
/* One that has ended, as it was, and its wait status. 0: none. */
int children_reap(struct child *ended, int *status);
/* "ended with code 0", "was killed by signal 9 (Killed)" */
void children_describe(int status, char *out, size_t size);
/* Hear what they say. */
void children_listen(void);
/* TERM to one that starts, QUIT to one that serves; KILL at kill_ns. */
void children_drain(struct child *, int64_t kill_ns);
/* KILL what is over its time, and what the watchdog finds stuck (watchdog_ns 0: off). */
void children_watch(int64_t now, int64_t watchdog_ns);
void children_signal_all(int signal);

/* The i-th living child, NULL after the last. */
struct child *children_get(int i);
/* That worker, unless it drains or is tired. */
struct child *children_find(int generation, int number);
/* That worker is ready, tired or not. */
int children_serves(int generation, int number);
/* generation 0: any. */
int children_count(int generation, enum child_state);
/* Fill p with the descriptors to wait for; how many. */
int children_poll(struct pollfd *p, int max);
/* The first of the children's deadlines. */
int64_t children_deadline(int64_t now, int64_t watchdog_ns);

#endif
