/* SPDX-License-Identifier: Apache-2.0
 * api.h - a parsed body becomes a typed, checked request. Every rule of the two
 * endpoints' fields is enforced here, once. */
#ifndef API_H
#define API_H

#include "../core/microgpt.h"
#include "document.h"

enum { API_MAX_SAMPLES = 50 };

struct api_request {
    int chat; /* 1: reply to tokens; 0: samples */
    int n_samples;
    double temperature;
    uint64_t seed;
    uint64_t max_tokens; /* 0 = as many as fit */
    int stream;
    int n_prompt;     /* chat: ids in tokens */
    uint64_t dropped; /* chat: tokens of early history cut */
};

struct api_error {
    int status; /* 400, 413, 422 */
    char text[320];
};

/* Check d (the body) for chat or generate and fill *r; the prompt of a chat is laid
 * out in prompt and copied to tokens [block_size]. compat_05: a `stream` that is not a bool is ignored, as 0.5.0 did (its
 * recorded requests have them). 0 or -1. */
int api_parse(const struct document *d, int chat, const struct mg_model *,
              struct mg_prompt *, int compat_05, struct api_request *r, int32_t *tokens,
              struct api_error *err);

#endif
