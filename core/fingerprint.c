/* SPDX-License-Identifier: Apache-2.0
 * fingerprint.c - what decides the bytes of every reply, as one short name.
 * Knows no requests. */
#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

static void add_u64(struct mg_sha256 *h, uint64_t v) {
    v = htole64(v);
    mg_sha256_add(h, &v, sizeof v);
}

/* With its length in front, so that no two lists of texts look alike. */
static void add_sized(struct mg_sha256 *h, const void *data, size_t len) {
    add_u64(h, len);
    mg_sha256_add(h, data, len);
}

/* Format A: the characters in the order of their ids; format B: its file. */
static void add_tokenizer(struct mg_sha256 *h, const struct mg_model *m) {
    const struct mg_tokenizer *t = m->tokenizer;
    add_sized(h, t->name, strlen(t->name));
    add_u64(h, (uint64_t)m->info.has_chat);
    if (m->has_tokenizer_file) {
        mg_sha256_add(h, m->tokenizer_sha256, MG_SHA256);
        return;
    }
    for (int32_t id = 0; id < t->vocab_size; id++) {
        size_t len;
        const char *text = mg_tokenizer_text(t, id, &len);
        add_sized(h, text, len);
    }
}

static void add_tensors(struct mg_sha256 *h, const struct mg_model *m) {
    struct mg_sizes sizes = mg_model_sizes(m);
    struct mg_tensors tensors = m->tensors;
    for (int i = 0; i < mg_tensor_count(&sizes); i++) {
        const struct mg_matrix *w = mg_tensor_place(&tensors, i);
        add_u64(h, (uint64_t)w->dtype);
        add_sized(h, w->data, mg_matrix_elements(w) * mg_dtype_size(w->dtype));
    }
}

/* What of the files decides: sizes, tokenizer, weights; not spacing, names of unknown
 * members or the order of tensors. */
static void hash_model(const struct mg_model *m, unsigned char digest[MG_SHA256]) {
    const struct mg_model_info *i = &m->info;
    const int sizes[] = {i->vocab_size, i->n_embd, i->n_head, i->n_layer, i->block_size};
    struct mg_sha256 h;
    mg_sha256_init(&h);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        add_u64(&h, (uint64_t)sizes[k]);
    add_tokenizer(&h, m);
    add_tensors(&h, m);
    mg_sha256_end(&h, digest);
}

void mg_model_fingerprint(const struct mg_model *m, enum mg_kv kv,
                          char hex[MG_FINGERPRINT + 1]) {
    unsigned char digest[MG_SHA256];
    char model[2 * MG_SHA256 + 1], text[200];
    hex[0] = '\0';
    if (m->options.kernels == MG_KERNELS_BLIS) return;
    hash_model(m, digest);
    mg_hex(digest, MG_SHA256, model);
    int n = snprintf(text, sizeof text, "microgpt%c%d%c%s%c%s%c%s", 0, MG_SEMANTICS, 0,
                     model, 0, kv == MG_KV_F16 ? "f16" : "f32", 0,
                     m->options.compat_05   ? "0.5"
                     : m->options.compat_06 ? "0.6"
                                            : "none");
    struct mg_sha256 h;
    mg_sha256_init(&h);
    mg_sha256_add(&h, text, (size_t)n);
    mg_sha256_end(&h, digest);
    mg_hex(digest, MG_FINGERPRINT / 2, hex);
}
