/* SPDX-License-Identifier: Apache-2.0
 * Text to ids and back by a real tokenizer: in slices the ids of one go, and bytes of
 * the text in its order. The first byte chooses the slices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/tokenizer.h"
#include "fuzz.h"

static struct mg_tokenizer *tokenizer;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static char text[1 << 20];
    struct mg_error err;
    (void)argc, (void)argv;
    FILE *f = fopen("tests/golden-bpe/en500-chat/tokenizer.json", "rb");
    if (!f) return 1;
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    tokenizer = mg_tokenizer_bpe("tokenizer.json", text, n, &err);
    return tokenizer ? 0 : 1;
}

static size_t encode(const char *text, size_t len, size_t budget, size_t cap,
                     int32_t *out) {
    struct mg_encoding e;
    size_t n = 0, room = tokenizer->calls->scratch_bytes(tokenizer, len);
    void *scratch = aligned_alloc(64, (room + 64) & ~63ul);
    FUZZ_CHECK(scratch);
    mg_encoding_begin(&e, tokenizer, text, len, scratch);
    while (!e.done) {
        size_t left = len - n,
               k = mg_encoding_run(&e, budget, out + n, cap < left ? cap : left);
        FUZZ_CHECK(k <= cap && n + k <= len);
        n += k;
    }
    free(scratch);
    return n;
}

/* The bytes of the ids are those of the text, in order, but for those no token has. */
static void check_bytes(const char *text, size_t len, const int32_t *ids, size_t n) {
    size_t at = 0, k;
    for (size_t i = 0; i < n; i++) {
        const char *bytes = mg_tokenizer_text(tokenizer, ids[i], &k);
        FUZZ_CHECK(k > 0);
        for (size_t j = 0; j < k; j++, at++) {
            while (at < len && text[at] != bytes[j]) at++;
            FUZZ_CHECK(at < len);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_bytes in = {data, size};
    size_t budget = 1 + fuzz_byte(&in), cap = 1 + fuzz_byte(&in), len = in.left;
    char *text = fuzz_utf8(in.at, len);
    int32_t *a = malloc((len + 1) * sizeof *a), *b = malloc((len + 1) * sizeof *b);
    size_t n = encode(text, len, SIZE_MAX / 2, len + 1, a);
    FUZZ_CHECK(encode(text, len, budget, cap, b) == n);
    FUZZ_CHECK(!memcmp(a, b, n * sizeof *a));
    check_bytes(text, len, a, n);
    free(a);
    free(b);
    free(text);
    return 0;
}
