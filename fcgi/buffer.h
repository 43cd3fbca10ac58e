/* SPDX-License-Identifier: Apache-2.0
 * buffer.h - bytes that grow with what there is, from one budget for all of a worker: the
 * texts of requests and of replies. */
#ifndef BUFFER_H
#define BUFFER_H

#include <jansson.h>
#include <stddef.h>

struct budget {
    size_t used, limit; /* bytes */
};

struct buffer {
    char *bytes; /* malloc'd, [len] in use */
    size_t len, cap;
    struct budget *budget;
};

/* Append n bytes. -1: the budget or memory is used up; what was there stays. */
int buffer_add(struct buffer *, const char *bytes, size_t n);
int buffer_puts(struct buffer *, const char *text);
/* Append v, which is taken over and may be NULL (then -1), as compact JSON; any value. */
int buffer_json(struct buffer *, json_t *v);
/* Give the bytes back; the buffer is empty and may be used again. */
void buffer_free(struct buffer *);

#endif
