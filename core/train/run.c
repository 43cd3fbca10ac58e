/* SPDX-License-Identifier: Apache-2.0
 * run.c - see run.h. What a step does is a function of options, corpus and step number
 * alone (the order of an epoch comes from the seed), so the state to save is weights,
 * moments, the step, and the losses since the last row of the report. */
#include "run.h"

#include "adam.h"
#include "say.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_WEIGHTS, STREAM_HELD_OUT, STREAM_EPOCH };

static int out_of_memory(void) {
    return say_error(EX_OSERR,
                     "out of memory: a smaller --batch-size or model needs less");
}

/* ---- documents ------------------------------------------------------------------- */

/* Bytes of text in one token, special ones included, of the whole corpus. */
static double bytes_per_token(const struct corpus *c) {
    double bytes = 0;
    for (size_t i = 0; i < c->n_tokens; i++)
        bytes += (double)corpus_token_bytes(c, c->tokens[i]);
    return c->n_tokens ? bytes / (double)c->n_tokens : 0;
}

/* Which tokenizer it is, and why. */
static void say_tokenizer(const struct run *r) {
    const struct corpus *c = &r->corpus;
    const char *why = r->resumed                        ? "as the run to resume"
                      : r->opt.tokenizer != CORPUS_AUTO ? "as was asked for"
                      : c->tokenizer ? "since the corpus has 1 MiB or more"
                                     : "since the corpus is smaller than 1 MiB";
    if (!c->tokenizer)
        say_note("  tokenizer: char, %d characters, %s", c->n_chars, why);
    else
        say_note("  tokenizer: bpe, %d tokens, %.2f bytes each in this corpus, %s",
                 c->vocab_size, bytes_per_token(c), why);
    if (c->tokenizer && !r->resumed && c->vocab_size < r->opt.vocab_size)
        say_note("  %lld tokens were wanted: the corpus has no more pairs to merge",
                 (long long)r->opt.vocab_size);
}

static int say_corpus(const struct run *r, const char *input) {
    const struct corpus *c = &r->corpus;
    say_note("%s: %lld lines, %d documents (%d held out), %zu tokens", input,
             (long long)c->n_lines, (int)c->n_docs, (int)r->n_eval, c->n_tokens);
    say_tokenizer(r);
    if (c->n_blank) say_note("  %lld blank lines skipped", (long long)c->n_blank);
    if (c->n_no_reply)
        say_note("  %lld conversations without an assistant turn skipped",
                 (long long)c->n_no_reply);
    if (c->n_trimmed)
        say_note("  %lld conversations trimmed to end with an assistant turn",
                 (long long)c->n_trimmed);
    if (c->n_cut)
        say_note("  %lld documents cut to %lld tokens (--skip-long drops them)",
                 (long long)c->n_cut, (long long)r->opt.block_size);
    if (c->n_long)
        say_note("  %lld documents dropped, longer than %lld tokens",
                 (long long)c->n_long, (long long)r->opt.block_size);
    return 0;
}

/* Hold documents out, chosen by the seed: they stay the last ones of order. */
static int split_documents(struct run *r, const char *input) {
    int32_t n = r->corpus.n_docs;
    r->n_eval = (int32_t)((double)n * r->opt.eval + 0.5);
    if (r->n_eval == 0 && r->opt.eval > 0) r->n_eval = 1;
    r->n_train = n - r->n_eval;
    if (r->n_train < 1)
        return say_error(EX_DATAERR,
                         "%s: %d documents are too few to hold out %g of them", input,
                         (int)n, r->opt.eval);
    r->order = calloc((size_t)n, sizeof *r->order);
    r->held_out = calloc((size_t)r->n_eval + 1, sizeof *r->held_out);
    r->batch = calloc((size_t)r->opt.batch_size, sizeof *r->batch);
    if (!r->order || !r->held_out || !r->batch) return out_of_memory();
    for (int32_t i = 0; i < n; i++) r->order[i] = i;
    struct rng rng = rng_begin(r->opt.seed, STREAM_HELD_OUT);
    if (r->n_eval) rng_shuffle(&rng, r->order, n);
    for (int32_t i = 0; i < r->n_eval; i++)
        r->held_out[i] = r->corpus.docs[r->order[r->n_train + i]];
    return say_corpus(r, input);
}

static int compare_ids(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The i-th document of the run: epoch after epoch, each in an order of its own. */
static struct net_doc find_document(struct run *r, int64_t i) {
    int64_t epoch = i / r->n_train;
    if (epoch != r->epoch) {
        qsort(r->order, (size_t)r->n_train, sizeof *r->order, compare_ids);
        struct rng rng = rng_begin(r->opt.seed, (uint64_t)(STREAM_EPOCH + epoch));
        rng_shuffle(&rng, r->order, r->n_train);
        r->epoch = epoch;
    }
    return r->corpus.docs[r->order[i % r->n_train]];
}

/* ---- start ----------------------------------------------------------------------- */

static int open_corpus(struct run *r, const char *input,
                       const struct corpus_vocab *vocab) {
    struct corpus_options o = {
        .path = input,
        .chat = r->opt.chat,
        .skip_long = r->opt.skip_long,
        .block_size = (int)r->opt.block_size,
        .tokenizer = r->opt.tokenizer,
        .vocab_size = (int)r->opt.vocab_size,
        .vocab = vocab,
    };
    int rc = corpus_read(&r->corpus, &o);
    return rc ? rc : split_documents(r, input);
}

static int open_trainer(struct run *r) {
    struct net_shape shape = {
        .vocab_size = r->corpus.vocab_size,
        .n_embd = (int)r->opt.n_embd,
        .n_head = (int)r->opt.n_head,
        .n_layer = (int)r->opt.n_layer,
        .block_size = (int)r->opt.block_size,
    };
    r->trainer = trainer_new(&shape, (int)r->opt.threads);
    return r->trainer ? 0 : out_of_memory();
}

/* Bits per byte of text for one nat per token, over the documents held out: with it
 * vocabularies compare. 0: there are none. */
static double held_out_bits(const struct run *r) {
    double tokens = 0, bytes = 0;
    for (int32_t i = 0; i < r->n_eval; i++) {
        const struct net_doc *d = &r->held_out[i];
        tokens += d->n;
        for (int k = 1; k <= d->n; k++)
            bytes += (double)corpus_token_bytes(&r->corpus, d->tokens[k]);
    }
    return bytes > 0 ? tokens / bytes / M_LN2 : 0;
}

/* Evaluations may cost a tenth of the training: a forward pass is a third of a step. */
void run_begin_report(struct run *r, int64_t step) {
    double held_out = 0, all = 0;
    for (int32_t i = 0; i < r->n_eval; i++) held_out += r->held_out[i].n;
    for (int32_t i = 0; i < r->corpus.n_docs; i++) all += r->corpus.docs[i].n;
    double per_step = all / r->corpus.n_docs * (double)r->opt.batch_size;
    report_begin(&r->report, step, r->opt.steps, (int64_t)(held_out / (0.3 * per_step)));
    r->report.bits = held_out_bits(r);
}

int run_open(struct run *r, const struct run_options *opt, const char *input,
             const struct corpus_vocab *vocab) {
    *r = (struct run){.opt = *opt, .epoch = -1, .resumed = vocab != NULL};
    int rc = open_corpus(r, input, vocab);
    return rc ? rc : open_trainer(r);
}

int run_start(struct run *r, const struct run_options *opt, const char *input) {
    int rc = run_open(r, opt, input, NULL);
    if (rc) return rc;
    struct rng rng = rng_begin(opt->seed, STREAM_WEIGHTS);
    rng_normal(&rng, 0.08f, r->trainer->n_params, r->trainer->params);
    run_begin_report(r, 0);
    return 0;
}

void run_close(struct run *r) {
    report_free(&r->report);
    trainer_free(r->trainer);
    corpus_free(&r->corpus);
    free(r->order), free(r->held_out), free(r->batch);
}

/* ---- step ------------------------------------------------------------------------ */

int run_step(struct run *r) {
    int n = (int)r->opt.batch_size, tokens = 0;
    for (int i = 0; i < n; i++) {
        r->batch[i] = find_document(r, r->step * n + i);
        tokens += r->batch[i].n;
    }
    int64_t t = r->step + 1;
    double loss, eval_loss = (double)NAN;
    double lr = adam_rate(r->opt.lr, t, r->opt.warmup_steps, r->opt.steps);
    if (trainer_step(r->trainer, r->batch, n, t, lr, &loss) != 0) return out_of_memory();
    if (!isfinite(loss))
        return say_error(EX_DATAERR,
                         "step %lld: the loss is not finite; try a smaller --lr",
                         (long long)t);
    r->step = t;
    if (r->n_eval && report_wants_eval(&r->report, t) &&
        trainer_eval(r->trainer, r->held_out, r->n_eval, &eval_loss) != 0)
        return out_of_memory();
    return report_step(&r->report, t, loss, tokens, eval_loss) ? out_of_memory() : 0;
}
