/* SPDX-License-Identifier: Apache-2.0
 * master.h - preforks workers, replaces the dead, reloads by generation, drains. Never
 * touches weights or BLIS. */
#ifndef MASTER_H
#define MASTER_H

#include "config.h"

/* Run until told to stop; argc/argv are read again on HUP. Returns the exit code. */
int master_run(struct config *, int argc, char **argv, const int *listen_fds,
               int n_listen);

#endif
