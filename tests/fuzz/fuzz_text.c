/* SPDX-License-Identifier: Apache-2.0
 * Text from the bytes of tokens, as streams send it: cut anywhere it ends as it does in
 * one piece, what was visible stays, and all of it is UTF-8. The first two bytes choose
 * rules and cuts. */
#include <stdlib.h>
#include <string.h>

#include "../../core/text.h"
#include "fuzz.h"

static void check_utf8(const struct mg_text *t) {
    char *same = fuzz_utf8((const uint8_t *)t->buf, t->visible);
    FUZZ_CHECK(!memcmp(same, t->buf, t->visible));
    free(same);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_bytes in = {data, size};
    unsigned rules = fuzz_byte(&in), step = fuzz_byte(&in);
    size_t cap = 3 * in.left + 3, shown = 0;
    char *a = malloc(cap), *b = malloc(cap), *before = malloc(cap);
    struct mg_text whole, parts;
    mg_text_init(&whole, a, cap, rules & 1);
    mg_text_init(&parts, b, cap, rules & 1);
    whole.strip = parts.strip = rules >> 1 & rules & 1;
    mg_text_append(&whole, (const char *)in.at, in.left);
    for (size_t at = 0, n; at < in.left; at += n) {
        n = 1 + (step * (at + 1)) % 5;
        if (n > in.left - at) n = in.left - at;
        mg_text_append(&parts, (const char *)in.at + at, n);
        FUZZ_CHECK(parts.visible >= shown && !memcmp(before, b, shown));
        memcpy(before, b, shown = parts.visible);
        check_utf8(&parts);
    }
    mg_text_finish(&whole);
    mg_text_finish(&parts);
    FUZZ_CHECK(parts.visible >= shown && !memcmp(before, b, shown));
    FUZZ_CHECK(whole.visible == parts.visible && !memcmp(a, b, whole.visible));
    check_utf8(&parts);
    free(a);
    free(b);
    free(before);
    return 0;
}
