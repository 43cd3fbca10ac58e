/* SPDX-License-Identifier: Apache-2.0
 * metrics_table.h - the layout of the table that metrics.c writes and metrics_render.c
 * reads. Counters only grow; every word has one writer and is read and written by relaxed
 * atomics. A change of the layout changes TABLE_VERSION. */
#ifndef METRICS_TABLE_H
#define METRICS_TABLE_H

#include "metrics.h"

#define TABLE_MAGIC   "mgptmet"
#define TABLE_VERSION 2u
#define N_STATUS      14 /* the last one is "other" */
#define N_BOUNDS      22 /* 10 us ... 100 s in steps of 1, 2.5, 5 */

extern const int64_t metrics_bounds_ns[N_BOUNDS];
extern const int metrics_statuses[N_STATUS - 1];

struct histogram {
    uint64_t count[N_BOUNDS +
                   1]; /* per bucket, not cumulative; the last is above all bounds */
    uint64_t sum_ns;
};

struct slot_model {
    char name[64], digest[17], fingerprint[MG_FINGERPRINT + 1];
    char dtype[8], tokenizer[8], kernels[12];
    int32_t has_chat, block_size;
    uint64_t n_params;
};

struct slot {
    /* counters: kept when a worker goes and another takes the slot */
    uint64_t requests[EP_COUNT][N_STATUS];
    struct histogram seconds[EP_COUNT], first_token, token;
    uint64_t tokens_in, tokens_out, cancelled, shed, log_dropped;
    /* the worker that has the slot now */
    uint64_t
        owner; /* random id of the master (or lone worker) that holds it, 0 = nobody */
    int64_t heartbeat_ns, started_ns; /* monotonic */
    int32_t state, pid, number, generation;
    int32_t lanes, lanes_busy, queue, queue_length, connections;
    struct slot_model model;
} __attribute__((aligned(64)));

struct table {
    char magic[8];
    uint32_t version, n_slots;
    uint64_t size;
    uint64_t restarts, reloads_ok, reloads_failed;
    struct slot slot[METRICS_SLOTS];
};

#define LOAD(x)     __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define STORE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

/* The table in use, and who may be asked about it. */
const struct table *metrics_table(void);
int metrics_slot_alive(int slot); /* a living process has it: its gauges count */
int64_t metrics_start_unix(void); /* seconds; of the master, or of a worker without one */
int64_t metrics_uptime_ns(void);
const char *metrics_scope(void); /* "master", "file", "worker": what the sums are over */

#endif
