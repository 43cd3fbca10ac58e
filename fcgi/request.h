/* SPDX-License-Identifier: Apache-2.0
 * request.h - what a request is on its way: parsed (dialect.h), encoded and on lanes
 * (queue.h), answered (deliver.c). */
#ifndef REQUEST_H
#define REQUEST_H

#include "../core/microgpt.h"
#include "buffer.h"
#include "conn.h"
#include "metrics.h"

enum { REQUEST_MAX_SAMPLES = 50, ETAG_DIGITS = 32 };

struct dialect;

/* What was asked for, checked. */
struct ask {
    int chat; /* 1: reply to messages; 0: samples */
    int n_samples;
    double temperature;
    uint64_t seed;       /* of sample 0 */
    uint64_t max_tokens; /* 0 = as many as fit */
    int stream;
    int receipt; /* the reply says what it is made of (receipt.h) */
};

enum request_state {
    REQUEST_OPEN,     /* being parsed; the queue does not know it */
    REQUEST_ENCODING, /* its messages become tokens, a slice a turn */
    REQUEST_QUEUED,   /* its samples wait for lanes, or have them */
};

struct request {
    struct request *prev, *next; /* the live ones, oldest first */
    enum request_state state;
    struct conn *conn;
    enum endpoint endpoint;
    const struct dialect *dialect;
    struct ask ask;
    struct mg_message *messages; /* chat: [n_messages], in the arena of body.h until they
                                    are kept, then in text */
    size_t n_messages;
    int32_t *tokens; /* [block_size] prompt of a chat */
    int n_prompt;
    uint64_t dropped; /* tokens of early history cut */
    struct buffer
        text; /* first its messages, then finished samples, one after the other */
    struct {
        size_t at, len; /* in text */
    } sample[REQUEST_MAX_SAMPLES];
    struct buffer canonical; /* with a receipt: what was asked for (canon.h) */
    int next_sample;         /* samples before it have or had a lane */
    int running;             /* lanes it has */
    int done;                /* samples that ended */
    int begun;               /* stream: the head has gone out */
    enum mg_finish finish;   /* of the last sample that ended */
    uint64_t prompt_tokens, output_tokens;
    int64_t start_ns; /* first byte of the request */
    int64_t lane_ns;  /* first lane; 0 = none yet */
    int64_t first_ns; /* first prompt computed; 0 = not yet */
    char id[64];
    char etag[ETAG_DIGITS + 3];       /* in quotes; "": none */
    char plain_etag[ETAG_DIGITS + 1]; /* the digits of the plain reply's */
};

/* Why a request gets no reply. */
struct refusal {
    int status;
    char text[320]; /* one line */
};

#endif
