/* SPDX-License-Identifier: Apache-2.0
 * metrics.h - counters that outlive a worker. A table of slots in shared memory (the
 * master's, or the file that `metrics` names, or private memory); one slot per worker,
 * written by that worker alone. A respawned worker goes on counting in its slot, so sums
 * are exact and monotonic; gauges are zeroed when a worker is gone. Before create or
 * attach everything counts in private memory. */
#ifndef METRICS_H
#define METRICS_H

#include <stdint.h>
#include <sys/types.h>

#include "config.h"

#define METRICS_SLOTS 256

enum endpoint {
    EP_GENERATE,
    EP_CHAT,
    EP_HEALTH,
    EP_METRICS,
    EP_STATUS,
    EP_OTHER,
    EP_COUNT
};
extern const char *const endpoint_names[EP_COUNT];

enum worker_state { WORKER_NONE, WORKER_STARTING, WORKER_READY, WORKER_DRAINING };

/* ---- called by the worker, on its own slot ---- */
void metrics_request(enum endpoint, int status,
                     int64_t ns);          /* one per request, cancelled: 499 */
void metrics_first_token(int64_t ns);      /* accept to first sampled token */
void metrics_token_gap(int64_t ns, int n); /* n tokens, ns each, of a step */
void metrics_tokens(uint64_t in, uint64_t out);
void metrics_cancelled(void);
void metrics_shed(void);
void metrics_gauges(int lanes_busy, int queue_length, int connections);
void metrics_heartbeat(int64_t monotonic_ns);
/* model_name NULL: what was said of the model stays. */
void metrics_worker(enum worker_state, int lanes, int queue, const struct mg_model_info *,
                    const char *model_name, const char *digest, const char *fingerprint);

/* Text for /metrics: all slots. malloc'd, caller frees; *len without NUL. NULL: out of
 * memory. */
char *metrics_render(size_t *len);
/* Text for /status (JSON by Jansson). As above. */
char *metrics_status(size_t *len);

/* ---- called by who owns the table; 0 or an exit code with one line in error ---- */
int metrics_create(const struct config *, char *error,
                   size_t size); /* master, before forking */
/* A worker without our master: the file, or private memory. Claims a slot for the life of
 * this process and uses it. */
int metrics_attach(const struct config *, int *slot, char *error, size_t size);
void metrics_use_slot(int slot); /* after fork: this process writes there */
/* Master: a worker is about to start: the slot it gets, which `number` had before if that
 * is possible; -1 if all are taken. */
int metrics_slot_begin(int number, int generation);
void metrics_slot_pid(int slot, pid_t); /* master: it has started */
void metrics_slot_end(int slot);        /* master: its worker is gone: zero the gauges */
enum worker_state metrics_slot_state(int slot);
int64_t metrics_slot_heartbeat(int slot);
void metrics_restart(void);
void metrics_reload(int ok);

#endif
