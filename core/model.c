/* SPDX-License-Identifier: Apache-2.0
 * model.c - a checkpoint directory opened: sizes from meta.json, the tokenizer, every
 * tensor bound once by name, kernels chosen; immutable from then on. Knows no file format
 * (meta.c, tok_*.c, checkpoint.c) and nothing of requests. */
#include "model.h"

#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "error.h"
#include "file.h"
#include "meta.h"
#include "ops.h"

/* Keep line, which mg_fail has filled, as a warning. */
static int add_warning(struct mg_model *m, const struct mg_error *line,
                       struct mg_error *err) {
    int i = 0;
    while (i < MG_MAX_WARNINGS && m->warning[i]) i++;
    if (i == MG_MAX_WARNINGS) return 0;
    m->warning[i] = strdup(line->text);
    return m->warning[i] ? 0 : mg_fail(err, MG_ENOMEM, "out of memory");
}

/* ---- text -------------------------------------------------------------------------- */

static int read_bpe(struct mg_model *m, int dirfd, const char *path,
                    struct mg_error *err) {
    size_t len;
    char *text = mg_file_read(dirfd, "tokenizer.json", path, MG_BPE_MAX_FILE, &len, err);
    if (!text) return -1;
    struct mg_sha256 h;
    mg_sha256_init(&h);
    mg_sha256_add(&h, text, len);
    mg_sha256_end(&h, m->tokenizer_sha256);
    m->has_tokenizer_file = 1;
    m->tokenizer_digest = mg_digest(text, len);
    m->tokenizer = mg_tokenizer_bpe(path, text, len, err);
    free(text);
    if (!m->tokenizer) return -1;
    if (m->tokenizer->vocab_size == m->info.vocab_size) return 0;
    return mg_fail(err, MG_EFILE,
                   "%s: found %d tokens, expected %d, the vocab_size of meta.json", path,
                   m->tokenizer->vocab_size, m->info.vocab_size);
}

/* Format B: byte-level BPE. The reference 0.5.0 had none, and 0.6 has nothing else. */
static int load_bpe(struct mg_model *m, int dirfd, const char *dir,
                    struct mg_error *err) {
    if (m->options.compat_05)
        return mg_fail(err, MG_EFILE,
                       "%s: found a BPE tokenizer (tokenizer.json, format B), expected "
                       "chars in meta.json (format A), to which compat 0.5 belongs",
                       dir);
    char *path = mg_file_path(dir, "tokenizer.json");
    if (!path) return mg_fail(err, MG_ENOMEM, "%s: out of memory", dir);
    int result = read_bpe(m, dirfd, path, err);
    free(path);
    return result;
}

/* Format A: the characters of meta.json. */
static int load_chars(struct mg_model *m, const struct mg_meta *meta, const char *dir,
                      struct mg_error *err) {
    if (m->options.compat_06)
        return mg_fail(
            err, MG_EFILE,
            "%s: found chars in meta.json (format A), expected a BPE tokenizer "
            "(tokenizer.json, format B), to which compat 0.6 belongs",
            dir);
    m->tokenizer = mg_tokenizer_chars(meta->chars, meta->n_chars, meta->has_chat, err);
    if (!m->tokenizer) return -1;
    if (!meta->has_bpe) return 0;
    struct mg_error line = {0};
    mg_fail(&line, MG_EFILE, "%s: meta.json has chars, so tokenizer.json is ignored",
            dir);
    return add_warning(m, &line, err);
}

/* Take over sizes, open the tokenizer. */
static int load_meta(struct mg_model *m, int dirfd, const char *dir,
                     struct mg_error *err) {
    struct mg_meta meta;
    int result = mg_meta_read(dirfd, dir, &meta, err);
    if (!result) {
        m->info.vocab_size = meta.vocab_size;
        m->info.n_embd = meta.n_embd;
        m->info.n_head = meta.n_head;
        m->info.n_layer = meta.n_layer;
        m->info.block_size = meta.block_size;
        m->head_dim = meta.n_embd / meta.n_head;
        m->meta_digest = meta.digest;
        result =
            meta.chars ? load_chars(m, &meta, dir, err) : load_bpe(m, dirfd, dir, err);
    }
    if (!result) m->info.has_chat = m->tokenizer->user >= 0;
    mg_meta_free(&meta);
    return result;
}

/* ---- weights ----------------------------------------------------------------------- */

struct mg_sizes mg_model_sizes(const struct mg_model *m) {
    const struct mg_model_info *i = &m->info;
    return (struct mg_sizes){.vocab_size = i->vocab_size,
                             .n_embd = i->n_embd,
                             .n_head = i->n_head,
                             .n_layer = i->n_layer,
                             .block_size = i->block_size};
}

int mg_check_finite(const struct mg_ops *ops, const struct mg_matrix *w, const char *path,
                    const char *name, struct mg_error *err) {
    int64_t bad = ops->find_nonfinite(w->dtype, w->data, mg_matrix_elements(w));
    if (bad < 0) return 0;
    float v;
    const char *data = w->data;
    ops->widen(w->dtype, data + (size_t)bad * mg_dtype_size(w->dtype), 1, &v);
    return mg_fail(err, MG_EFILE,
                   "%s: tensor \"%.80s\": found %s at index %jd (row %jd, column %jd), "
                   "expected a finite number",
                   path, name, isnan(v) ? "NaN" : "Inf", (intmax_t)bad,
                   (intmax_t)(bad / w->cols), (intmax_t)(bad % w->cols));
}

static int bind_tensors(struct mg_model *m, const char *path, struct mg_error *err) {
    const struct mg_sizes sizes = mg_model_sizes(m);
    m->tensors.layer = calloc((size_t)sizes.n_layer, sizeof *m->tensors.layer);
    if (!m->tensors.layer)
        return mg_fail(err, MG_ENOMEM, "out of memory: %d layers", sizes.n_layer);
    for (int i = 0; i < mg_tensor_count(&sizes); i++) {
        const struct mg_tensor t = mg_tensor_describe(&sizes, i);
        struct mg_matrix *place = mg_tensor_place(&m->tensors, i);
        if (mg_weights_bind(m->weights, t.name, t.rows, t.cols, place, err) ||
            mg_check_finite(m->ops, place, path, t.name, err))
            return -1;
    }
    return 0;
}

static int load_weights(struct mg_model *m, int dirfd, const char *dir,
                        struct mg_error *err) {
    char *path = mg_file_path(dir, "weights.safetensors");
    if (!path) return mg_fail(err, MG_ENOMEM, "%s: out of memory", dir);
    int result = -1;
    m->weights = mg_weights_openat(dirfd, "weights.safetensors", path, err);
    if (m->weights) result = bind_tensors(m, path, err);
    size_t count;
    const char *extra = result ? NULL : mg_weights_unbound(m->weights, &count);
    if (extra) {
        struct mg_error line = {0};
        mg_fail(&line, MG_EFILE,
                "%s: %zu tensor%s not part of the model, ignored: \"%.80s\"%s", path,
                count, count > 1 ? "s" : "", extra, count > 1 ? ", ..." : "");
        result = add_warning(m, &line, err);
    }
    free(path);
    return result;
}

/* The number of parameters, and the type that all tensors have in common. */
static void describe_tensors(struct mg_model *m) {
    const struct mg_sizes sizes = mg_model_sizes(m);
    m->info.n_params = mg_tensor_elements(&sizes);
    m->info.dtype = mg_dtypes[m->tensors.wte.dtype].name;
    for (int i = 0; i < mg_tensor_count(&sizes); i++)
        if (mg_tensor_place(&m->tensors, i)->dtype != m->tensors.wte.dtype)
            m->info.dtype = "mixed";
}

/* Special tokens included. */
static size_t longest_spelling(const struct mg_tokenizer *t) {
    size_t longest = 0, len;
    for (int32_t id = 0; id < t->vocab_size; id++) {
        mg_tokenizer_spelling(t, id, &len);
        if (len > longest) longest = len;
    }
    return longest;
}

/* The text of block_size tokens, and an unfinished character that becomes U+FFFD. */
static size_t sample_bytes(const struct mg_model *m) {
    const struct mg_tokenizer *t = m->tokenizer;
    size_t longest = m->options.compat_06 ? longest_spelling(t) : t->max_bytes;
    return (size_t)m->info.block_size * t->growth * longest + 3;
}

static int describe_model(struct mg_model *m, struct mg_error *err) {
    struct mg_model_info *info = &m->info;
    describe_tensors(m);
    mg_weights_map(m->weights, &info->weights_bytes);
    info->max_token_bytes = m->tokenizer->max_bytes;
    info->max_sample_bytes = sample_bytes(m);
    info->temperature = m->options.compat_06 ? 0.8 : 0.5;
    info->tokenizer = m->tokenizer->name;
    info->kernels = m->ops->name;
    if (strcmp(m->ops->name, "plain")) return 0;
    struct mg_error line = {0};
    mg_fail(&line, MG_ESYSTEM, "this CPU has no vector kernels here: correct, but slow");
    return add_warning(m, &line, err);
}

struct mg_model *mg_model_open(const char *dir, const struct mg_model_options *opt,
                               struct mg_error *err) {
    struct mg_model *m = calloc(1, sizeof *m);
    int dirfd = -1;
    if (!m) {
        mg_fail(err, MG_ENOMEM, "%s: out of memory", dir);
        goto fail;
    }
    if (opt) m->options = *opt;
    m->ops = mg_ops_choose(m->options.kernels, m->options.no_better);
    dirfd = mg_dir_open(dir, err);
    if (dirfd < 0 || load_meta(m, dirfd, dir, err) || load_weights(m, dirfd, dir, err) ||
        describe_model(m, err))
        goto fail;
    close(dirfd);
    return m;
fail:
    if (dirfd >= 0) close(dirfd);
    mg_model_close(m);
    return NULL;
}

void mg_model_close(struct mg_model *m) {
    if (!m) return;
    for (int i = 0; i < MG_MAX_WARNINGS; i++) free(m->warning[i]);
    mg_tokenizer_free(m->tokenizer);
    mg_weights_close(m->weights);
    free(m->tensors.layer);
    free(m);
}

const struct mg_model_info *mg_model_info(const struct mg_model *m) {
    return &m->info;
}

const char *mg_model_warning(const struct mg_model *m, int i) {
    return i >= 0 && i < MG_MAX_WARNINGS ? m->warning[i] : NULL;
}

void mg_model_digest(const struct mg_model *m, char hex[17]) {
    size_t size;
    const void *map = mg_weights_map(m->weights, &size);
    uint64_t parts[3] = {htole64(mg_digest(map, size)), htole64(m->meta_digest),
                         htole64(m->tokenizer_digest)};
    size_t n = m->tokenizer_digest ? 3 : 2;
    snprintf(hex, 17, "%016jx", (uintmax_t)mg_digest(parts, n * sizeof *parts));
}

int mg_model_maps(const struct mg_model *m, const void *addr) {
    size_t size;
    const char *map = mg_weights_map(m->weights, &size);
    return (uintptr_t)addr - (uintptr_t)map < size;
}
