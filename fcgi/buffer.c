/* SPDX-License-Identifier: Apache-2.0
 * buffer.c - see buffer.h. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 256 };

static int grow(struct buffer *b, size_t need) {
    size_t cap = b->cap ? b->cap : SMALLEST;
    while (cap < need) cap *= 2;
    if (cap - b->cap > b->budget->limit - b->budget->used)
        cap = need; /* the last of it */
    if (cap - b->cap > b->budget->limit - b->budget->used) return -1;
    char *grown = realloc(b->bytes, cap);
    if (!grown) return -1;
    b->budget->used += cap - b->cap;
    b->bytes = grown;
    b->cap = cap;
    return 0;
}

int buffer_add(struct buffer *b, const char *bytes, size_t n) {
    if (n > b->budget->limit - b->len) return -1;
    if (b->len + n > b->cap && grow(b, b->len + n)) return -1;
    if (n) memcpy(b->bytes + b->len, bytes, n);
    b->len += n;
    return 0;
}

int buffer_puts(struct buffer *b, const char *text) {
    return buffer_add(b, text, strlen(text));
}

static int add_piece(const char *bytes, size_t n, void *buffer) {
    return buffer_add(buffer, bytes, n);
}

int buffer_json(struct buffer *b, json_t *v) {
    int rc = v ? json_dump_callback(v, add_piece, b, JSON_COMPACT | JSON_ENCODE_ANY) : -1;
    json_decref(v);
    return rc;
}

void buffer_free(struct buffer *b) {
    free(b->bytes);
    if (b->budget) b->budget->used -= b->cap;
    b->bytes = NULL;
    b->len = b->cap = 0;
}
