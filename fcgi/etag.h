/* SPDX-License-Identifier: Apache-2.0
 * etag.h - the name of a reply before a token of it is computed: since a reply is a
 * function of request and checkpoint, a hash of the two is as strong as one of its
 * bytes. */
#ifndef ETAG_H
#define ETAG_H

#include "request.h"

/* The strong entity tag of r's reply, in quotes, into r->etag: from the fingerprint, the
 * route, what was asked for after validation (so order, spacing, unknown members and
 * defaults that are spelled out do not matter) and how it is answered: plain, as a
 * stream, with a receipt. The digits of the plain one into r->plain_etag. "" without a
 * fingerprint. With a receipt also r->canonical; -1: no memory for it. */
int etag_make(struct request *r, const struct mg_model_info *, const char *fingerprint);

/* The SHA-256 of a body as the value of Repr-Digest, RFC 9530. */
enum { ETAG_DIGEST = sizeof "sha-256=::" + MG_BASE64(MG_SHA256) };
void etag_digest(const char *body, size_t len, char text[ETAG_DIGEST]);

/* The header lines that say what a reply is made of: ETag and X-Model-Fingerprint; with a
 * body also Repr-Digest, its SHA-256. "" without a fingerprint. */
enum { ETAG_LINES = 256 };
void etag_lines(const struct request *r, const char *fingerprint, const char *body,
                size_t len, char lines[ETAG_LINES]);

/* Does If-None-Match name it? By the weak comparison, as RFC 9110 has it for GET. */
int etag_matches(const char *if_none_match, const char *etag);

#endif
