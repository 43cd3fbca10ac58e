/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json from a stranger: refused with one line, or a tokenizer that gives back
 * what it was given as far as it knows its bytes. */
#include <stdlib.h>
#include <string.h>

#include "../../core/tokenizer.h"
#include "fuzz.h"

static void use(const struct mg_tokenizer *t) {
    static const char text[] =
        "The low lower lowest: 12 \xc3\xa9\xe2\x82\xac don't\n\n x";
    struct mg_encoding e;
    int32_t ids[64];
    size_t bytes = 0, len;
    void *scratch =
        aligned_alloc(64, (t->calls->scratch_bytes(t, sizeof text) + 63) & ~63ul);
    FUZZ_CHECK(scratch);
    mg_encoding_begin(&e, t, text, sizeof text - 1, scratch);
    for (int i = 0; !e.done; i++) {
        FUZZ_CHECK(i < 1000);
        size_t n = mg_encoding_run(&e, 7, ids, 64);
        FUZZ_CHECK(n <= 64);
        for (size_t k = 0; k < n; k++) {
            FUZZ_CHECK(ids[k] >= 0 && ids[k] < t->vocab_size);
            mg_tokenizer_text(t, ids[k], &len);
            FUZZ_CHECK(len <= t->max_bytes);
            bytes += len;
        }
    }
    FUZZ_CHECK(bytes <= sizeof text - 1);
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mg_error err = {0};
    struct mg_tokenizer *t = mg_tokenizer_bpe("f", (const char *)data, size, &err);
    if (t)
        use(t);
    else
        fuzz_check_line(err.text);
    mg_tokenizer_free(t);
    return 0;
}
