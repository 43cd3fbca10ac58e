/* SPDX-License-Identifier: Apache-2.0
 * session.h - a model opened for trying it out: what info, check, generate and chat
 * share. Uses the public interface only, so its bytes are those of the service. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "cli.h"

enum { SESSION_CHUNK = 96, SESSION_MAX_LANES = 64 }; /* the service's defaults */

/* Open dir; compat: NULL, "0.5" or "0.6". Warnings go to stderr. 0, or an exit code after
 * the complaint. */
int session_open(const char *dir, const char *compat, struct mg_model **,
                 struct mg_error *);
/* Lanes a worker has by default: as many as 256 MiB of KV cache hold, 1 ... 64. */
int session_lanes(const struct mg_model *);
/* A batch of so many lanes; NULL after the complaint. */
struct mg_batch *session_batch(const struct mg_model *, int lanes);

#endif
