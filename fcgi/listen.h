/* SPDX-License-Identifier: Apache-2.0
 * listen.h - where requests come from: a socket of our own, systemd's, or spawn-fcgi's fd
 * 0. */
#ifndef LISTEN_H
#define LISTEN_H

#include "config.h"

#define LISTEN_MAX 16

/* The sockets systemd passed (LISTEN_FDS, LISTEN_PID); their number, 0 if none. Made
 * non-blocking and close-on-exec; the variables are taken out of the environment. One
 * that listen_keep gave to the store is not among them: listen_open takes that. */
int listen_systemd(int fds[LISTEN_MAX]);
/* 1 if fd 0 is a listening socket (spawn-fcgi, fcgi-pm, StandardInput=socket). It is made
 * non-blocking. */
int listen_is_fd0(void);
/* Open config->listen: replaces a stale unix socket, refuses a live one. The fd, or minus
 * an exit code (69 in use, 77 permission, 78 no such directory or host, 71) with one line
 * in error. */
int listen_open(const struct config *, char *error, size_t size);
/* Have systemd keep the socket of listen_open over a restart. Its file then stays when we
 * end, and is stale after a stop. Does nothing elsewhere. */
void listen_keep(int fd);
/* Check only (-t): 0 with a few words in text ("free", or "in use now", which is what a
 * running service looks like), or an exit code with one line in text. */
int listen_check(const struct config *, char *text, size_t size);
/* Remove the unix socket file that listen_open made, if it is still that one. */
void listen_remove(const struct config *);

#endif
