/* SPDX-License-Identifier: Apache-2.0
 * receipt.h - what a reply is made of and what came of it, as one JSON object that
 * anybody who has the model can check: fingerprint, route, canonical request, status,
 * digest of the reply, and the entity tag, which binds the first three. Knows no
 * connections. */
#ifndef RECEIPT_H
#define RECEIPT_H

#include "request.h"

/* The receipt of r, whose plain reply is the len bytes at reply, appended to *out. -1: no
 * memory. */
int receipt_write(const struct request *r, const char *fingerprint, const char *reply,
                  size_t len, struct buffer *out);

/* The same as a last member of *out, which holds that plain reply, an object. */
int receipt_add(const struct request *r, const char *fingerprint, struct buffer *out);

#endif
