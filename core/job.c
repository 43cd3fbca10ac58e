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
    job->spelled = m->options.compat_06;
}

/* The reference feeds one position more; 0.5.0 suppresses nothing. */
static int check_chat(const struct mg_model *m, const struct mg_job *job,
                      struct mg_error *err) {
    const struct mg_model_info *info = &m->info;
    int compat_05 = m->options.compat_05, compat = compat_05 || m->options.compat_06;
    if (!info->has_chat)
        return mg_fail(err, MG_EINPUT, "model was not trained with chat tokens");
    if (!compat_05 && info->vocab_size <= 4)
        return mg_fail(err, MG_EINPUT, "the model has no tokens to answer with");
    int longest = compat ? info->block_size : info->block_size - 1;
    if (job->n_prompt < 1 || job->n_prompt > longest)
        return mg_fail(err, MG_EINPUT, "a prompt of %d tokens: 1 to %d are possible",
                       job->n_prompt, longest);
    return 0;
}

/* How long a reply may be. The reference 0.6: a quarter of the context unless the request
 * says, or what is left where that is less (but 64); more than there is room for is no
 * error. */
static uint64_t reply_tokens(const struct mg_model *m, const struct mg_job *job) {
    uint64_t block = (uint64_t)m->info.block_size, room = block - (uint64_t)job->n_prompt;
    if (m->options.compat_06) {
        uint64_t left = room > 64 ? room : 64;
        if (job->max_tokens > 0) return job->max_tokens;
        return left < block / 4 ? left : block / 4;
    }
    return job->max_tokens == 0 || job->max_tokens > room ? room : job->max_tokens;
}

int mg_job_chat(const struct mg_model *m, struct mg_job *job, struct mg_error *err) {
    const struct mg_tokenizer *t = m->tokenizer;
    if (check_chat(m, job, err)) return -1;
    job->end = t->end_turn;
    job->n_suppress = 0;
    job->suppress_first = -1;
    if (m->options.compat_05) return 0;
    job->max_tokens = reply_tokens(m, job);
    job->strip = m->options.compat_06;
    job->suppress[0] = t->bos;
    job->suppress[1] = t->user;
    job->suppress[2] = t->assistant;
    job->n_suppress = 3;
    job->suppress_first = t->end_turn;
    return 0;
}
