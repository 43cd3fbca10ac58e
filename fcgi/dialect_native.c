/* SPDX-License-Identifier: Apache-2.0
 * dialect_native.c - the API of generate and chat: the fields of a body, types first
 * (422), then values (400); and the shape of replies, events and errors
 * (microgpt-api(7)). Knows JSON, nothing of connections or lanes. */
#include "dialect.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { EXCERPT = 40 }; /* characters of the client's text that an error may echo */

struct check {
    const struct body *d;
    const struct dialect_limits *limits;
    struct request *r;
    struct refusal *why;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct check *c, int status,
                                                      const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    c->why->status = status;
    vsnprintf(c->why->text, sizeof c->why->text, fmt, ap);
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
    if (body_u64(c->d, v, out) == 0) return 0;
    return fail(c, 422, "\"%s\" must be an integer from 0 to 18446744073709551615%s",
                name, null_ok ? " or null" : "");
}

static int read_common(const struct check *c, int *has_max_tokens) {
    const json_t *t = json_object_get(c->d->root, "temperature");
    const json_t *s = json_object_get(c->d->root, "stream");
    const json_t *m = json_object_get(c->d->root, "max_tokens");
    const json_t *receipt = json_object_get(c->d->root, "receipt");
    *has_max_tokens = m && !json_is_null(m);
    if (t && body_number(c->d, t, &c->r->ask.temperature) < 0)
        return fail(c, 422, "\"temperature\" must be a number");
    if (s && !json_is_boolean(s) && !c->limits->compat_05)
        return fail(c, 422, "\"stream\" must be true or false");
    if (receipt && !json_is_boolean(receipt))
        return fail(c, 422, "\"receipt\" must be true or false");
    c->r->ask.stream = json_is_true(s);
    c->r->ask.receipt = json_is_true(receipt);
    if (read_u64(c, "seed", 0, &c->r->ask.seed) < 0) return -1;
    return read_u64(c, "max_tokens", 1, &c->r->ask.max_tokens);
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
    if (!(c->r->ask.temperature >= 0))
        return fail(c, 400, "\"temperature\" must be 0 or more");
    if (c->r->ask.temperature >= BODY_HUGE)
        return fail(c, 400, "\"temperature\" is too large a number");
    if (has_max_tokens && c->r->ask.max_tokens == 0)
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

static int read_messages(const struct check *c, const json_t *array) {
    size_t n = json_array_size(array);
    if (n == 0) return fail(c, 400, "\"messages\" needs at least one message");
    struct mg_message *messages = body_alloc(n * sizeof *messages);
    if (!messages)
        return fail(c, 413, "the body takes too much memory: send fewer messages");
    for (size_t i = 0; i < n; i++)
        if (read_message(c, json_array_get(array, i), i, &messages[i]) < 0) return -1;
    c->r->messages = messages;
    c->r->n_messages = n;
    return 0;
}

/* What does not fit with a byte a token is refused whatever else is going on. */
static int check_text(const struct check *c) {
    const struct mg_model_info *m = c->limits->model;
    uint64_t most = c->r->ask.max_tokens, block = (uint64_t)m->block_size;
    if (most == 0 || most > block) most = block;
    if ((uint64_t)c->r->ask.n_samples * most <= c->limits->max_text) return 0;
    return fail(c, 400,
                "so many samples of so many tokens may be more text than the server "
                "allows: lower \"num_samples\" or \"max_tokens\"");
}

/* ---- endpoints --------------------------------------------------------------------- */

static int read_generate(const struct check *c) {
    int has_max_tokens;
    uint64_t samples = 1;
    if (read_u64(c, "num_samples", 0, &samples) < 0) return -1;
    if (read_common(c, &has_max_tokens) < 0) return -1;
    if (samples == 0) return fail(c, 400, "\"num_samples\" must be 1 or more");
    c->r->ask.n_samples =
        samples > REQUEST_MAX_SAMPLES ? REQUEST_MAX_SAMPLES : (int)samples;
    if (check_values(c, has_max_tokens) < 0) return -1;
    return check_text(c);
}

static int read_chat(const struct check *c) {
    int has_max_tokens;
    const json_t *messages = json_object_get(c->d->root, "messages");
    if (!c->limits->model->has_chat)
        return fail(c, 400, "model was not trained with chat tokens");
    if (check_message_types(c, messages) < 0) return -1;
    if (read_common(c, &has_max_tokens) < 0) return -1;
    if (check_values(c, has_max_tokens) < 0) return -1;
    c->r->ask.n_samples = 1;
    c->r->ask.chat = 1;
    return read_messages(c, messages);
}

static int parse(struct request *r, const struct body *d,
                 const struct dialect_limits *limits, struct refusal *why,
                 int (*read)(const struct check *)) {
    struct check c = {d, limits, r, why};
    r->ask = (struct ask){.temperature = limits->model->temperature, .seed = 42};
    if (!json_is_object(d->root)) return fail(&c, 400, "the body must be a JSON object");
    return read(&c);
}

static int parse_generate(struct request *r, const struct body *d,
                          const struct dialect_limits *limits, struct refusal *why) {
    return parse(r, d, limits, why, read_generate);
}

static int parse_chat(struct request *r, const struct body *d,
                      const struct dialect_limits *limits, struct refusal *why) {
    return parse(r, d, limits, why, read_chat);
}

/* ---- the same, canonical ---------------------------------------------------------- */

/* As many tokens as fit are as many as the context has; so are more than that. */
static void canonical_common(const struct request *r, const struct mg_model_info *m,
                             struct canon *c) {
    uint64_t block = (uint64_t)m->block_size, max = r->ask.max_tokens;
    canon_real(c, "temperature", r->ask.temperature);
    canon_u64(c, "seed", r->ask.seed);
    canon_u64(c, "max_tokens", max == 0 || max > block ? block : max);
}

static void canonical_generate(const struct request *r, const struct mg_model_info *m,
                               struct canon *c) {
    canon_u64(c, "num_samples", (uint64_t)r->ask.n_samples);
    canonical_common(r, m, c);
}

static void canonical_chat(const struct request *r, const struct mg_model_info *m,
                           struct canon *c) {
    canon_messages(c, "messages", r->messages, r->n_messages);
    canonical_common(r, m, c);
}

/* ---- replies ----------------------------------------------------------------------- */

const char *finish_name(enum mg_finish f) {
    return f == MG_STOP ? "stop" : "length";
}

static json_t *text_of(const struct request *r, int sample) {
    if (r->sample[sample].len == 0) return json_string(""); /* there may be no bytes */
    return json_stringn_nocheck(r->text.bytes + r->sample[sample].at,
                                r->sample[sample].len);
}

static int whole_generate(const struct request *r, struct buffer *out, char *header,
                          size_t size) {
    snprintf(header, size, "%s", "");
    int rc = buffer_puts(out, "{\"samples\":[");
    for (int i = 0; !rc && i < r->ask.n_samples; i++) {
        body_reset();
        rc = (i && buffer_puts(out, ",")) || buffer_json(out, text_of(r, i));
    }
    return rc || buffer_puts(out, "]}") ? -1 : 0;
}

static int whole_chat(const struct request *r, struct buffer *out, char *header,
                      size_t size) {
    snprintf(
        header, size,
        "X-Finish-Reason: %s\r\nX-Prompt-Tokens: %llu\r\nX-Completion-Tokens: %llu\r\n",
        finish_name(r->finish), (unsigned long long)r->prompt_tokens,
        (unsigned long long)r->output_tokens);
    return buffer_json(out, json_pack("{s:s, s:o, s:I}", "role", "assistant", "content",
                                      text_of(r, 0), "tokens_dropped",
                                      (json_int_t)r->dropped));
}

/* ---- events ------------------------------------------------------------------------ */

static json_t *begin_chat(const struct request *r) {
    return json_pack("{s:s, s:s, s:I}", "role", "assistant", "content", "",
                     "tokens_dropped", (json_int_t)r->dropped);
}

/* {"index", "content", "finish_reason"}: index for generate, a reason for the last. */
static json_t *event(const struct request *r, int sample, const char *text, size_t len,
                     const char *reason) {
    json_t *e = json_object();
    if (!r->ask.chat) json_object_set_new_nocheck(e, "index", json_integer(sample));
    json_object_set_new_nocheck(e, "content", json_stringn_nocheck(text, len));
    if (reason) json_object_set_new_nocheck(e, "finish_reason", json_string(reason));
    return e;
}

static json_t *delta(const struct request *r, int sample, const char *text, size_t len) {
    return event(r, sample, text, len, NULL);
}

static json_t *finish(const struct request *r, int sample, enum mg_finish why) {
    return event(r, sample, "", 0, finish_name(why));
}

static json_t *error(int status, const char *text) {
    (void)status;
    return json_pack("{s:s}", "error", text);
}

const struct dialect dialect_generate = {.route = "/microgpt/v1/generate",
                                         .parse = parse_generate,
                                         .canonical = canonical_generate,
                                         .delta = delta,
                                         .finish = finish,
                                         .whole = whole_generate,
                                         .error = error};
const struct dialect dialect_chat = {.route = "/microgpt/v1/chat",
                                     .parse = parse_chat,
                                     .canonical = canonical_chat,
                                     .begin = begin_chat,
                                     .delta = delta,
                                     .finish = finish,
                                     .whole = whole_chat,
                                     .error = error};
