/* SPDX-License-Identifier: Apache-2.0
 *
 * chat.c - messages to prompt tokens, cut to fit the context (generation.md, "chat").
 * Content may be megabytes while the prompt is at most block_size tokens: every message
 * is counted, only what stays is written. Knows no lanes and no JSON. */
#include "error.h"
#include "model.h"
#include "text.h"

enum { MIN_BLOCK = 6 }; /* bos, role, one token, end_turn, assistant = 5 = 6 - 6 / 4 */

/* What counting found. A message is role, content and end_turn: content tokens + 2. */
struct plan {
    size_t first;   /* messages before it are dropped */
    uint64_t total; /* tokens of the whole prompt */
    uint64_t kept;  /* tokens of the prompt from first on */
    size_t last;    /* content tokens of the last message */
};

static size_t count_content(const struct mg_model *m, const struct mg_message *msg) {
    return mg_tokenizer_encode(m->tokenizer, msg->content, msg->len, 0, NULL, 0);
}

static int fail_message(const struct mg_message *msg, size_t i, struct mg_error *err) {
    if (mg_text_is_blank(msg->content, msg->len))
        return mg_fail(err, MG_EINPUT, "messages[%zu]: content is blank", i);
    return mg_fail(err, MG_EINPUT,
                   "messages[%zu]: no character of content is known to this model", i);
}

/* Count from the last message to the first: those that fit are the longest tail of at
 * most limit tokens. extra: tokens of the prompt that belong to no message. */
static int plan_prompt(const struct mg_model *m, const struct mg_message *messages,
                       size_t n, uint64_t extra, uint64_t limit, struct plan *p,
                       struct mg_error *err) {
    size_t bad = n;
    *p = (struct plan){.first = n, .total = extra, .kept = extra};
    for (size_t i = n; i-- > 0;) {
        size_t count = count_content(m, &messages[i]);
        if (!m->options.compat_05 &&
            (count == 0 || mg_text_is_blank(messages[i].content, messages[i].len)))
            bad = i; /* the first one is reported */
        if (i == n - 1) p->last = count;
        p->total += count + 2;
        if (p->first == i + 1 && p->total <= limit) {
            p->first = i;
            p->kept = p->total;
        }
    }
    return bad < n ? fail_message(&messages[bad], bad, err) : 0;
}

/* role, the content's tokens from skip on (room for them is the caller's promise),
 * end_turn. */
static int32_t *put_message(const struct mg_model *m, const struct mg_message *msg,
                            size_t skip, int32_t *out) {
    const struct mg_tokenizer *t = m->tokenizer;
    *out++ = msg->role == MG_USER ? mg_tokenizer_user(t) : mg_tokenizer_assistant(t);
    size_t count = mg_tokenizer_encode(t, msg->content, msg->len, skip, out,
                                       (size_t)m->info.block_size);
    out += count - skip;
    *out++ = mg_tokenizer_end_turn(t);
    return out;
}

static int check_chat(const struct mg_model *m, size_t n, struct mg_error *err) {
    if (!m->info.has_chat)
        return mg_fail(err, MG_EINPUT, "model was not trained with chat tokens");
    if (!m->options.compat_05 && m->info.block_size < MIN_BLOCK)
        return mg_fail(
            err, MG_EINPUT,
            "the model's context of %d tokens is too short for chat, which needs %d",
            m->info.block_size, MIN_BLOCK);
    if (n == 0)
        return mg_fail(err, MG_EINPUT, "messages: at least one message is needed");
    return 0;
}

/* The reference 0.5.0 cuts behind the first end_turn at or after token total - budget.
 * Seen from the end, that leaves the longest tail of whole messages that is shorter than
 * budget. */
static int put_compat(const struct mg_model *m, const struct mg_message *messages,
                      size_t n, int32_t *tokens, uint64_t *dropped,
                      struct mg_error *err) {
    uint64_t budget = (uint64_t)(m->info.block_size - m->info.block_size / 4);
    struct plan p;
    if (plan_prompt(m, messages, n, 1, budget - 1, &p, err) < 0) return -1;
    if (p.total <= budget) {
        p.first = 0;
        p.kept = p.total;
    }
    int32_t *out = tokens;
    for (size_t i = p.first; i < n; i++) out = put_message(m, &messages[i], 0, out);
    *out++ = mg_tokenizer_assistant(m->tokenizer);
    *dropped = p.total - p.kept;
    return (int)(out - tokens);
}

int mg_chat_prompt(const struct mg_model *m, const struct mg_message *messages, size_t n,
                   int32_t *tokens, uint64_t *dropped, struct mg_error *err) {
    if (check_chat(m, n, err) < 0) return -1;
    if (m->options.compat_05) return put_compat(m, messages, n, tokens, dropped, err);
    uint64_t budget = (uint64_t)(m->info.block_size - m->info.block_size / 4);
    struct plan p;
    if (plan_prompt(m, messages, n, 2, budget, &p, err) < 0) return -1;
    int32_t *out = tokens;
    *out++ = mg_tokenizer_bos(m->tokenizer);
    if (p.first == n) /* the last message alone is too long: its end stays */
        out = put_message(m, &messages[n - 1], p.last - (size_t)(budget - 4), out);
    for (size_t i = p.first; i < n; i++) out = put_message(m, &messages[i], 0, out);
    *out++ = mg_tokenizer_assistant(m->tokenizer);
    *dropped = p.total - (uint64_t)(out - tokens);
    return (int)(out - tokens);
}
