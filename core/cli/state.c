/* SPDX-License-Identifier: Apache-2.0
 * state.c - a run to a checkpoint directory and back (run.h): meta.json and train_state.json, the
 * weights and Adam's moments. Floats go through files as bits, doubles as 17 digits, so a
 * resumed run continues with the very same numbers. */
#include "run.h"

#include "../file.h"
#include "../json.h"
#include "../meta.h"
#include "cli.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- saving ----------------------------------------------------------------------------- */

/* One code point as a JSON string. */
static json_t *make_char(uint32_t c) {
    char s[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) s[i] = (char)(0x80 | (c & 0x3F));
    s[0] = (char)(n == 1 ? c : (0xF00u >> n & 0xFF) | c);
    return json_stringn(s, n);
}

static json_t *make_meta(const struct run *r) {
    const struct net_shape *s = &r->trainer->shape;
    json_t *chars = json_array();
    for (int i = 0; i < r->corpus.n_chars; i++)
        if (json_array_append_new(chars, make_char(r->corpus.chars[i])) != 0) {
            json_decref(chars);
            return NULL;
        }
    json_t *meta = json_pack("{s:i,s:i,s:i,s:i,s:i,s:o}", "vocab_size", s->vocab_size, "n_embd",
                             s->n_embd, "n_head", s->n_head, "n_layer", s->n_layer,
                             "block_size", s->block_size, "chars", chars);
    if (meta && r->opt.chat)
        json_object_set_new(meta, "special_tokens",
                            json_pack("[s,s,s]", "user", "assistant", "end_turn"));
    return meta;
}

static json_t *make_state(const struct run *r) {
    const struct run_options *o = &r->opt;
    char digest[17];
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)r->corpus.digest);
    return json_pack(
        "{s:I,s:I,s:f,s:I,s:I,s:I,s:f,s:b,s:b,s:s,s:f,s:I}", "step", (json_int_t)r->step,
        "steps", (json_int_t)o->steps, "lr", o->lr, "warmup_steps", (json_int_t)o->warmup_steps,
        "batch_size", (json_int_t)o->batch_size, "seed", (json_int_t)o->seed, "eval", o->eval,
        "chat", o->chat, "skip_long", o->skip_long, "corpus_digest", digest, "loss_sum",
        r->report.sum, "loss_count", (json_int_t)r->report.count);
}

int run_save(const struct run *r, const char *dir) {
    struct save *s = save_begin(dir);
    if (!s) return CLI_IO;
    const struct net_shape *shape = &r->trainer->shape;
    int rc = save_json(s, "meta.json", make_meta(r));
    if (!rc) rc = save_json(s, "train_state.json", make_state(r));
    if (!rc) rc = save_tensors(s, "weights.safetensors", shape, r->trainer->params, MG_F32);
    if (!rc) rc = save_tensors(s, "optimizer_m.safetensors", shape, r->trainer->m, MG_F32);
    if (!rc) rc = save_tensors(s, "optimizer_v.safetensors", shape, r->trainer->v, MG_F32);
    if (!rc) rc = report_save(&r->report, s);
    if (!rc) return save_commit(s);
    save_abort(s);
    return rc;
}
