/* SPDX-License-Identifier: Apache-2.0
 *
 * bpe_tool.c - see bpe_tool.h. */
#include "bpe_tool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "folder.h"
#include "make_model.h"

struct mg_tokenizer *bpe_open(const char *dir) {
    size_t len;
    struct mg_error err = {0};
    char *text = folder_read(dir, "tokenizer.json", &len);
    struct mg_tokenizer *t = mg_tokenizer_bpe(dir, text, len, &err);
    free(text);
    if (!t) fail_msg("%s", err.text);
    return t;
}

/* One slice; returns the ids written behind out[n]. */
static size_t run_slice(struct mg_encoding *e, struct bpe_way way, int32_t *out) {
    size_t budget = SIZE_MAX, cap = e->len + 1, from = e->at;
    if (way.random) {
        budget = (size_t)random_int(way.random, 1, way.most);
        cap = (size_t)random_int(way.random, 1, way.most);
    }
    size_t n = mg_encoding_run(e, budget, out, cap);
    assert_true(n <= cap && n <= budget);
    assert_true(e->at >= from && e->at <= e->len);
    assert_true(e->at < e->len || e->done);
    return n;
}

int32_t *bpe_encode(const struct mg_tokenizer *t, const char *text, size_t len,
                    struct bpe_way way, size_t *n) {
    struct mg_encoding e;
    size_t bytes = (t->calls->scratch_bytes(t, len) + 63) / 64 * 64;
    void *scratch = aligned_alloc(64, bytes);
    int32_t *out = malloc((2 * len + 2) * sizeof *out);
    assert_non_null(scratch);
    assert_non_null(out);
    memset(scratch, 0xEE, bytes);
    mg_encoding_begin(&e, t, text, len, scratch);
    e.special = way.special;
    *n = 0;
    while (!e.done) {
        assert_true(*n <= len);
        *n += run_slice(&e, way, out + *n);
    }
    assert_int_equal(e.at, len);
    free(scratch);
    return out;
}
