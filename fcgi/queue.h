/* SPDX-License-Identifier: Apache-2.0
 * queue.h - the requests that an engine holds, and the lanes they have. One table of
 * slots, taken at start; a live list in order of arrival. Knows the batch, not the
 * connections' bytes. */
#ifndef QUEUE_H
#define QUEUE_H

#include "request.h"

/* A sample on its lane. */
struct place {
    struct request *request; /* NULL = the lane is free */
    int sample;
    size_t sent;   /* stream: bytes of output that became events */
    int generated; /* n_generated at the last look */
};

struct queue {
    const struct mg_model *model;
    struct mg_batch *batch;
    struct mg_prompt *brief,
        *lengthy;             /* prompts in the making: done at once, in slices */
    struct request *encoding; /* whose messages are in lengthy */
    struct budget budget;     /* of all texts */
    struct place *place;      /* [n_lanes] */
    int n_lanes, n_busy;
    int max_waiting;
    int n_waiting;  /* queued requests without a lane */
    int n_encoding; /* live requests whose messages wait to be encoded */
    int n_live;
    int pending; /* samples that wait for a lane, all requests */
    struct request *first, *last;
    struct request *spare;
    struct request *slot; /* [lanes + queue + QUEUE_ENCODING + 1] */
    int32_t *tokens;      /* [slots][block_size] */
};

enum { QUEUE_ENCODING = 16 }; /* long chats that may wait to be encoded */

/* Bytes queue_init reserves, and max_text more that it may take later. */
size_t queue_bytes(const struct mg_model *, int lanes, int max_waiting, size_t max_text);
int queue_init(struct queue *, const struct mg_model *, struct mg_batch *, int lanes,
               int max_waiting, size_t max_text);
void queue_free(struct queue *);

/* A slot to parse into; there always is one. Not live until it is put. */
struct request *queue_open(struct queue *, struct conn *);

/* The request is parsed: a chat is encoded, at once if it is short. 0: it is live. -1
 * with *why: bad content (400), too much of it (413), or no room (503). After queue_fill:
 * a free lane that others wait for is no room. */
int queue_put(struct queue *, struct request *, struct refusal *why);
/* One slice of the oldest long chat. NULL: nothing to report; else the request, which is
 * still live, has failed with *why. */
struct request *queue_encode(struct queue *, struct refusal *why);

/* Give free lanes to waiting samples: the request with the fewest lanes first, then the
 * oldest. */
void queue_fill(struct queue *, int64_t now_ns);
/* The lane's sample has ended, and a whole reply or a digest will need its text. -1: no
 * memory. */
int queue_keep(struct queue *, int lane, const struct mg_output *);
/* The lane's sample has ended and been delivered. */
void queue_release(struct queue *, int lane);
/* Free its lanes, its text and its slot, live or not. */
void queue_close(struct queue *, struct request *);

#endif
