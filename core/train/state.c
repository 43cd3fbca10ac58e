/* SPDX-License-Identifier: Apache-2.0
 * state.c - a run to a checkpoint directory and back (run.h): meta.json and
 * train_state.json, the weights and Adam's moments. Floats go through files as bits,
 * doubles as 17 digits, so a resumed run continues with the very same numbers. */
#include "state.h"

#include "../error.h"
#include "../file.h"
#include "../meta.h"
#include "../model.h"
#include "../ops.h"
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* ---- saving ---------------------------------------------------------------------- */

/* Read back by read_state, name for name. */
static json_t *make_state(const struct run *r) {
    const struct run_options *o = &r->opt;
    char digest[17];
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)r->corpus.digest);
    return json_pack("{s:I,s:I,s:f,s:I,s:I,s:I,s:f,s:b,s:b,s:s,s:f,s:I}", "step",
                     (json_int_t)r->step, "steps", (json_int_t)o->steps, "lr", o->lr,
                     "warmup_steps", (json_int_t)o->warmup_steps, "batch_size",
                     (json_int_t)o->batch_size, "seed", (json_int_t)o->seed, "eval",
                     o->eval, "chat", o->chat, "skip_long", o->skip_long, "corpus_digest",
                     digest, "loss_sum", r->report.sum, "loss_count",
                     (json_int_t)r->report.count);
}

int state_save(const struct run *r, const char *dir) {
    struct save *s = save_begin(dir);
    if (!s) return EX_IOERR;
    const struct net_shape *shape = &r->trainer->shape;
    const struct corpus *c = &r->corpus;
    int rc = save_meta(s, shape, c->chars, c->n_chars, r->opt.chat);
    if (!rc && c->json) rc = save_bytes(s, "tokenizer.json", c->json, c->json_len);
    if (!rc) rc = save_json(s, "train_state.json", make_state(r));
    if (!rc)
        rc = save_tensors(s, "weights.safetensors", shape, r->trainer->params, MG_F32);
    if (!rc)
        rc = save_tensors(s, "optimizer_m.safetensors", shape, r->trainer->m, MG_F32);
    if (!rc)
        rc = save_tensors(s, "optimizer_v.safetensors", shape, r->trainer->v, MG_F32);
    if (!rc) rc = report_save(&r->report, s);
    if (!rc) return save_commit(s);
    save_abort(s);
    return rc;
}

/* ---- reading --------------------------------------------------------------------- */

struct state {
    int64_t step;
    double loss_sum;
    int64_t loss_count;
    char digest[17];
};

/* train_state.json of dir as options and state. */
static int read_state(const char *dir, struct run_options *o, struct state *st) {
    struct mg_error err = {0};
    char path[PATH_MAX];
    json_error_t e;
    json_int_t seed;
    const char *digest;
    snprintf(path, sizeof path, "%s/train_state.json", dir);
    if (access(path, R_OK) != 0) {
        mg_fail(&err, MG_ENOFILE, "cannot resume from %s: %s", dir, strerror(errno));
        return say_model_error(&err);
    }
    json_t *j = json_load_file(path, 0, &e);
    if (!j) return say_error(EX_DATAERR, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    json_int_t step, steps, warmup, batch, count;
    int rc = json_unpack_ex(
        j, &e, 0, "{s:I,s:I,s:F,s:I,s:I,s:I,s:F,s:b,s:b,s:s,s:F,s:I}", "step", &step,
        "steps", &steps, "lr", &o->lr, "warmup_steps", &warmup, "batch_size", &batch,
        "seed", &seed, "eval", &o->eval, "chat", &o->chat, "skip_long", &o->skip_long,
        "corpus_digest", &digest, "loss_sum", &st->loss_sum, "loss_count", &count);
    if (rc == 0) {
        o->steps = steps, o->warmup_steps = warmup, o->batch_size = batch;
        o->seed = (uint64_t)seed, st->step = step, st->loss_count = count;
        snprintf(st->digest, sizeof st->digest, "%s", digest);
    }
    json_decref(j);
    if (rc != 0) return say_error(EX_DATAERR, "%s: %s", path, e.text);
    if (o->steps < 1 || o->batch_size < 1 || o->batch_size > RUN_MAX_BATCH ||
        st->step < 0 || o->warmup_steps < 0 || !(o->eval >= 0 && o->eval < 1) ||
        !(o->lr > 0))
        return say_error(EX_DATAERR, "%s: a value is out of range", path);
    return 0;
}

static int read_meta(const char *dir, struct mg_meta *meta) {
    struct mg_error err = {0};
    int fd = mg_dir_open(dir, &err);
    int rc = fd < 0 ? -1 : mg_meta_read(fd, dir, meta, &err);
    if (fd >= 0) close(fd);
    return rc ? say_model_error(&err) : 0;
}

int state_options(const char *dir, struct run_options *o) {
    struct state st;
    struct mg_meta meta = {0};
    int rc = read_meta(dir, &meta);
    if (!rc) {
        o->n_embd = meta.n_embd, o->n_head = meta.n_head, o->n_layer = meta.n_layer;
        o->block_size = meta.block_size;
        o->tokenizer = meta.chars ? CORPUS_CHAR : CORPUS_BPE;
        o->vocab_size = meta.vocab_size;
        rc = read_state(dir, o, &st);
    }
    mg_meta_free(&meta);
    return rc;
}

/* One file of tensors into an array of net_params floats. */
static int read_tensors(const char *dir, const char *name, const struct net_shape *s,
                        float *out) {
    struct mg_error err = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct mg_weights *w = mg_weights_open(path, &err);
    int rc = w ? 0 : -1;
    for (int i = 0; !rc && i < net_tensors(s); i++) {
        struct net_tensor t = net_tensor(s, i);
        struct mg_matrix m;
        rc = mg_weights_bind(w, t.name, t.rows, t.cols, &m, &err);
        if (!rc) rc = mg_check_finite(mg_ops_get(0), &m, path, t.name, &err);
        if (!rc && m.dtype != MG_F32)
            rc =
                mg_fail(&err, MG_EFILE,
                        "%s: %s is not F32: training needs full precision", path, t.name);
        if (!rc)
            memcpy(out + t.at, m.data, (size_t)t.rows * (size_t)t.cols * sizeof *out);
    }
    mg_weights_close(w);
    return rc ? say_model_error(&err) : 0;
}

/* Everything of dir into a run whose corpus is read. */
static int load(struct run *r, const char *dir) {
    struct run_options saved;
    struct state st;
    struct trainer *t = r->trainer;
    int rc = read_state(dir, &saved, &st);
    if (!rc) rc = read_tensors(dir, "weights.safetensors", &t->shape, t->params);
    if (!rc) rc = read_tensors(dir, "optimizer_m.safetensors", &t->shape, t->m);
    if (!rc) rc = read_tensors(dir, "optimizer_v.safetensors", &t->shape, t->v);
    if (rc) return rc;
    char digest[17];
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)r->corpus.digest);
    if (strcmp(digest, st.digest) != 0)
        say_note("warning: the corpus is not the one that %s was trained on", dir);
    r->step = st.step;
    run_begin_report(r, st.step);
    r->report.sum = st.loss_sum, r->report.count = st.loss_count;
    return report_load(&r->report, dir, st.step);
}

static int read_json(const char *dir, struct corpus_vocab *v) {
    struct mg_error err = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    v->json = mg_file_read(AT_FDCWD, path, path, MG_BPE_MAX_FILE, &v->json_len, &err);
    return v->json ? 0 : say_model_error(&err);
}

/* The characters of dir/meta.json, or the tokenizer.json beside it, in new memory. 0 or
 * an exit code. */
static int read_vocab(const char *dir, struct corpus_vocab *v) {
    struct mg_meta meta = {0};
    int rc = read_meta(dir, &meta);
    if (!rc) v->chars = meta.chars, v->n_chars = meta.n_chars, meta.chars = NULL;
    mg_meta_free(&meta);
    return !rc && !v->chars ? read_json(dir, v) : rc;
}

int state_resume(struct run *r, const struct run_options *opt, const char *input,
                 const char *dir) {
    struct corpus_vocab vocab = {0};
    *r = (struct run){0};
    int rc = read_vocab(dir, &vocab);
    if (!rc) rc = run_open(r, opt, input, &vocab);
    free(vocab.chars);
    free(vocab.json);
    return rc ? rc : load(r, dir);
}
