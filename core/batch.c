/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.c - the lanes: admit, step, release. A lane is one sequence with its sampler, its
 * text and its place in the KV cache; a step feeds every running lane its next tokens in
 * one forward pass and draws where a prompt has ended. All memory is one block, laid out
 * in mg_batch_new, beside that of the forward pass. Knows nothing of requests: who waits
 * for a lane, and for how long, is the caller's business. */
#include <stdlib.h>

#include "error.h"
#include "forward.h"
#include "ops.h"
#include "sampler.h"
#include "text.h"

enum { ALIGN = 64 };

struct lane {
    struct mg_output out;
    struct mg_text text;
    struct mg_sampler sampler;
    int32_t *tokens; /* [block_size + 1] the prompt, then what was sampled */
    int n_tokens;    /* known so far */
    int pos;         /* ... of which so many were fed */
    int limit;       /* most tokens to sample, >= 1 */
    int32_t end;     /* the token that ends the text */
    int suppress[MG_MAX_SUPPRESS + 1]; /* [n_suppress], for the first token [n_first] */
    int n_suppress, n_first;
    int spelled; /* as the job's */
    int used, held;
    char *buf; /* [text_cap] */
};

struct mg_batch {
    const struct mg_model *model;
    struct mg_forward *forward;
    struct mg_batch_options options;
    size_t text_cap; /* bytes of text per lane */
    int n_free, n_running;
    struct lane *lane;     /* [lanes] */
    int *free;             /* [lanes] a stack */
    int *running;          /* [lanes] in the order of their admission */
    struct mg_span *spans; /* [lanes] */
    double *scratch;       /* [vocab_size up to a multiple of 16] */
};

/* ---- memory ------------------------------------------------------------------------ */

/* Offsets of the parts of the one block; overflow ends in size = SIZE_MAX. */
struct layout {
    size_t lane, free, running, spans, scratch, tokens, text;
    size_t tokens_each, text_each; /* elements per lane */
    size_t size;
};

static size_t add_part(size_t *size, size_t n, size_t each) {
    size_t offset = *size, bytes;
    if (__builtin_mul_overflow(n, each, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)(ALIGN - 1), &bytes) ||
        __builtin_add_overflow(offset, bytes / ALIGN * ALIGN, size))
        *size = SIZE_MAX;
    return offset;
}

static struct layout plan_layout(const struct mg_model *m, int n_lanes) {
    size_t lanes = (size_t)n_lanes, block = (size_t)m->info.block_size;
    struct layout p = {.tokens_each = block + 1};
    p.text_each = m->info.max_sample_bytes;
    add_part(&p.size, 1, sizeof(struct mg_batch));
    p.lane = add_part(&p.size, lanes, sizeof(struct lane));
    p.free = add_part(&p.size, lanes, sizeof(int));
    p.running = add_part(&p.size, lanes, sizeof(int));
    p.spans = add_part(&p.size, lanes, sizeof(struct mg_span));
    p.scratch =
        add_part(&p.size, ((size_t)m->info.vocab_size + 15) / 16 * 16, sizeof(double));
    p.tokens = add_part(&p.size, lanes, p.tokens_each * sizeof(int32_t));
    p.text = add_part(&p.size, lanes, p.text_each);
    return p;
}

/* A step feeds at most one token to each lane in decode, and to those in prefill chunk
 * tokens or one each. */
static int max_rows(const struct mg_batch_options *o) {
    return o->lanes > INT32_MAX - o->chunk ? INT32_MAX : o->lanes + o->chunk;
}

size_t mg_batch_bytes(const struct mg_model *m, const struct mg_batch_options *o) {
    size_t own = plan_layout(m, o->lanes).size;
    size_t forward = mg_forward_bytes(m, o->lanes, max_rows(o), o->kv);
    return own > SIZE_MAX - forward ? SIZE_MAX : own + forward;
}

size_t mg_lane_bytes(const struct mg_model *m, enum mg_kv kv) {
    struct mg_kv_shape shape = {m->info.n_head, m->head_dim, m->info.block_size, kv};
    return (size_t)m->info.n_layer * mg_kv_bytes(&shape);
}

/* Point the parts of b into its block. Writes what is small and leaves the rest
 * untouched. */
static void lay_out(struct mg_batch *b, const struct layout *p) {
    char *base = (char *)b;
    b->lane = (struct lane *)(void *)(base + p->lane);
    b->free = (int *)(void *)(base + p->free);
    b->running = (int *)(void *)(base + p->running);
    b->spans = (struct mg_span *)(void *)(base + p->spans);
    b->scratch = (double *)(void *)(base + p->scratch);
    b->text_cap = p->text_each;
    int32_t *tokens = (int32_t *)(void *)(base + p->tokens);
    for (int i = 0; i < b->options.lanes; i++) {
        b->lane[i] = (struct lane){
            .tokens = tokens + (size_t)i * p->tokens_each,
            .buf = base + p->text + (size_t)i * p->text_each,
        };
        b->lane[i].out.text = b->lane[i].buf;
        b->free[i] = b->options.lanes - 1 - i; /* lane 0 is given first */
    }
    b->n_free = b->options.lanes;
}

struct mg_batch *mg_batch_new(const struct mg_model *m, const struct mg_batch_options *o,
                              struct mg_error *err) {
    if (o->lanes < 1 || o->chunk < 1 || max_rows(o) == INT32_MAX) {
        mg_fail(err, MG_EINPUT,
                "a batch of %d lanes with chunks of %d tokens is not possible", o->lanes,
                o->chunk);
        return NULL;
    }
    struct layout p = plan_layout(m, o->lanes);
    struct mg_batch *b = p.size > PTRDIFF_MAX ? NULL : aligned_alloc(ALIGN, p.size);
    if (!b) {
        mg_fail(err, MG_ENOMEM, "out of memory: %d lanes need %zu bytes", o->lanes,
                mg_batch_bytes(m, o));
        return NULL;
    }
    *b = (struct mg_batch){.model = m, .options = *o};
    lay_out(b, &p);
    b->forward = mg_forward_new(m, o->lanes, max_rows(o), o->kv, err);
    if (!b->forward) {
        free(b);
        return NULL;
    }
    return b;
}

void mg_batch_free(struct mg_batch *b) {
    if (!b) return;
    mg_forward_free(b->forward);
    free(b);
}

/* ---- admit and release ------------------------------------------------------------- */

static int check_ids(const struct mg_batch *b, const char *what, const int32_t *ids,
                     int n, struct mg_error *err) {
    int vocab = b->model->info.vocab_size;
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return mg_fail(err, MG_EINPUT, "%s token %d is %d: 0 to %d are possible",
                           what, i, (int)ids[i], vocab - 1);
    return 0;
}

static int check_job(const struct mg_batch *b, const struct mg_job *job,
                     struct mg_error *err) {
    const struct mg_model_info *info = &b->model->info;
    double t = job->sampling.temperature;
    if (!(t >= 0) || t > __DBL_MAX__)
        return mg_fail(err, MG_EINPUT, "temperature must be a finite number >= 0");
    if (job->n_prompt < 1 || job->n_prompt > info->block_size)
        return mg_fail(err, MG_EINPUT, "a prompt of %d tokens: 1 to %d are possible",
                       job->n_prompt, info->block_size);
    if (job->n_suppress < 0 || job->n_suppress > MG_MAX_SUPPRESS ||
        job->n_suppress + (job->suppress_first >= 0) >= info->vocab_size)
        return mg_fail(err, MG_EINPUT, "%d suppressed tokens of %d", job->n_suppress,
                       info->vocab_size);
    int n_first = job->suppress_first >= 0;
    return check_ids(b, "prompt", job->prompt, job->n_prompt, err) ||
                   check_ids(b, "suppressed", job->suppress, job->n_suppress, err) ||
                   check_ids(b, "suppressed", &job->suppress_first, n_first, err)
               ? -1
               : 0;
}

static void copy_suppressed(struct lane *l, const struct mg_job *job) {
    for (int i = 0; i < job->n_suppress; i++) l->suppress[i] = job->suppress[i];
    l->n_suppress = l->n_first = job->n_suppress;
    if (job->suppress_first >= 0) l->suppress[l->n_first++] = job->suppress_first;
}

static void start_lane(const struct mg_batch *b, struct lane *l,
                       const struct mg_job *job) {
    const struct mg_model *m = b->model;
    int compat_05 = m->options.compat_05, compat = compat_05 || m->options.compat_06;
    int room = m->info.block_size - job->n_prompt + 1;
    for (int i = 0; i < job->n_prompt; i++) l->tokens[i] = job->prompt[i];
    l->n_tokens = job->n_prompt;
    l->end = job->end;
    copy_suppressed(l, job);
    l->limit = job->max_tokens > 0 && job->max_tokens < (uint64_t)room
                   ? (int)job->max_tokens
                   : room;
    l->pos = 0;
    l->out = (struct mg_output){.text = l->buf, .n_prompt = l->n_tokens};
    mg_text_init(&l->text, l->buf, b->text_cap, !compat_05);
    l->text.strip = job->strip;
    l->spelled = job->spelled;
    mg_sampler_init(&l->sampler, job->seed, job->sampling.temperature, compat);
}

int mg_batch_admit(struct mg_batch *b, const struct mg_job *job, struct mg_error *err) {
    if (check_job(b, job, err) < 0) return -1;
    if (b->n_free == 0)
        return mg_fail(err, MG_EINPUT, "all %d lanes are taken", b->options.lanes);
    int lane = b->free[--b->n_free];
    struct lane *l = &b->lane[lane];
    start_lane(b, l, job);
    l->used = 1;
    l->held = 0;
    b->running[b->n_running++] = lane;
    return lane;
}

static struct lane *find_lane(const struct mg_batch *b, int lane) {
    return lane >= 0 && lane < b->options.lanes && b->lane[lane].used ? &b->lane[lane]
                                                                      : NULL;
}

void mg_batch_release(struct mg_batch *b, int lane) {
    struct lane *l = find_lane(b, lane);
    if (!l) return;
    if (l->out.finish == MG_RUNNING) {
        int i = 0, n = 0;
        for (; i < b->n_running; i++)
            if (b->running[i] != lane) b->running[n++] = b->running[i];
        b->n_running = n;
    }
    l->used = 0;
    b->free[b->n_free++] = lane;
}

void mg_batch_hold(struct mg_batch *b, int lane, int hold) {
    struct lane *l = find_lane(b, lane);
    if (l) l->held = hold;
}

const struct mg_output *mg_batch_output(const struct mg_batch *b, int lane) {
    struct lane *l = find_lane(b, lane);
    return l ? &l->out : NULL;
}

/* ---- step -------------------------------------------------------------------------- */

/* Prompt tokens that a lane could take at once; a lane with one token to feed is in
 * decode. */
static int prefill_need(const struct lane *l) {
    int n = l->n_tokens - l->pos;
    return n > 1 && !l->held ? n : 0;
}

/* Divide chunk among the lanes in prefill: evenly, at least 1 each, so that a long prompt
 * cannot keep a short one waiting; what is left over goes to the oldest. Sets their
 * spans' n. */
static void share_chunk(struct mg_batch *b, int n_spans, int n_prefill) {
    int share = b->options.chunk / n_prefill;
    int left = b->options.chunk;
    share = share > 0 ? share : 1;
    for (int i = 0; i < n_spans; i++) {
        int need = prefill_need(&b->lane[b->spans[i].lane]);
        if (need > 0) {
            b->spans[i].n = need < share ? need : share;
            left -= b->spans[i].n;
        }
    }
    for (int i = 0; i < n_spans && left > 0; i++) {
        int need = prefill_need(&b->lane[b->spans[i].lane]);
        int more = need - b->spans[i].n;
        if (need > 0 && more > 0) {
            more = more < left ? more : left;
            b->spans[i].n += more;
            left -= more;
        }
    }
}

/* One span for every running lane that is not held, oldest first. */
static int gather_spans(struct mg_batch *b) {
    int n = 0, n_prefill = 0;
    for (int i = 0; i < b->n_running; i++) {
        const struct lane *l = &b->lane[b->running[i]];
        if (l->held) continue;
        n_prefill += prefill_need(l) > 0;
        b->spans[n++] = (struct mg_span){
            .lane = b->running[i],
            .pos = l->pos,
            .n = 1,
            .tokens = l->tokens + l->pos,
        };
    }
    if (n_prefill > 0) share_chunk(b, n, n_prefill);
    for (int i = 0; i < n; i++)
        b->spans[i].want_logits =
            b->spans[i].pos + b->spans[i].n == b->lane[b->spans[i].lane].n_tokens;
    return n;
}

/* Add a drawn token to the lane; returns whether and why it ends. */
static enum mg_finish append_token(const struct mg_batch *b, struct lane *l, int token) {
    if (token < 0) return MG_FAULT;
    if (token == l->end) return MG_STOP;
    const struct mg_tokenizer *t = b->model->tokenizer;
    size_t len;
    const char *bytes = l->spelled ? mg_tokenizer_spelling(t, token, &len)
                                   : mg_tokenizer_text(t, token, &len);
    mg_text_append(&l->text, bytes, len);
    if (l->spelled) mg_text_break(&l->text);
    l->tokens[l->n_tokens++] = token;
    l->out.n_generated++;
    return l->out.n_generated == l->limit ? MG_LENGTH : MG_RUNNING;
}

/* Draw the lane's next token. Returns 1 when it goes on. */
static int draw_token(struct mg_batch *b, struct lane *l, const float *logits) {
    const struct mg_model *m = b->model;
    int n_suppress = l->out.n_generated == 0 ? l->n_first : l->n_suppress;
    int token = mg_sampler_draw(&l->sampler, m->ops, logits, m->info.vocab_size,
                                l->suppress, n_suppress, b->scratch);
    l->out.finish = append_token(b, l, token);
    if (l->out.finish == MG_STOP || l->out.finish == MG_LENGTH) mg_text_finish(&l->text);
    l->out.len = l->text.visible;
    return l->out.finish == MG_RUNNING;
}

int mg_batch_step(struct mg_batch *b) {
    int n = gather_spans(b), ended = 0;
    if (n == 0) return 0;
    const float *logits = mg_forward_run(b->forward, b->spans, n);
    for (int i = 0; i < n; i++) {
        struct lane *l = &b->lane[b->spans[i].lane];
        l->pos += b->spans[i].n;
        if (l->out.n_prefilled < l->out.n_prompt) l->out.n_prefilled = l->pos;
        if (!b->spans[i].want_logits) continue;
        ended += !draw_token(b, l, logits);
        logits += mg_forward_ld(b->forward);
    }
    if (ended > 0) {
        int kept = 0;
        for (int i = 0; i < b->n_running; i++)
            if (b->lane[b->running[i]].out.finish == MG_RUNNING)
                b->running[kept++] = b->running[i];
        b->n_running = kept;
    }
    return n;
}
