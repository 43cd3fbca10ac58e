/* SPDX-License-Identifier: Apache-2.0
 * canon.h - a request in its canonical form: a JSON object of every parameter in effect,
 * after validation, in a fixed order and without spaces. It is what an entity tag hashes
 * and what a receipt records, so a parameter that a dialect writes here is in both.
 * Knows no dialect. */
#ifndef CANON_H
#define CANON_H

#include "buffer.h"

#include "../core/microgpt.h"

struct canon {
    struct mg_sha256 *hash; /* of what is written */
    struct buffer *text;    /* the same as text; NULL: it is only hashed */
    int n;                  /* members so far */
    int failed;             /* there was no memory for the text */
};

/* The braces around all members. canon_end: -1 when there was no memory for the text. */
void canon_begin(struct canon *, struct mg_sha256 *, struct buffer *text);
int canon_end(struct canon *);

/* A member. Names need no escapes. A number is written so that it reads as the same
 * double again, -0 as 0. */
void canon_u64(struct canon *, const char *name, uint64_t);
void canon_real(struct canon *, const char *name, double);
void canon_messages(struct canon *, const char *name, const struct mg_message *,
                    size_t n);

/* For members of other forms: the name and its colon, then pieces of the value: bytes as
 * they are, a string of len bytes of valid UTF-8, a number. */
void canon_name(struct canon *, const char *name);
void canon_puts(struct canon *, const char *text);
void canon_quote(struct canon *, const char *bytes, size_t len);
void canon_number(struct canon *, double);

#endif
