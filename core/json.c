/* SPDX-License-Identifier: Apache-2.0
 * json.c - the one place of the library that reads JSON, by Jansson, strictly. Knows no file
 * format: checkpoint.c and meta.c say what must be in there. */
#include "json.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static const json_t *tree(const struct mg_json *v) {
    return (const json_t *)v;
}

static const struct mg_json *value(const json_t *v) {
    return (const struct mg_json *)v;
}

/* An upper bound of the values in text: each but the first follows a bracket, comma or colon. A
 * tree costs up to 300 bytes a value where the text costs two, so it is counted before it is
 * built. */
static size_t count_values(const char *text, size_t len) {
    size_t n = 1;
    int in_string = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '"') in_string = !in_string;
        if (in_string && c == '\\') i++;
        if (!in_string && (c == '{' || c == '[' || c == ',')) n++;
    }
    return n;
}

struct mg_json *mg_json_parse(const char *where, const char *text, size_t len,
                              struct mg_error *err) {
    if (count_values(text, len) > MG_JSON_MAX_VALUES) {
        mg_fail(err, MG_EFILE, "%s: found more than %d JSON values, expected fewer", where,
                MG_JSON_MAX_VALUES);
        return NULL;
    }
    json_error_t e;
    json_t *v = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (v && json_is_object(v)) return (struct mg_json *)v;
    if (v)
        mg_fail(err, MG_EFILE, "%s: found JSON that is an array, expected an object", where);
    else if (json_error_code(&e) == json_error_out_of_memory)
        mg_fail(err, MG_ENOMEM, "%s: out of memory reading %zu bytes of JSON", where, len);
    else
        mg_fail(err, MG_EFILE, "%s: not valid JSON: line %d, column %d: %s", where, e.line,
                e.column, e.text);
    json_decref(v);
    return NULL;
}

void mg_json_free(struct mg_json *v) {
    json_decref((json_t *)v);
}

int mg_json_is_null(const struct mg_json *v) {
    return json_is_null(tree(v));
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
    json_t *v = (json_t *)object; /* Jansson's iterators take no const; nothing is written */
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
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_TRUE] = "true",        [JSON_FALSE] = "false",    [JSON_NULL] = "null",
    };
    if (!v)
        snprintf(buf, MG_JSON_DESCRIBE, "nothing");
    else if (json_is_integer(tree(v)))
        snprintf(buf, MG_JSON_DESCRIBE, "%" JSON_INTEGER_FORMAT, json_integer_value(tree(v)));
    else if (json_is_real(tree(v)))
        snprintf(buf, MG_JSON_DESCRIBE, "the real number %.17g", json_real_value(tree(v)));
    else
        snprintf(buf, MG_JSON_DESCRIBE, "%s", names[json_typeof(tree(v))]);
    return buf;
}
