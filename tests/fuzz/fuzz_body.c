/* SPDX-License-Identifier: Apache-2.0
 * A body, or the query of a GET, to a typed request: refused with one line and a status
 * of the client's, or a request whose every value is within its bounds and has a tag. The
 * first byte chooses the route. */
#include <string.h>

#include "../../fcgi/body.h"
#include "../../fcgi/dialect.h"
#include "../../fcgi/etag.h"
#include "../../fcgi/query.h"
#include "fuzz.h"

enum { MAX_JSON = 1 << 18, MAX_BODY = 1 << 14 };

static const struct mg_model_info model = {
    .vocab_size = 64,
    .n_embd = 16,
    .n_head = 4,
    .n_layer = 1,
    .block_size = 32,
    .has_chat = 1,
    .max_token_bytes = 4,
    .dtype = "F32",
    .tokenizer = "char",
    .kernels = "plain",
    .max_sample_bytes = 128,
    .temperature = 0.5,
};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    return body_init(MAX_JSON, 1 << 16) ? 1 : 0;
}

static void check_refusal(const struct refusal *why) {
    FUZZ_CHECK(why->status >= 400 && why->status < 500);
    FUZZ_CHECK(memchr(why->text, 0, sizeof why->text));
    fuzz_check_line(why->text);
}

static void check_ask(struct request *r) {
    const struct ask *a = &r->ask;
    FUZZ_CHECK(a->temperature >= 0 && a->temperature < 1e300);
    FUZZ_CHECK(a->n_samples >= 1 && a->n_samples <= REQUEST_MAX_SAMPLES);
    for (size_t i = 0; i < r->n_messages; i++)
        FUZZ_CHECK(r->messages[i].len == strnlen(r->messages[i].content, MAX_BODY) ||
                   memchr(r->messages[i].content, 0, r->messages[i].len));
    etag_make(r, &model, "00112233445566778899aabbccddeeff");
    FUZZ_CHECK(strlen(r->etag) == ETAG_DIGITS + 2);
}

static void parse(const struct dialect *dialect, char *text, size_t n, int compat) {
    struct request r = {.dialect = dialect};
    struct refusal why = {0};
    struct dialect_limits limits = {&model, compat, 1 << 20};
    struct body d;
    switch (body_parse(&d, text, n)) {
    case BODY_OK:
        if (dialect->parse(&r, &d, &limits, &why))
            check_refusal(&why);
        else
            check_ask(&r);
        break;
    case BODY_BROKEN: fuzz_check_line(d.error); break;
    case BODY_TOO_BIG: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char text[MAX_BODY + 1], query[MAX_BODY + 1];
    struct fuzz_bytes in = {data, size};
    struct refusal why = {0};
    unsigned route = fuzz_byte(&in);
    size_t n = in.left < MAX_BODY ? in.left : MAX_BODY;
    int64_t len = (int64_t)n;
    body_reset();
    if (n) memcpy(text, in.at, n);
    if (route & 2) {
        if (n) memcpy(query, in.at, n);
        query[n] = '\0';
        len = query_to_json(query, text, MAX_BODY, &why);
        if (len < 0) check_refusal(&why);
    }
    if (len >= 0)
        parse(route & 1 ? &dialect_chat : &dialect_generate, text, (size_t)len,
              route >> 2 & 1);
    return 0;
}
