/* SPDX-License-Identifier: Apache-2.0
 * json.h - reading JSON from files that may be hostile: a thin, strict view of Jansson.
 * Values are borrowed from the tree they came from. Internal to core. */
#ifndef MG_JSON_H
#define MG_JSON_H

#include "microgpt.h"

struct mg_json;      /* any value */
struct mg_json_text; /* a parsed text: owns its values */

enum { MG_JSON_MEMORY = 128 << 20, MG_JSON_DESCRIBE = 48 };

/* Parse len bytes of text as one JSON object, white space around it allowed. Refused:
 * ill-formed UTF-8, a member given twice, depth over 2048, a tree of more than
 * MG_JSON_MEMORY bytes. NULL on error; the message begins with where (a file). Not for
 * two threads at once. */
struct mg_json_text *mg_json_open(const char *where, const char *text, size_t len,
                                  struct mg_error *err);
void mg_json_close(struct mg_json_text *);
const struct mg_json *mg_json_root(const struct mg_json_text *);

/* Every call below takes NULL for "absent" and any type of value. */
int mg_json_is_null(const struct mg_json *);
int mg_json_is_true(const struct mg_json *);
int mg_json_is_false(const struct mg_json *);
int mg_json_is_object(const struct mg_json *);
int mg_json_is_array(const struct mg_json *);

/* Member of an object, NULL if there is none. Keys hold no NUL. */
const struct mg_json *mg_json_get(const struct mg_json *object, const char *key);
size_t mg_json_size(const struct mg_json *); /* members or elements */
const struct mg_json *mg_json_at(const struct mg_json *array, size_t i);

/* Walk the members: *iter starts as NULL; returns the next value, NULL after the last. */
const struct mg_json *mg_json_next(const struct mg_json *object, void **iter,
                                   const char **key);

/* The bytes of a string (valid UTF-8, may hold NUL), NULL if it is none. */
const char *mg_json_string(const struct mg_json *, size_t *len);
/* 0 and *out if the value is an integer (written without point or exponent), else -1. */
int mg_json_int(const struct mg_json *, int64_t *out);

/* What was found, for an error: "nothing", "null", "-1", "1.5", "a string", ... Returns
 * buf. */
const char *mg_json_describe(const struct mg_json *, char buf[MG_JSON_DESCRIBE]);

#endif
