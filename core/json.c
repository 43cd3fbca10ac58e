/* SPDX-License-Identifier: Apache-2.0
 * json.c - the one place of the library that reads JSON, by Jansson, strictly. Knows no
 * file format: checkpoint.c and meta.c say what must be in there.
 *
 * Jansson's parser is not safe when memory runs out: its scanner ignores that a buffer
 * could not grow and reads past it (2.14, lex_save). So it never sees a failed
 * allocation: the parse is left by longjmp, and all blocks of a text, chained here, are
 * freed as one. The same chain bounds the memory of a hostile text. */
#include "json.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

struct block {
    alignas(max_align_t) struct block *next, *prev;
    size_t size; /* with this head */
};

struct mg_json_text {
    struct block blocks; /* head of the ring */
    size_t used;         /* bytes of all blocks */
    json_t *root;
    jmp_buf give_up; /* value: enum refusal */
};

enum refusal { PARSED, OUT_OF_MEMORY, TOO_LARGE };

static struct mg_json_text *parsing; /* Jansson's allocator has no argument */

static void *take_block(size_t size) {
    struct mg_json_text *t = parsing;
    size += sizeof(struct block);
    if (size > MG_JSON_MEMORY - t->used) longjmp(t->give_up, TOO_LARGE);
    struct block *b = malloc(size);
    if (!b) longjmp(t->give_up, OUT_OF_MEMORY);
    t->used += size;
    *b = (struct block){.next = t->blocks.next, .prev = &t->blocks, .size = size};
    b->next->prev = b->prev->next = b;
    return b + 1;
}

static void drop_block(void *p) {
    if (!p) return;
    struct block *b = (struct block *)p - 1;
    b->prev->next = b->next;
    b->next->prev = b->prev;
    parsing->used -= b->size;
    free(b);
}

/* Parse with Jansson's allocator replaced by ours meanwhile. */
static enum refusal parse_text(struct mg_json_text *t, const char *text, size_t len,
                               json_error_t *e) {
    json_malloc_t old_malloc;
    json_free_t old_free;
    json_get_alloc_funcs(&old_malloc, &old_free);
    json_set_alloc_funcs(take_block, drop_block);
    parsing = t;
    int refusal = setjmp(t->give_up);
    if (refusal == PARSED)
        t->root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, e);
    json_set_alloc_funcs(old_malloc, old_free);
    return (enum refusal)refusal;
}

struct mg_json_text *mg_json_open(const char *where, const char *text, size_t len,
                                  struct mg_error *err) {
    json_error_t e;
    struct mg_json_text *t = calloc(1, sizeof *t);
    if (t) t->blocks.next = t->blocks.prev = &t->blocks;
    enum refusal refusal = t ? parse_text(t, text, len, &e) : OUT_OF_MEMORY;
    if (refusal == PARSED && json_is_object(t->root)) return t;
    if (refusal == OUT_OF_MEMORY)
        mg_fail(err, MG_ENOMEM, "%s: out of memory reading %zu bytes of JSON", where,
                len);
    else if (refusal == TOO_LARGE)
        mg_fail(err, MG_EFILE,
                "%s: found JSON that needs more than %d MiB, expected less", where,
                MG_JSON_MEMORY >> 20);
    else if (t->root)
        mg_fail(err, MG_EFILE, "%s: found JSON that is an array, expected an object",
                where);
    else
        mg_fail(err, MG_EFILE, "%s: not valid JSON: line %d, column %d: %s", where,
                e.line, e.column, e.text);
    mg_json_close(t);
    return NULL;
}

void mg_json_close(struct mg_json_text *t) {
    if (!t) return;
    for (struct block *b = t->blocks.next, *next; b != &t->blocks; b = next) {
        next = b->next;
        free(b);
    }
    free(t);
}

static const json_t *tree(const struct mg_json *v) {
    return (const json_t *)v;
}

static const struct mg_json *value(const json_t *v) {
    return (const struct mg_json *)v;
}

const struct mg_json *mg_json_root(const struct mg_json_text *t) {
    return value(t->root);
}

int mg_json_is_null(const struct mg_json *v) {
    return json_is_null(tree(v));
}

int mg_json_is_true(const struct mg_json *v) {
    return json_is_true(tree(v));
}

int mg_json_is_false(const struct mg_json *v) {
    return json_is_false(tree(v));
}

int mg_json_is_object(const struct mg_json *v) {
    return json_is_object(tree(v));
}

int mg_json_is_array(const struct mg_json *v) {
    return json_is_array(tree(v));
}

const struct mg_json *mg_json_get(const struct mg_json *object, const char *key) {
    return value(json_object_get(tree(object), key));
}

size_t mg_json_size(const struct mg_json *v) {
    return json_is_object(tree(v)) ? json_object_size(tree(v)) : json_array_size(tree(v));
}

const struct mg_json *mg_json_at(const struct mg_json *array, size_t i) {
    return value(json_array_get(tree(array), i));
}

const struct mg_json *mg_json_next(const struct mg_json *object, void **iter,
                                   const char **key) {
    json_t *v =
        (json_t *)object; /* Jansson's iterators take no const; nothing is written */
    *iter = *iter ? json_object_iter_next(v, *iter) : json_object_iter(v);
    if (!*iter) return NULL;
    *key = json_object_iter_key(*iter);
    return value(json_object_iter_value(*iter));
}

const char *mg_json_string(const struct mg_json *v, size_t *len) {
    *len = json_string_length(tree(v));
    return json_string_value(tree(v));
}

int mg_json_int(const struct mg_json *v, int64_t *out) {
    if (!json_is_integer(tree(v))) return -1;
    *out = json_integer_value(tree(v));
    return 0;
}

const char *mg_json_describe(const struct mg_json *v, char buf[MG_JSON_DESCRIBE]) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array",
        [JSON_STRING] = "a string",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    if (!v)
        snprintf(buf, MG_JSON_DESCRIBE, "nothing");
    else if (json_is_integer(tree(v)))
        snprintf(buf, MG_JSON_DESCRIBE, "%" JSON_INTEGER_FORMAT,
                 json_integer_value(tree(v)));
    else if (json_is_real(tree(v)))
        snprintf(buf, MG_JSON_DESCRIBE, "the real number %.17g",
                 json_real_value(tree(v)));
    else
        snprintf(buf, MG_JSON_DESCRIBE, "%s", names[json_typeof(tree(v))]);
    return buf;
}
