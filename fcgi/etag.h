/* SPDX-License-Identifier: Apache-2.0
 * etag.h - the name of a reply before a token of it is computed: since a reply is a
 * function of request and checkpoint, a hash of the two is as strong as one of its
 * bytes. */
#ifndef ETAG_H
#define ETAG_H

#include "request.h"

/* The strong entity tag of r's reply, in quotes, into r->etag: from the fingerprint, what
 * was asked for after validation (so order, spacing, unknown members and defaults that
 * are spelled out do not matter) and whether it is a stream. "" without a fingerprint. */
void etag_make(struct request *r, const struct mg_model_info *, const char *fingerprint);

/* The header lines that say what a reply is made of: ETag and X-Model-Fingerprint; with a
 * body also Repr-Digest, its SHA-256. "" without a fingerprint. */
enum { ETAG_LINES = 256 };
void etag_lines(const struct request *r, const char *fingerprint, const char *body,
                size_t len, char lines[ETAG_LINES]);

/* Does If-None-Match name it? By the weak comparison, as RFC 9110 has it for GET. */
int etag_matches(const char *if_none_match, const char *etag);

#endif
