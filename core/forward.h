/* SPDX-License-Identifier: Apache-2.0
 * forward.h - the forward pass over a ragged batch. Owns KV caches and activations; knows
 * nothing of sampling, text or requests. Internal to core. */
#ifndef MG_FORWARD_H
#define MG_FORWARD_H

#include "model.h"

/* n consecutive tokens of one lane, from position pos on. Positions below pos were
 * computed before on this lane. */
struct mg_span {
    int lane;
    int pos;
    int n;                 /* >= 1 */
    const int32_t *tokens; /* [n] */
    int want_logits;       /* of the span's last token */
};

struct mg_forward;

/* Bytes reserved for so many lanes and rows (sum of n) in one call. */
size_t mg_forward_bytes(const struct mg_model *, int lanes, int max_rows, enum mg_kv kv);
struct mg_forward *mg_forward_new(const struct mg_model *, int lanes, int max_rows,
                                  enum mg_kv kv, struct mg_error *err);
void mg_forward_free(struct mg_forward *);

/* Compute the spans (at most one per lane, sum of n <= max_rows). Returns the logits of
 * those that want them, in the order of spans: row i at [i * mg_forward_ld()], vocab_size
 * floats each. Valid until the next call. Allocates nothing; cannot fail. Every value
 * depends on its own lane alone, and each sum has one fixed order (ops.h). */
const float *mg_forward_run(struct mg_forward *, const struct mg_span *spans,
                            int n_spans);
size_t mg_forward_ld(const struct mg_forward *); /* floats between rows of logits */

#endif
