/* SPDX-License-Identifier: Apache-2.0
 * api.c - the fields of generate and chat: types first (422), then values (400). Knows
 * JSON and the core's prompt, nothing of connections or lanes. Another API dialect would
 * be another file. */
#include "api.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { EXCERPT = 40 }; /* characters of the client's text that an error may echo */

struct check {
    int compat_05;
    const struct document *d;
    const struct mg_model *model;
    struct mg_prompt *prompt;
    struct api_request *r;
    struct api_error *err;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct check *c, int status,
                                                      const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    c->err->status = status;
    vsnprintf(c->err->text, sizeof c->err->text, fmt, ap);
    va_end(ap);
    return -1;
}

/* At most EXCERPT characters of s, everything but printable ASCII escaped. */
static const char *excerpt(const json_t *s, char buf[EXCERPT + 1]) {
    const unsigned char *p = (const unsigned char *)json_string_value(s);
    size_t n = json_string_length(s), at = 0;
    for (size_t i = 0; i < n; i++) {
        char one[8];
        int plain = p[i] >= ' ' && p[i] < 0x7f && p[i] != '"' && p[i] != '\\';
        int k = snprintf(one, sizeof one, plain ? "%c" : "\\x%02x", p[i]);
        if (at + (size_t)k > EXCERPT) break;
        memcpy(buf + at, one, (size_t)k);
        at += (size_t)k;
    }
    buf[at] = '\0';
    return buf;
}

/* ---- types (422) ------------------------------------------------------------------- */

static int read_u64(const struct check *c, const char *name, int null_ok, uint64_t *out) {
    const json_t *v = json_object_get(c->d->root, name);
    if (!v || (null_ok && json_is_null(v))) return 0;
    if (document_u64(c->d, v, out) == 0) return 0;
    return fail(c, 422, "\"%s\" must be an integer from 0 to 18446744073709551615%s",
                name, null_ok ? " or null" : "");
}

static int read_common(const struct check *c, int *has_max_tokens) {
    const json_t *t = json_object_get(c->d->root, "temperature");
    const json_t *s = json_object_get(c->d->root, "stream");
    const json_t *m = json_object_get(c->d->root, "max_tokens");
    *has_max_tokens = m && !json_is_null(m);
    if (t && document_number(c->d, t, &c->r->temperature) < 0)
        return fail(c, 422, "\"temperature\" must be a number");
    if (s && !json_is_boolean(s) && !c->compat_05)
        return fail(c, 422, "\"stream\" must be true or false");
    c->r->stream = json_is_true(s);
    if (read_u64(c, "seed", 0, &c->r->seed) < 0) return -1;
    return read_u64(c, "max_tokens", 1, &c->r->max_tokens);
}

static int check_message_types(const struct check *c, const json_t *messages) {
    size_t i;
    json_t *m;
    if (!messages)
        return fail(c, 422,
                    "\"messages\" is missing: an array of {\"role\", \"content\"}");
    if (!json_is_array(messages))
        return fail(c, 422, "\"messages\" must be an array of {\"role\", \"content\"}");
    json_array_foreach(messages, i, m) {
        if (!json_is_object(m)) return fail(c, 422, "messages[%zu] must be an object", i);
        if (!json_is_string(json_object_get(m, "role")))
            return fail(c, 422, "messages[%zu].role must be a string", i);
        if (!json_is_string(json_object_get(m, "content")))
            return fail(c, 422, "messages[%zu].content must be a string", i);
    }
    return 0;
}

/* ---- values (400) ------------------------------------------------------------------ */

static int check_values(const struct check *c, int has_max_tokens) {
    if (!(c->r->temperature >= 0))
        return fail(c, 400, "\"temperature\" must be 0 or more");
    if (c->r->temperature >= DOCUMENT_HUGE)
        return fail(c, 400, "\"temperature\" is too large a number");
    if (has_max_tokens && c->r->max_tokens == 0)
        return fail(c, 400, "\"max_tokens\" must be 1 or more");
    return 0;
}

/* One message of the array, borrowed from the tree. */
static int read_message(const struct check *c, const json_t *m, size_t i,
                        struct mg_message *out) {
    const json_t *role = json_object_get(m, "role"),
                 *content = json_object_get(m, "content");
    const char *name = json_string_value(role);
    char echo[EXCERPT + 1];
    int known = json_string_length(role) == strlen(name);
    if (known && strcmp(name, "user") == 0)
        out->role = MG_USER;
    else if (known && strcmp(name, "assistant") == 0)
        out->role = MG_ASSISTANT;
    else
        return fail(c, 400, "messages[%zu]: unknown role \"%s\"", i, excerpt(role, echo));
    out->content = json_string_value(content);
    out->len = json_string_length(content);
    return 0;
}

static int read_messages(const struct check *c, const json_t *array, int32_t *tokens) {
    size_t n = json_array_size(array);
    struct mg_error error = {0};
    if (n == 0) return fail(c, 400, "\"messages\" needs at least one message");
    struct mg_message *messages = document_alloc(n * sizeof *messages);
    if (!messages)
        return fail(c, 413, "the body takes too much memory: send fewer messages");
    for (size_t i = 0; i < n; i++)
        if (read_message(c, json_array_get(array, i), i, &messages[i]) < 0) return -1;
    if (mg_prompt_begin(c->prompt, messages, n, &error) ||
        mg_prompt_advance(c->prompt, SIZE_MAX, &error))
        return fail(c, 400, "%s", error.text);
    const int32_t *found = mg_prompt_tokens(c->prompt, &c->r->n_prompt, &c->r->dropped);
    memcpy(tokens, found, (size_t)c->r->n_prompt * sizeof *tokens);
    return 0;
}

/* ---- endpoints --------------------------------------------------------------------- */

static int parse_generate(const struct check *c) {
    int has_max_tokens;
    uint64_t samples = 1;
    if (read_u64(c, "num_samples", 0, &samples) < 0) return -1;
    if (read_common(c, &has_max_tokens) < 0) return -1;
    if (samples == 0) return fail(c, 400, "\"num_samples\" must be 1 or more");
    c->r->n_samples = samples > API_MAX_SAMPLES ? API_MAX_SAMPLES : (int)samples;
    return check_values(c, has_max_tokens);
}

static int parse_chat(const struct check *c, int32_t *tokens) {
    int has_max_tokens;
    const json_t *messages = json_object_get(c->d->root, "messages");
    if (!mg_model_info(c->model)->has_chat)
        return fail(c, 400, "model was not trained with chat tokens");
    if (check_message_types(c, messages) < 0) return -1;
    if (read_common(c, &has_max_tokens) < 0) return -1;
    if (check_values(c, has_max_tokens) < 0) return -1;
    c->r->n_samples = 1;
    return read_messages(c, messages, tokens);
}

int api_parse(const struct document *d, int chat, const struct mg_model *model,
              struct mg_prompt *prompt, int compat_05, struct api_request *r,
              int32_t *tokens, struct api_error *err) {
    struct check c = {compat_05, d, model, prompt, r, err};
    *r = (struct api_request){.chat = chat, .temperature = 0.5, .seed = 42};
    if (!json_is_object(d->root)) return fail(&c, 400, "the body must be a JSON object");
    return chat ? parse_chat(&c, tokens) : parse_generate(&c);
}
