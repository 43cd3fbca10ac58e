/* SPDX-License-Identifier: Apache-2.0
 * chat.c - messages to prompt tokens, a slice at a time, cut to fit the context. Content
 * may be megabytes while a prompt is at most block_size tokens: every id is counted, the
 * last block_size are kept in a ring, and the ring is cut when all is encoded. Role
 * tokens never come from text, so in the ring they are where messages begin and end.
 * Knows no lanes and no JSON. */
#include <stdlib.h>

#include "error.h"
#include "model.h"
#include "text.h"

enum {
    MIN_BLOCK = 6,    /* bos, role, one token, end_turn, assistant = 5 = 6 - 6 / 4 */
    MIN_BLOCK_06 = 4, /* bos before the 3 that are left of a prompt which is cut */
    CHUNK = 256,      /* ids that the tokenizer hands over at once */
    MAX_CONTENT = 256 << 10, /* bytes, where the tokenizer needs memory for its text */
};

struct mg_prompt {
    const struct mg_model *model;
    const struct mg_message *messages; /* [n_messages], borrowed */
    size_t n_messages, at;             /* at: the one that is being encoded */
    struct mg_encoding encoding;
    uint64_t n_content; /* ids of that one's content so far */
    int blank;          /* ... and it was white space so far */
    uint64_t total;     /* ids of the whole prompt so far */
    int32_t *ring;      /* [block_size] id i of the prompt at i % block_size */
    int next;           /* total % block_size */
    int32_t *tokens;    /* [block_size] the result */
    int n_tokens;
    uint64_t dropped;
    void *scratch;
};

/* ---- memory ------------------------------------------------------------------------ */

static size_t scratch_bytes(const struct mg_model *m) {
    return m->tokenizer->calls->scratch_bytes(m->tokenizer, MAX_CONTENT);
}

size_t mg_prompt_max_content(const struct mg_model *m) {
    return scratch_bytes(m) > 0 ? MAX_CONTENT : SIZE_MAX;
}

struct mg_prompt *mg_prompt_new(const struct mg_model *m, struct mg_error *err) {
    size_t block = (size_t)m->info.block_size, scratch = scratch_bytes(m);
    struct mg_prompt *p = calloc(1, sizeof *p);
    if (p) {
        p->model = m;
        p->ring = calloc(block, sizeof *p->ring);
        p->tokens = calloc(block, sizeof *p->tokens);
        p->scratch = scratch ? aligned_alloc(64, (scratch + 63) / 64 * 64) : NULL;
    }
    if (p && p->ring && p->tokens && (p->scratch || !scratch)) return p;
    mg_fail(err, MG_ENOMEM, "out of memory for prompts of %zu tokens", block);
    mg_prompt_free(p);
    return NULL;
}

size_t mg_prompt_bytes(const struct mg_model *m) {
    return sizeof(struct mg_prompt) + 2 * (size_t)m->info.block_size * sizeof(int32_t) +
           scratch_bytes(m);
}

void mg_prompt_free(struct mg_prompt *p) {
    if (!p) return;
    free(p->ring);
    free(p->tokens);
    free(p->scratch);
    free(p);
}

/* ---- encoding ---------------------------------------------------------------------- */

static int is_compat(const struct mg_model *m) {
    return m->options.compat_05 || m->options.compat_06;
}

static void put_id(struct mg_prompt *p, int32_t id) {
    p->ring[p->next++] = id;
    p->total++;
    if (p->next == p->model->info.block_size) p->next = 0;
}

/* The i-th id of the prompt, one of the last block_size. */
static int32_t id_at(const struct mg_prompt *p, uint64_t i) {
    return p->ring[i % (uint64_t)p->model->info.block_size];
}

static int32_t role_id(const struct mg_prompt *p, size_t i) {
    const struct mg_tokenizer *t = p->model->tokenizer;
    return p->messages[i].role == MG_USER ? t->user : t->assistant;
}

static void begin_message(struct mg_prompt *p) {
    const struct mg_message *m = &p->messages[p->at];
    put_id(p, role_id(p, p->at));
    p->n_content = 0;
    p->blank = 1;
    mg_encoding_begin(&p->encoding, p->model->tokenizer, m->content, m->len, p->scratch);
}

static int end_message(struct mg_prompt *p, struct mg_error *err) {
    if (!p->model->options.compat_05 && p->blank)
        return mg_fail(err, MG_EINPUT, "messages[%zu]: content is blank", p->at);
    if (!is_compat(p->model) && p->n_content == 0)
        return mg_fail(err, MG_EINPUT,
                       "messages[%zu]: no character of content is known to this model",
                       p->at);
    put_id(p, p->model->tokenizer->end_turn);
    if (++p->at < p->n_messages) begin_message(p);
    return 0;
}

/* Some of this message's content. Returns what of the budget that took: an encoding that
 * stops with neither its text nor the chunk at an end has used it up. */
static size_t encode_some(struct mg_prompt *p, size_t budget) {
    int32_t chunk[CHUNK];
    struct mg_encoding *e = &p->encoding;
    size_t from = e->at, n = mg_encoding_run(e, budget, chunk, CHUNK);
    for (size_t i = 0; i < n; i++) put_id(p, chunk[i]);
    p->n_content += n;
    p->blank = p->blank && mg_text_is_blank(e->text + from, e->at - from);
    if (!e->done && n < CHUNK) return budget;
    size_t work = e->at - from > n ? e->at - from : n;
    return work > 0 ? work : 1; /* an empty message is work too */
}

/* ---- cutting ----------------------------------------------------------------------- */

static uint64_t budget_of(const struct mg_model *m) {
    return (uint64_t)(m->info.block_size - m->info.block_size / 4);
}

/* Append the ids of the prompt from `from` on to the result. */
static void copy_tail(struct mg_prompt *p, uint64_t from) {
    for (uint64_t i = from; i < p->total; i++) p->tokens[p->n_tokens++] = id_at(p, i);
}

/* The end of the last message, when not even that fits: bos, role, what is left of its
 * content, end_turn, assistant. */
static void cut_message(struct mg_prompt *p, uint64_t budget) {
    p->tokens[p->n_tokens++] = role_id(p, p->n_messages - 1);
    copy_tail(p, p->total - (budget - 2));
}

/* The longest tail of whole messages that fits the budget with bos in front, or the end
 * of the last one. */
static void cut_prompt(struct mg_prompt *p) {
    const struct mg_tokenizer *t = p->model->tokenizer;
    uint64_t budget = budget_of(p->model), all = p->total + 1, from = 0;
    p->tokens[p->n_tokens++] = t->bos;
    if (all > budget) from = p->total - (budget - 1);
    while (from < p->total - 1 && id_at(p, from) != t->user &&
           id_at(p, from) != t->assistant)
        from++;
    if (from == p->total - 1)
        cut_message(p, budget);
    else
        copy_tail(p, from);
    p->dropped = all - (uint64_t)p->n_tokens;
}

/* The reference has no bos and cuts behind the first end_turn at or after id total -
 * budget; since 0.6 it begins what is left with bos. */
static void cut_compat(struct mg_prompt *p) {
    uint64_t budget = budget_of(p->model), from = 0;
    if (p->total > budget) {
        uint64_t i = p->total - budget;
        from = i;
        while (i < p->total && id_at(p, i) != p->model->tokenizer->end_turn) i++;
        if (i < p->total) from = i + 1;
    }
    if (from > 0 && p->model->options.compat_06)
        p->tokens[p->n_tokens++] = p->model->tokenizer->bos;
    copy_tail(p, from);
    p->dropped = from;
}

/* ---- the public part --------------------------------------------------------------- */

static int check_chat(const struct mg_model *m, size_t n, struct mg_error *err) {
    if (!m->info.has_chat)
        return mg_fail(err, MG_EINPUT, "model was not trained with chat tokens");
    int least = m->options.compat_05   ? 0
                : m->options.compat_06 ? MIN_BLOCK_06
                                       : MIN_BLOCK;
    if (m->info.block_size < least)
        return mg_fail(
            err, MG_EINPUT,
            "the model's context of %d tokens is too short for chat, which needs %d",
            m->info.block_size, least);
    if (n == 0)
        return mg_fail(err, MG_EINPUT, "messages: at least one message is needed");
    return 0;
}

static int check_content(const struct mg_model *m, const struct mg_message *messages,
                         size_t n, struct mg_error *err) {
    size_t most = mg_prompt_max_content(m), left = most;
    for (size_t i = 0; i < n; left -= messages[i++].len)
        if (messages[i].len > left)
            return mg_fail(err, MG_EINPUT,
                           "messages: found more than %zu bytes of content", most);
    return 0;
}

int mg_prompt_begin(struct mg_prompt *p, const struct mg_message *messages, size_t n,
                    struct mg_error *err) {
    if (check_chat(p->model, n, err) || check_content(p->model, messages, n, err))
        return -1;
    p->messages = messages;
    p->n_messages = n;
    p->at = 0;
    p->total = 0;
    p->next = p->n_tokens = 0;
    begin_message(p);
    return 0;
}

int mg_prompt_advance(struct mg_prompt *p, size_t budget, struct mg_error *err) {
    if (p->n_tokens > 0) return 0; /* it is whole */
    for (size_t used = 0; used < budget && p->at < p->n_messages;) {
        used += encode_some(p, budget - used);
        if (p->encoding.done && end_message(p, err)) return -1;
    }
    if (p->at < p->n_messages) return 1;
    put_id(p, p->model->tokenizer->assistant);
    if (is_compat(p->model))
        cut_compat(p);
    else
        cut_prompt(p);
    return 0;
}

const int32_t *mg_prompt_tokens(const struct mg_prompt *p, int *n, uint64_t *dropped) {
    *n = p->n_tokens;
    *dropped = p->dropped;
    return p->tokens;
}

int mg_chat_prompt(const struct mg_model *m, const struct mg_message *messages, size_t n,
                   int32_t *tokens, uint64_t *dropped, struct mg_error *err) {
    struct mg_prompt *p = mg_prompt_new(m, err);
    int n_tokens = -1;
    if (p && !mg_prompt_begin(p, messages, n, err) &&
        !mg_prompt_advance(p, SIZE_MAX, err)) {
        const int32_t *found = mg_prompt_tokens(p, &n_tokens, dropped);
        for (int i = 0; i < n_tokens; i++) tokens[i] = found[i];
    }
    mg_prompt_free(p);
    return n_tokens;
}
