/* SPDX-License-Identifier: Apache-2.0
 * train.c - `microgpt train`: options, the loop, and what happens on Ctrl-C. */
#include "cli.h"
#include "../train/pool.h"
#include "../train/run.h"
#include "../train/state.h"

#include <limits.h>
#include <signal.h>
#include <string.h>

struct command_line {
    const char *input, *output, *resume, *tokenizer;
    int overwrite;
    int64_t checkpoint_every;
    struct run_options run;
};

static volatile sig_atomic_t interrupted;

/* The first signal asks for a stop after the step, the next one ends the program. */
static void on_signal(int sig) {
    interrupted = sig;
}

static void catch_signals(void) {
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGXFSZ, &ignore,
              NULL); /* a file that may not grow is an error, not a death */
    sigaction(SIGPIPE, &ignore, NULL);
}

static int stop(const struct run *r, const struct command_line *c) {
    int rc = state_save(r, c->output);
    if (rc) return rc;
    say_note(
        "stopped at step %lld of %lld; go on with: microgpt train --resume %s --input %s",
        (long long)r->step, (long long)r->opt.steps, c->output, c->input);
    return 128 + interrupted;
}

static int finish(const struct run *r, const struct command_line *c) {
    int rc = state_save(r, c->output);
    if (rc) return rc;
    say_note("saved %s", c->output);
    return 0;
}

static int train(struct run *r, const struct command_line *c) {
    while (r->step < r->opt.steps && !interrupted) {
        int rc = run_step(r);
        if (rc) return rc;
        int due = c->checkpoint_every && r->step % c->checkpoint_every == 0;
        if (due && r->step < r->opt.steps && state_save(r, c->output) != 0)
            say_note("step %lld is not saved; training goes on", (long long)r->step);
    }
    report_end(&r->report);
    return r->step < r->opt.steps ? stop(r, c) : finish(r, c);
}

static const char *const tokenizers[] = {"auto", "char", "bpe"};

/* --tokenizer and --vocab-size, which only BPE has. */
static int choose_tokenizer(struct command_line *c, const struct cli_option *table) {
    int sized = cli_given(table, "vocab-size"), i = 0;
    while (i < 3 && strcmp(tokenizers[i], c->tokenizer) != 0) i++;
    if (i == 3)
        return say_error(EX_USAGE, "train: --tokenizer: '%s' is none of auto, char, bpe",
                         c->tokenizer);
    if (i == CORPUS_CHAR && sized)
        return say_error(EX_USAGE, "train: --vocab-size is for --tokenizer bpe");
    c->run.tokenizer = i == CORPUS_AUTO && sized ? CORPUS_BPE : (enum corpus_tokenizer)i;
    return 0;
}

/* Options that the saved run fixes: given again they must be the same. */
static int check_fixed(const struct cli_option *table, const struct run_options *given,
                       const struct run_options *saved) {
    const struct {
        const char *name;
        int64_t given, saved;
    } fixed[] = {
        {"n-embd", given->n_embd, saved->n_embd},
        {"n-head", given->n_head, saved->n_head},
        {"n-layer", given->n_layer, saved->n_layer},
        {"block-size", given->block_size, saved->block_size},
        {"batch-size", given->batch_size, saved->batch_size},
        {"seed", (int64_t)given->seed, (int64_t)saved->seed},
        {"chat", given->chat, saved->chat},
        {"skip-long", given->skip_long, saved->skip_long},
        {"vocab-size", given->vocab_size, saved->vocab_size},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (cli_given(table, fixed[i].name) && fixed[i].given != fixed[i].saved)
            return say_error(EX_USAGE, "train: --%s %lld, but the run to resume has %lld",
                             fixed[i].name, (long long)fixed[i].given,
                             (long long)fixed[i].saved);
    if (cli_given(table, "tokenizer") && given->tokenizer != saved->tokenizer)
        return say_error(EX_USAGE, "train: --tokenizer %s, but the run to resume has %s",
                         tokenizers[given->tokenizer], tokenizers[saved->tokenizer]);
    if (cli_given(table, "eval") && given->eval != saved->eval)
        return say_error(EX_USAGE, "train: --eval %g, but the run to resume has %g",
                         given->eval, saved->eval);
    return 0;
}

/* Take the options of the run to resume, but for those that may change. */
static int adopt(struct command_line *c, const struct cli_option *table) {
    struct run_options given = c->run, saved = c->run;
    int rc = state_options(c->resume, &saved);
    if (!rc) rc = check_fixed(table, &given, &saved);
    if (rc) return rc;
    c->run = saved;
    if (cli_given(table, "steps")) c->run.steps = given.steps;
    if (cli_given(table, "lr")) c->run.lr = given.lr;
    if (cli_given(table, "warmup-steps")) c->run.warmup_steps = given.warmup_steps;
    if (!c->output) c->output = c->resume;
    return 0;
}

static int check(const struct command_line *c) {
    const struct run_options *o = &c->run;
    if (!c->input) return say_error(EX_USAGE, "train: --input FILE is missing");
    if (!c->output) return say_error(EX_USAGE, "train: --output DIR is missing");
    if (o->n_embd % o->n_head)
        return say_error(EX_USAGE,
                         "train: --n-embd %lld is not a multiple of --n-head %lld",
                         (long long)o->n_embd, (long long)o->n_head);
    int again = c->resume && strcmp(c->resume, c->output) == 0;
    return save_check(c->output, c->overwrite || again);
}

int train_main(const struct cli_command *self, int argc, char **argv) {
    struct command_line c = {.tokenizer = "auto",
                             .run = {
                                 .vocab_size = 1024,
                                 .steps = 5000,
                                 .lr = 0.01,
                                 .warmup_steps = 200,
                                 .batch_size = 8,
                                 .n_embd = 64,
                                 .n_head = 4,
                                 .n_layer = 2,
                                 .block_size = 256,
                                 .seed = 42,
                                 .threads = pool_cpus(),
                             }};
    struct run_options *o = &c.run;
    struct cli_option table[] = {
        {"input", "FILE", CLI_STRING, &c.input, 0, 0, "text, a document per line", 0},
        {"output", "DIR", CLI_STRING, &c.output, 0, 0, "the checkpoint to make", 0},
        {"chat", NULL, CLI_FLAG, &o->chat, 0, 0,
         "the input is JSONL: an array of {\"role\",\"content\"} per line", 0},
        {"steps", "N", CLI_INT, &o->steps, 1, 1e9, "optimiser steps", 0},
        {"lr", "X", CLI_REAL, &o->lr, 1e-9, 10, "highest learning rate", 0},
        {"warmup-steps", "N", CLI_INT, &o->warmup_steps, 0, 1e9, "steps up to it", 0},
        {"batch-size", "N", CLI_INT, &o->batch_size, 1, RUN_MAX_BATCH,
         "documents per step", 0},
        {"n-embd", "N", CLI_INT, &o->n_embd, 1, 1 << 14, "width", 0},
        {"n-head", "N", CLI_INT, &o->n_head, 1, 1 << 14, "attention heads", 0},
        {"n-layer", "N", CLI_INT, &o->n_layer, 1, 1 << 10, "layers", 0},
        {"block-size", "N", CLI_INT, &o->block_size, 1, 1 << 16, "context in tokens", 0},
        {"tokenizer", "KIND", CLI_STRING, &c.tokenizer, 0, 0,
         "char, bpe, or auto: bpe for an input of 1 MiB or more", 0},
        {"vocab-size", "N", CLI_INT, &o->vocab_size, 2, 1 << 19, "tokens of bpe", 0},
        {"seed", "N", CLI_SEED, &o->seed, 0, 0, "of weights and order", 0},
        {"eval", "FRACTION", CLI_REAL, &o->eval, 0, 0.9, "documents to hold out", 0},
        {"skip-long", NULL, CLI_FLAG, &o->skip_long, 0, 0,
         "drop documents longer than the context instead of cutting them", 0},
        {"checkpoint-every", "N", CLI_INT, &c.checkpoint_every, 0, 1e9,
         "save every N steps", 0},
        {"resume", "DIR", CLI_STRING, &c.resume, 0, 0,
         "go on with a run that was stopped; its options hold, --output is DIR", 0},
        {"overwrite", NULL, CLI_FLAG, &c.overwrite, 0, 0,
         "replace a checkpoint that is in the output directory", 0},
        {"threads", "N", CLI_INT, &o->threads, 1, 1024, "does not change the result", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, NULL);
    if (rc >= 0) return rc;
    rc = choose_tokenizer(&c, table);
    if (!rc && c.resume) rc = adopt(&c, table);
    if (!rc) rc = check(&c);
    if (rc) return rc;
    catch_signals();
    struct run r;
    rc = c.resume ? state_resume(&r, o, c.input, c.resume) : run_start(&r, o, c.input);
    if (!rc) rc = train(&r, &c);
    run_close(&r);
    return rc;
}
