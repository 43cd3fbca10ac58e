/* SPDX-License-Identifier: Apache-2.0
 * engine.h - one model in one worker: weights, batch, queue, and what it is called. */
#ifndef ENGINE_H
#define ENGINE_H

#include "config.h"
#include "queue.h"

struct engine {
    const struct config *config;
    struct mg_model *model;
    struct mg_batch *batch;
    struct queue queue;
    char name[256];                       /* last part of the model's real path */
    char digest[17];                      /* of its files */
    char fingerprint[MG_FINGERPRINT + 1]; /* of what decides replies; "": no promise */
};

struct engine_memory {
    size_t batch, queue; /* bytes */
};

/* Open the checkpoint of the configuration into *e (zeroed). 0, or an exit code with one
 * line in text; engine_close in either case. */
int engine_open(struct engine *e, const struct config *, char *text, size_t size);
/* Lanes as configured, or as many as the default holds. */
int engine_lanes(const struct engine *);
/* What engine_reserve takes for so many lanes, and the queue may take later. */
struct engine_memory engine_memory(const struct engine *, int lanes);
/* Batch and queue; then one generation proves the arithmetic. As engine_open. */
int engine_reserve(struct engine *e, int lanes, char *text, size_t size);
void engine_close(struct engine *);

/* Seconds that fifty samples of full length take about, from a short measurement. */
double engine_fifty_seconds(struct engine *);

#endif
