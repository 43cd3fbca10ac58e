/* SPDX-License-Identifier: Apache-2.0
 * worker.h - one process, one thread, one loop: accept, read, admit, step, write. */
#ifndef WORKER_H
#define WORKER_H

#include "config.h"
#include "handover.h"

#include <sys/types.h>

struct worker_start {
    const struct config *config;
    const int *listen_fds; /* non-blocking listening sockets, borrowed */
    int n_listen;
    int master_fd;                   /* a pipe for what the master must hear; -1 = none */
    pid_t master;                    /* 0 = none */
    const struct handover *handover; /* the pair of all its workers; NULL = none */
};

/* The first byte of what a worker says to its master. */
enum {
    WORKER_SAYS_READY = 'R',  /* the model is open and has generated once */
    WORKER_SAYS_TIRED = 'T',  /* another should take its place, then QUIT comes */
    WORKER_SAYS_FAILED = 'F', /* it never was ready; the line that says why follows */
};

/* Serve until TERM, INT or QUIT (drain, then 0), or max_requests (0). Installs its own
 * signal handlers: USR1 reopens the log; a second TERM or INT ends at once, QUIT (which
 * the master sends to drain, perhaps beside a terminal's INT) never does. With a master,
 * max_requests only asks to be replaced: it serves until another does. Returns the exit
 * code, one of sysexits(3), as all of the program's are. */
int worker_run(const struct worker_start *);

/* -t and start-up: open the checkpoint, build the batch and generate once. 0 or an exit
 * code, with one line. */
int worker_check(const struct config *, char *text, size_t size);

/* Answer one CGI request from environment and stdin on stdout. Returns the exit code. */
int worker_cgi(const struct config *);

#endif
