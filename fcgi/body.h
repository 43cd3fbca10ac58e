/* SPDX-License-Identifier: Apache-2.0
 * body.h - JSON by Jansson, in bounded memory, with integers up to 2^64-1.
 *
 * Jansson allocates from one arena per process. A request body is parsed into it, a reply
 * is built in it, and body_reset() forgets both: there is nothing to free. */
#ifndef BODY_H
#define BODY_H

#include <jansson.h>
#include <float.h>
#include <stddef.h>
#include <stdint.h>

/* Reserve the arena (max_json bytes for a body's tree, room bytes for any reply) and make
 * it Jansson's allocator. Call after the last use of Jansson with the default allocator.
 * -1: no memory. */
int body_init(size_t max_json, size_t room);
void body_reset(void);

/* n bytes of the arena, aligned to 16; NULL when it is full. Gone with the next reset. */
void *body_alloc(size_t n);

enum body_status { BODY_OK, BODY_BROKEN, BODY_TOO_BIG };

struct body {
    json_t *root;
    int encoded; /* negative integers stand for 2^63 ... 2^64-1 (body.c) */
    char error[200];
};

/* Parse len bytes (changed when they hold a long integer and are broken). BROKEN: error
 * says where and why. TOO_BIG: the tree outgrew max_json. */
enum body_status body_parse(struct body *, char *body, size_t len);

/* v as an integer 0 ... 2^64-1; -1 if it is anything else. */
int body_u64(const struct body *, const json_t *v, uint64_t *out);
/* v as a number; -1 if it is none. A number beyond a double, or an integer beyond
 * Jansson, is BODY_HUGE. */
#define BODY_HUGE DBL_MAX
int body_number(const struct body *, const json_t *v, double *out);

#endif
