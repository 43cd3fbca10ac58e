/* SPDX-License-Identifier: Apache-2.0
 * startup.h - everything a worker needs before its first request: engine, connections,
 * buffers; checked, counted, proved by one generation. */
#ifndef STARTUP_H
#define STARTUP_H

#include "serve.h"

/* Fill *s (zeroed) from the configuration. 0, or an exit code with one line in text. */
int startup_open(struct server *s, const struct config *, char *text, size_t size);
void startup_close(struct server *s);

/* One line: model, parameters, dtype, lanes, memory. */
void startup_describe(const struct server *s, char *text, size_t size);

/* A truncated weights file kills with SIGBUS: say which file, and exit 65. */
void startup_catch_sigbus(const struct server *s);

#endif
