/* SPDX-License-Identifier: Apache-2.0
 * request.h - the requests that a worker holds, and the lanes they have. One table of
 * slots, all memory taken at start; a live list in order of arrival. Knows the batch, not
 * the connections' bytes. */
#ifndef REQUEST_H
#define REQUEST_H

#include "api.h"
#include "conn.h"
#include "metrics.h"

struct request {
    struct request *prev, *next; /* live list, oldest first */
    struct conn *conn;
    enum endpoint endpoint;
    struct api_request api;
    int32_t *tokens; /* [block_size] prompt */
    char *text;      /* finished samples of a plain reply, one after the other */
    size_t text_len;
    struct {
        size_t at, len; /* in text */
    } sample[API_MAX_SAMPLES];
    int next_sample;       /* samples before it have or had a lane */
    int running;           /* lanes it has */
    int done;              /* samples that ended */
    int begun;             /* stream: the head has gone out */
    enum mg_finish finish; /* of the last sample that ended */
    uint64_t prompt_tokens, output_tokens;
    int64_t start_ns; /* first byte of the request */
    int64_t lane_ns;  /* first lane; 0 = none yet */
    int64_t first_ns; /* first prompt computed; 0 = not yet */
    char id[64];
};

struct lane {
    struct request *request; /* NULL = free */
    int sample;
    size_t sent;   /* stream: bytes of output that became events */
    int generated; /* n_generated at the last look */
};

struct requests {
    const struct mg_model *model;
    struct mg_batch *batch;
    struct lane *lane; /* [n_lanes] */
    int n_lanes, n_busy;
    int max_waiting;
    int n_waiting; /* live requests without a lane */
    int n_live;
    int pending; /* samples that wait for a lane, all requests */
    struct request *first, *last;
    struct request *spare;
    struct request *slot; /* [lanes + queue + 1] */
    void *memory;
    size_t memory_size;
};

/* Bytes requests_init reserves. */
size_t requests_bytes(const struct mg_model_info *, int lanes, int queue);
int requests_init(struct requests *, const struct mg_model *, struct mg_batch *,
                  int lanes, int queue);
void requests_free(struct requests *);

/* A slot to parse into; there always is one. Not live until request_enqueue. */
struct request *request_open(struct requests *, struct conn *);
/* 0: live, its samples wait for lanes; -1: every lane taken and the queue full. After
 * requests_fill: a free lane that others wait for is no room, and slots are counted. */
int request_enqueue(struct requests *, struct request *);
/* Free its lanes and its slot, live or not. */
void request_close(struct requests *, struct request *);

/* Give free lanes to waiting samples: the request with the fewest lanes first, then the
 * oldest. */
void requests_fill(struct requests *, int64_t now_ns);
/* The lane's sample has ended and been delivered. */
void request_release(struct requests *, int lane);

#endif
