/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.c - the calls of a tokenizer through its table. */
#include "tokenizer.h"

void mg_tokenizer_free(struct mg_tokenizer *t) {
    if (t) t->calls->free(t);
}

const char *mg_tokenizer_text(const struct mg_tokenizer *t, int32_t id, size_t *len) {
    return t->calls->text(t, id, len);
}

const char *mg_tokenizer_spelling(const struct mg_tokenizer *t, int32_t id, size_t *len) {
    return t->calls->spelling(t, id, len);
}

void mg_encoding_begin(struct mg_encoding *e, const struct mg_tokenizer *t,
                       const char *text, size_t len, void *scratch) {
    *e = (struct mg_encoding){
        .tokenizer = t, .text = text, .len = len, .done = !len, .scratch = scratch};
    t->calls->begin(e);
}

size_t mg_encoding_run(struct mg_encoding *e, size_t budget, int32_t *out, size_t cap) {
    return e->done ? 0 : e->tokenizer->calls->run(e, budget, out, cap);
}
