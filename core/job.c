/* SPDX-License-Identifier: Apache-2.0
 * job.c - what the two kinds of sequences that the service has look like as jobs: a text
 * that goes on, and the reply of a chat. Knows no lanes, no text of requests. */
#include "error.h"
#include "model.h"

void mg_job_text(const struct mg_model *m, struct mg_job *job) {
    const struct mg_tokenizer *t = m->tokenizer;
    if (!job->prompt) {
        job->prompt = &t->bos;
        job->n_prompt = 1;
    }
    job->end = t->bos;
    job->n_suppress = 0;
    job->suppress_first = -1;
}

/* The reference 0.5.0 suppresses nothing, and feeds one position more. */
static int check_chat(const struct mg_model *m, const struct mg_job *job,
                      struct mg_error *err) {
    const struct mg_model_info *info = &m->info;
    int compat = m->options.compat_05;
    if (!info->has_chat)
        return mg_fail(err, MG_EINPUT, "model was not trained with chat tokens");
    if (!compat && info->vocab_size <= 4)
        return mg_fail(err, MG_EINPUT, "the model has no tokens to answer with");
    int longest = compat ? info->block_size : info->block_size - 1;
    if (job->n_prompt < 1 || job->n_prompt > longest)
        return mg_fail(err, MG_EINPUT, "a prompt of %d tokens: 1 to %d are possible",
                       job->n_prompt, longest);
    return 0;
}

int mg_job_chat(const struct mg_model *m, struct mg_job *job, struct mg_error *err) {
    const struct mg_tokenizer *t = m->tokenizer;
    if (check_chat(m, job, err)) return -1;
    job->end = t->end_turn;
    job->n_suppress = 0;
    job->suppress_first = -1;
    if (m->options.compat_05) return 0;
    uint64_t room = (uint64_t)(m->info.block_size - job->n_prompt);
    if (job->max_tokens == 0 || job->max_tokens > room) job->max_tokens = room;
    job->suppress[0] = t->bos;
    job->suppress[1] = t->user;
    job->suppress[2] = t->assistant;
    job->n_suppress = 3;
    job->suppress_first = t->end_turn;
    return 0;
}
