/* SPDX-License-Identifier: Apache-2.0
 * chat.c - `microgpt chat`: a conversation in the terminal, or a line at a time from a
 * pipe. Every turn is the request that the HTTP endpoint would get, with the whole
 * history. */
#include "session.h"
#include "../train/utf8.h"

#include <editline/readline.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat {
    const struct mg_model *model;
    struct mg_batch *batch;
    struct mg_job job;           /* temperature, seed, max_tokens */
    int32_t *prompt;             /* [block_size] */
    struct mg_message *messages; /* [n], contents owned */
    size_t n, cap;
    int worst; /* exit code: the first line that could not be answered */
};

static int out_of_memory(void) {
    return say_error(EX_OSERR, "out of memory for the conversation");
}

static int add_message(struct chat *c, enum mg_role role, const char *text, size_t len) {
    if (c->n == c->cap) {
        size_t cap = c->cap * 2 + 16;
        struct mg_message *p = realloc(c->messages, cap * sizeof *p);
        if (!p) return out_of_memory();
        c->messages = p, c->cap = cap;
    }
    char *copy = malloc(len + 1);
    if (!copy) return out_of_memory();
    memcpy(copy, text, len);
    struct mg_message *m = &c->messages[c->n++];
    m->role = role, m->content = copy, m->len = len;
    return 0;
}

static void forget(struct chat *c, size_t keep) {
    while (c->n > keep) free((char *)c->messages[--c->n].content);
}

/* Compute the reply and print it as it comes. The history keeps it, unless it is blank.
 */
static int reply(struct chat *c) {
    struct mg_error err = {0};
    uint64_t dropped;
    int n = mg_chat_prompt(c->model, c->messages, c->n, c->prompt, &dropped, &err);
    if (n < 0) return say_model_error(&err);
    struct mg_job job = c->job;
    job.prompt = c->prompt, job.n_prompt = n;
    if (mg_job_chat(c->model, &job, &err)) return say_model_error(&err);
    int lane = mg_batch_admit(c->batch, &job, &err);
    if (lane < 0) return say_model_error(&err);
    const struct mg_output *out;
    size_t shown = 0;
    do {
        mg_batch_step(c->batch);
        out = mg_batch_output(c->batch, lane);
        fwrite(out->text + shown, 1, out->len - shown, stdout);
        shown = out->len;
        fflush(stdout);
    } while (out->finish == MG_RUNNING);
    putchar('\n');
    int rc = out->finish == MG_FAULT
                 ? say_error(EX_DATAERR, "the model computed a logit that is not finite")
                 : 0;
    if (!rc && mg_text_is_blank(out->text, out->len))
        forget(c, c->n - 1);
    else if (!rc)
        rc = add_message(c, MG_ASSISTANT, out->text, out->len);
    mg_batch_release(c->batch, lane);
    return rc;
}

/* One line of the user. Returns 0 to go on, 1 after /quit, else an exit code that ends
 * it. */
static int take_line(struct chat *c, const char *line, size_t len) {
    if (len == 5 && memcmp(line, "/quit", 5) == 0) return 1;
    if (len == 6 && memcmp(line, "/clear", 6) == 0) {
        forget(c, 0);
        return 0;
    }
    int rc = 0;
    size_t before = c->n;
    if (!utf8_valid(line, len))
        rc = say_error(EX_DATAERR, "this line is not UTF-8");
    else if (mg_text_is_blank(line, len))
        return 0;
    else if (add_message(c, MG_USER, line, len) != 0)
        return EX_OSERR;
    if (!rc) rc = reply(c);
    if (!rc) return cli_finish();
    forget(c, before);
    if (!c->worst) c->worst = rc;
    return 0;
}

static int talk_by_pipe(struct chat *c) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int rc = 0;
    while (!rc && (len = getline(&line, &cap, stdin)) >= 0) {
        size_t n = (size_t)len;
        if (n && line[n - 1] == '\n') n--;
        if (n && line[n - 1] == '\r') n--;
        rc = take_line(c, line, n);
    }
    free(line);
    return rc;
}

static int talk_in_terminal(struct chat *c) {
    int rc = 0;
    char *line;
    say_note("/clear forgets the conversation, /quit leaves");
    using_history();
    while (!rc && (line = readline("> "))) {
        if (*line) add_history(line);
        rc = take_line(c, line, strlen(line));
        free(line);
    }
    return rc;
}

static int chat(struct chat *c) {
    const struct mg_model_info *m = mg_model_info(c->model);
    if (!m->has_chat)
        return say_error(EX_DATAERR, "model was not trained with chat tokens");
    c->prompt = calloc((size_t)m->block_size, sizeof *c->prompt);
    c->batch = session_batch(c->model, 1);
    int rc = c->batch ? 0 : EX_OSERR;
    if (!c->prompt) rc = out_of_memory();
    if (!rc) rc = isatty(0) && isatty(1) ? talk_in_terminal(c) : talk_by_pipe(c);
    forget(c, 0);
    free(c->messages);
    free(c->prompt);
    mg_batch_free(c->batch);
    return rc > 1 ? rc : c->worst;
}

int chat_main(const struct cli_command *self, int argc, char **argv) {
    const char *dir = NULL, *compat = NULL;
    struct chat c = {.job = {.sampling = {.temperature = 0.5}, .seed = 42}};
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &dir, 0, 0, "the checkpoint", 0},
        {"temperature", "X", CLI_REAL, &c.job.sampling.temperature, 0, 1e308,
         "0 takes the likeliest token", 0},
        {"seed", "N", CLI_SEED, &c.job.seed, 0, 0, "of every reply", 0},
        {"max-tokens", "N", CLI_COUNT, &c.job.max_tokens, 0, 0,
         "longest reply; what fits", 0},
        {"compat", "0.5|0.6", CLI_STRING, &compat, 0, 0,
         "generate as that version of the reference did", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, &dir);
    if (rc >= 0) return rc;
    struct mg_model *model;
    struct mg_error err = {0};
    rc = session_open(dir, compat, &model, &err);
    c.model = model;
    if (!rc && !cli_given(table, "temperature"))
        c.job.sampling.temperature = mg_model_info(model)->temperature;
    if (!rc) rc = chat(&c);
    mg_model_close(model);
    return rc;
}
