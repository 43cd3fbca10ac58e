/* SPDX-License-Identifier: Apache-2.0
 * query.h - the parameters of a GET as the JSON body that a POST would have: so both are
 * checked by the same rules. */
#ifndef QUERY_H
#define QUERY_H

#include "request.h"

#include <stddef.h>

/* name=value&... into body (size bytes) as a JSON object of numbers: what is no number
 * becomes a string, for which the rules of the body have an answer. Returns its length,
 * or -1 with *why: a name that is none of num_samples, temperature, seed, max_tokens, or
 * is there twice; an escape that is none; too long. */
int64_t query_to_json(const char *query, char *body, size_t size, struct refusal *why);

#endif
